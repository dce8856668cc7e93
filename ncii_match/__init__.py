"""Recognise non-consensual intimate images, and edited copies of them, from a bank of hashes.

Public names are loaded on first use, so ``import ncii_match`` costs a few milliseconds. Names that fewer programs need
are where they belong: in ``ncii_match.decisions``, ``errors``, ``evaluate``, ``index``, ``outcomes``, ``sandbox`` and
``values``.
"""

from typing import TYPE_CHECKING

from ncii_match.lazy_names import lazy_names

if TYPE_CHECKING:
    from ncii_match.algorithms import PDQ as PDQ
    from ncii_match.algorithms import PDQ_512 as PDQ_512
    from ncii_match.algorithms import PHASH as PHASH
    from ncii_match.algorithms import Algorithm as Algorithm
    from ncii_match.bank.bank import Bank as Bank
    from ncii_match.bank.snapshots.snapshot import Snapshot as Snapshot
    from ncii_match.decisions import Decision as Decision
    from ncii_match.decisions import Decisions as Decisions
    from ncii_match.decisions import Policy as Policy
    from ncii_match.decisions import decide as decide
    from ncii_match.decisions import redecide as redecide
    from ncii_match.decode.limits import DecodeLimits as DecodeLimits
    from ncii_match.errors import BankError as BankError
    from ncii_match.errors import DecodeError as DecodeError
    from ncii_match.errors import InputError as InputError
    from ncii_match.errors import JobError as JobError
    from ncii_match.errors import NciiMatchError as NciiMatchError
    from ncii_match.evaluate.pairs import distance_histogram as distance_histogram
    from ncii_match.evaluate.thresholds import sweep_thresholds as sweep_thresholds
    from ncii_match.index.radius_index import RadiusIndex as RadiusIndex
    from ncii_match.index.radius_index import build_index as build_index
    from ncii_match.index.radius_index import open_index as open_index
    from ncii_match.ingest import hash_batches as hash_batches
    from ncii_match.ingest import hash_images as hash_images
    from ncii_match.matcher import Matcher as Matcher
    from ncii_match.outcomes import Action as Action
    from ncii_match.outcomes import Outcome as Outcome
    from ncii_match.outcomes import State as State
    from ncii_match.outcomes import Status as Status
    from ncii_match.rescans.rescan import rescan as rescan
    from ncii_match.values import Hashes as Hashes
    from ncii_match.values import Matches as Matches
    from ncii_match.views import View as View
    from ncii_match.views import Views as Views

__version__ = "0.1.0"

HOMES = {
    "ncii_match.algorithms": (
        "PDQ",
        "PDQ_512",
        "PHASH",
        "Algorithm",
    ),
    "ncii_match.bank.bank": ("Bank",),
    "ncii_match.bank.snapshots.snapshot": ("Snapshot",),
    "ncii_match.decisions": (
        "Decision",
        "Decisions",
        "Policy",
        "decide",
        "redecide",
    ),
    "ncii_match.decode.limits": ("DecodeLimits",),
    "ncii_match.errors": (
        "BankError",
        "DecodeError",
        "InputError",
        "JobError",
        "NciiMatchError",
    ),
    "ncii_match.evaluate.pairs": ("distance_histogram",),
    "ncii_match.evaluate.thresholds": ("sweep_thresholds",),
    "ncii_match.index.radius_index": (
        "RadiusIndex",
        "build_index",
        "open_index",
    ),
    "ncii_match.ingest": (
        "hash_batches",
        "hash_images",
    ),
    "ncii_match.matcher": ("Matcher",),
    "ncii_match.outcomes": (
        "Action",
        "Outcome",
        "State",
        "Status",
    ),
    "ncii_match.rescans.rescan": ("rescan",),
    "ncii_match.values": (
        "Hashes",
        "Matches",
    ),
    "ncii_match.views": (
        "View",
        "Views",
    ),
}
"""By module: the public names that it owns."""

__all__ = [
    "PDQ",
    "PDQ_512",
    "PHASH",
    "Action",
    "Algorithm",
    "Bank",
    "BankError",
    "Decision",
    "Decisions",
    "DecodeError",
    "DecodeLimits",
    "Hashes",
    "InputError",
    "JobError",
    "Matcher",
    "Matches",
    "NciiMatchError",
    "Outcome",
    "Policy",
    "RadiusIndex",
    "Snapshot",
    "State",
    "Status",
    "View",
    "Views",
    "__version__",
    "build_index",
    "decide",
    "distance_histogram",
    "hash_batches",
    "hash_images",
    "open_index",
    "redecide",
    "rescan",
    "sweep_thresholds",
]

__getattr__, __dir__ = lazy_names(__name__, HOMES, __all__)
