"""Recognise non-consensual intimate images, and edited copies of them, from a bank of hashes.

Public names are loaded on first use, so ``import ncii_match`` costs a few milliseconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ncii_match.algorithms import PDQ as PDQ
    from ncii_match.algorithms import PDQ_512 as PDQ_512
    from ncii_match.algorithms import PHASH as PHASH
    from ncii_match.algorithms import Algorithm as Algorithm
    from ncii_match.bank.bank import Bank as Bank
    from ncii_match.bank.snapshots.snapshot import Snapshot as Snapshot
    from ncii_match.decisions import Decision as Decision
    from ncii_match.decisions import Decisions as Decisions
    from ncii_match.decisions import Match as Match
    from ncii_match.decisions import Policy as Policy
    from ncii_match.decisions import Timings as Timings
    from ncii_match.decisions import decide as decide
    from ncii_match.decisions import redecide as redecide
    from ncii_match.decode.limits import DecodeLimits as DecodeLimits
    from ncii_match.errors import AlgorithmMismatchError as AlgorithmMismatchError
    from ncii_match.errors import BankCorruptError as BankCorruptError
    from ncii_match.errors import BankError as BankError
    from ncii_match.errors import BankFormatError as BankFormatError
    from ncii_match.errors import BankLockedError as BankLockedError
    from ncii_match.errors import DecodeError as DecodeError
    from ncii_match.errors import EngineError as EngineError
    from ncii_match.errors import IndexFormatError as IndexFormatError
    from ncii_match.errors import InputError as InputError
    from ncii_match.errors import JobError as JobError
    from ncii_match.errors import NciiMatchError as NciiMatchError
    from ncii_match.errors import OlderSnapshotError as OlderSnapshotError
    from ncii_match.errors import OtherBankError as OtherBankError
    from ncii_match.errors import PolicyError as PolicyError
    from ncii_match.errors import SandboxError as SandboxError
    from ncii_match.errors import SignatureError as SignatureError
    from ncii_match.errors import UnsealedError as UnsealedError
    from ncii_match.evaluate.pairs import PairCounts as PairCounts
    from ncii_match.evaluate.pairs import distance_histogram as distance_histogram
    from ncii_match.evaluate.thresholds import Comparison as Comparison
    from ncii_match.evaluate.thresholds import FalseFlags as FalseFlags
    from ncii_match.evaluate.thresholds import FalseRate as FalseRate
    from ncii_match.evaluate.thresholds import Recall as Recall
    from ncii_match.evaluate.thresholds import SamePairs as SamePairs
    from ncii_match.evaluate.thresholds import ThresholdTable as ThresholdTable
    from ncii_match.evaluate.thresholds import sweep_thresholds as sweep_thresholds
    from ncii_match.index.live_index import LiveIndex as LiveIndex
    from ncii_match.index.radius_index import RadiusIndex as RadiusIndex
    from ncii_match.index.radius_index import build_index as build_index
    from ncii_match.index.radius_index import open_index as open_index
    from ncii_match.ingest import hash_batches as hash_batches
    from ncii_match.ingest import hash_images as hash_images
    from ncii_match.matcher import Matcher as Matcher
    from ncii_match.matcher import MatcherStatus as MatcherStatus
    from ncii_match.outcomes import Action as Action
    from ncii_match.outcomes import Hold as Hold
    from ncii_match.outcomes import Outcome as Outcome
    from ncii_match.outcomes import State as State
    from ncii_match.outcomes import Status as Status
    from ncii_match.rescans.rescan import rescan as rescan
    from ncii_match.sandbox.pool import Sandbox as Sandbox
    from ncii_match.sandbox.pool import SandboxStatus as SandboxStatus
    from ncii_match.values import Entries as Entries
    from ncii_match.values import Hashes as Hashes
    from ncii_match.values import Matches as Matches
    from ncii_match.views import View as View
    from ncii_match.views import Views as Views

__version__ = "0.1.0"

_HOMES = {
    "ncii_match.algorithms": ("PDQ", "PDQ_512", "PHASH", "Algorithm"),
    "ncii_match.bank.snapshots.snapshot": ("Snapshot",),
    "ncii_match.bank.bank": ("Bank",),
    "ncii_match.decisions": ("Decision", "Decisions", "Match", "Policy", "Timings", "decide", "redecide"),
    "ncii_match.decode.limits": ("DecodeLimits",),
    "ncii_match.errors": (
        "AlgorithmMismatchError",
        "BankCorruptError",
        "BankError",
        "BankFormatError",
        "BankLockedError",
        "DecodeError",
        "EngineError",
        "IndexFormatError",
        "InputError",
        "JobError",
        "NciiMatchError",
        "OlderSnapshotError",
        "OtherBankError",
        "PolicyError",
        "SandboxError",
        "SignatureError",
        "UnsealedError",
    ),
    "ncii_match.evaluate.pairs": ("PairCounts", "distance_histogram"),
    "ncii_match.evaluate.thresholds": (
        "Comparison",
        "FalseFlags",
        "FalseRate",
        "Recall",
        "SamePairs",
        "ThresholdTable",
        "sweep_thresholds",
    ),
    "ncii_match.index.radius_index": ("RadiusIndex", "build_index", "open_index"),
    "ncii_match.index.live_index": ("LiveIndex",),
    "ncii_match.ingest": ("hash_batches", "hash_images"),
    "ncii_match.matcher": ("Matcher", "MatcherStatus"),
    "ncii_match.outcomes": ("Action", "Hold", "Outcome", "State", "Status"),
    "ncii_match.rescans.rescan": ("rescan",),
    "ncii_match.sandbox.pool": ("Sandbox", "SandboxStatus"),
    "ncii_match.values": (
        "Entries",
        "Hashes",
        "Matches",
    ),
    "ncii_match.views": ("View", "Views"),
}

_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'ncii_match' has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
