"""What a platform does with a match, written down once: in code or in a TOML file, with a name that follows from it."""

import hashlib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import PolicyError
from ncii_match.outcomes import STRENGTH, Action, Hold, Outcome, State, Status
from ncii_match.values import PDQ, PDQ_MIN_QUALITY, PDQ_THRESHOLD, Algorithm, Hashes

_STATES = ("seed", "confirmed", "disputed")
_ACTIONS = (*_STATES, "low_quality", "unreadable", "unknown")
_WITNESS = ("above", "threshold")
_KEYS = ("threshold", "min_quality", "thresholds", "witness", "actions", "regions", "max_age", "deadline")
_TABLES = ("thresholds", "witness", "actions")

_MOST_BITS = np.iinfo(np.uint16).max
"""The largest distance that can be written."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a platform does with a match. The default reports every match for review and blocks nothing unreviewed.

    Parameters
    ----------
    threshold : int
        Largest distance, in bits and inclusive, that counts as a match; never above the radius searched.
    min_quality : int
        PDQ quality (0..100) below which a view says too little. Such views count for nothing where another view of the
        picture has enough, or none that is known; without any, it is LOW_QUALITY whatever it is near to.
    on_seed, on_confirmed, on_disputed : Action
        For a match with an entry in that state; of several the strongest.
    on_low_quality : Action
        For a picture with too little detail; at least REVIEW when an entry is within the threshold.
    on_unreadable, on_unknown : Action
        For a picture that could not be read, and when the bank could not be looked at.
    threshold_seed, threshold_confirmed, threshold_disputed : int or None
        The threshold for holds in that state, in place of ``threshold``. An entry matches when one of its holds does;
        the strongest state among those speaks for it.
    regions : set of str or None
        Codes of regions; holds whose case has another region do not count. Cases without a region always do. None: all
        count.
    witness_above, witness_threshold : int or None
        A match further away than ``witness_above`` bits is weak, and does not count where the picture's other hash
        contradicts it: the bank of other hashes (``Matcher(witness=)``) knows the case, and has no entry of it within
        ``witness_threshold`` bits. None for no witness.
    max_age : float or None
        Seconds since the snapshot was published, beyond which every answer is UNKNOWN; None for no bound.
    deadline : float or None
        Seconds that one check may take; an answer that comes later is UNKNOWN. None for no bound on an answer; a
        picture that is decoded in a process of its own is then stopped after ``DECODING_SECONDS``, 10 s.

    Raises
    ------
    PolicyError
        For values of the wrong kind or out of range.

    Examples
    --------
    >>> from ncii_match import Action, Policy
    >>> policy = Policy(threshold=20, on_confirmed=Action.REVIEW)
    >>> Policy.from_toml(policy.to_toml()) == policy
    True
    """

    threshold: int = PDQ_THRESHOLD
    min_quality: int = PDQ_MIN_QUALITY
    on_seed: Action = Action.REVIEW
    on_confirmed: Action = Action.BLOCK
    on_disputed: Action = Action.REVIEW
    on_low_quality: Action = Action.ALLOW
    on_unreadable: Action = Action.REVIEW
    on_unknown: Action = Action.REVIEW
    threshold_seed: int | None = None
    threshold_confirmed: int | None = None
    threshold_disputed: int | None = None
    regions: frozenset[str] | None = None
    witness_above: int | None = None
    witness_threshold: int | None = None
    max_age: float | None = None
    deadline: float | None = None
    widest: int = field(init=False, repr=False, compare=False)
    """The largest of the thresholds, in bits: what must at least be searched."""
    thresholds: NDArray[np.uint16] = field(init=False, repr=False, compare=False)
    """The threshold for each state, strongest state first, as distances are compared with: uint16 [4]."""
    outcome_actions: NDArray[np.uint8] = field(init=False, repr=False, compare=False)
    """The action by ``Outcome``, uint8 [5]; that for a match comes from the states of its entries."""
    state_actions: NDArray[np.uint8] = field(init=False, repr=False, compare=False)
    """The action for a match by the ``State`` that speaks for its entry, uint8 [4]."""

    def __post_init__(self) -> None:
        _checked_whole("threshold", self.threshold)
        for name in (*(f"threshold_{state}" for state in _STATES), *(f"witness_{name}" for name in _WITNESS)):
            if getattr(self, name) is not None:
                _checked_whole(name, getattr(self, name))
        if (self.witness_above is None) != (self.witness_threshold is None):
            raise PolicyError("witness_above and witness_threshold belong together; set both or neither")
        if _checked_whole("min_quality", self.min_quality) > 100:
            raise PolicyError(f"min_quality is {self.min_quality}; it must be from 0 to 100")
        for name in _ACTIONS:
            value = getattr(self, f"on_{name}")
            if not isinstance(value, Action):
                raise PolicyError(f"on_{name} is {value!r}; choose from Action.{', Action.'.join(Action.__members__)}")
        object.__setattr__(self, "regions", _checked_regions(self.regions))
        for name in ("max_age", "deadline"):
            object.__setattr__(self, name, _checked_seconds(name, getattr(self, name)))
        thresholds = [self.threshold_for(state) for state in STRENGTH]
        by_outcome = {
            Outcome.LOW_QUALITY: self.on_low_quality,
            Outcome.UNREADABLE: self.on_unreadable,
            Outcome.UNKNOWN: self.on_unknown,
        }
        tables = {
            "widest": max(thresholds),
            "thresholds": np.array([min(threshold, _MOST_BITS) for threshold in thresholds], np.uint16),
            "outcome_actions": np.array([by_outcome.get(outcome, Action.ALLOW) for outcome in Outcome], np.uint8),
            "state_actions": np.array([self.action_for(state) for state in State], np.uint8),
        }
        for name, table in tables.items():  # each judgement reads them
            object.__setattr__(self, name, table)

    @classmethod
    def default_for(cls, algorithm: Algorithm) -> Self:
        """The default policy, which exists for PDQ only: other hashes have no threshold that is anybody's standard."""
        if not algorithm.comparable_with(PDQ):
            raise PolicyError(
                f"there is no default threshold for {algorithm}; give one: policy=Policy(threshold=N), --threshold N"
            )
        return cls()

    @classmethod
    def from_toml(cls, path_or_text: str | PathLike[str]) -> Self:
        """A policy from a TOML file, or from TOML itself.

        path_or_text : a path; a str with a line break or an equals sign in it is TOML itself. What is not in it has
            its default. docs/upload-pipelines.md shows every key.

        Raises PolicyError for a file that cannot be read, for anything that is not TOML, and for a key or a value that
        is not known, naming it and what is allowed.
        """
        if isinstance(path_or_text, str) and any(mark in path_or_text for mark in "\n="):
            where, text = "the policy", path_or_text
        else:
            where = str(Path(path_or_text))
            try:
                text = Path(path_or_text).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise PolicyError(f"{where} cannot be read as a policy: {error}") from None
        try:
            content = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise PolicyError(f"{where} is not TOML: {error}") from None
        return cls.from_dict(content)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``, as strict as ``from_toml``."""
        _check_keys(content, _KEYS, "")
        settings = {name: content[name] for name in _KEYS if name in content and name not in _TABLES}
        thresholds = _table_in(content, "thresholds", _STATES)
        settings |= {f"threshold_{state}": value for state, value in thresholds.items()}
        settings |= {f"witness_{name}": value for name, value in _table_in(content, "witness", _WITNESS).items()}
        for name, value in _table_in(content, "actions", _ACTIONS).items():
            allowed = [action.lower() for action in Action.__members__]
            if value not in allowed:
                raise PolicyError(f"actions.{name} is {value!r}; choose from {', '.join(allowed)}")
            settings[f"on_{name}"] = Action[value.upper()]
        return cls(**settings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, in the shape of the TOML file; what is None is left out."""
        content: dict[str, Any] = {"threshold": self.threshold, "min_quality": self.min_quality}
        if self.regions is not None:
            content["regions"] = sorted(self.regions)
        content |= {name: getattr(self, name) for name in ("max_age", "deadline") if getattr(self, name) is not None}
        own = {state: getattr(self, f"threshold_{state}") for state in _STATES}
        if thresholds := {state: value for state, value in own.items() if value is not None}:
            content["thresholds"] = thresholds
        if self.witness_above is not None:
            content["witness"] = {"above": self.witness_above, "threshold": self.witness_threshold}
        content["actions"] = {name: getattr(self, f"on_{name}").name.lower() for name in _ACTIONS}
        return content

    def to_toml(self) -> str:
        """The policy as TOML; ``from_toml`` reads it."""
        content = self.to_dict()
        plain = [f"{name} = {_as_toml(value)}" for name, value in content.items() if not isinstance(value, dict)]
        for name, table in content.items():
            if isinstance(table, dict):
                plain += ["", f"[{name}]", *(f"{key} = {_as_toml(value)}" for key, value in table.items())]
        return "\n".join(plain) + "\n"

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that follow from the content alone: the same for equal policies, everywhere."""
        return _id_of(self)

    def threshold_for(self, state: State) -> int:
        """Largest distance, in bits and inclusive, at which a hold in this state counts."""
        own = {
            State.SEED: self.threshold_seed,
            State.CONFIRMED: self.threshold_confirmed,
            State.DISPUTED: self.threshold_disputed,
        }.get(state)
        return self.threshold if own is None else own

    def action_for(self, state: State) -> Action:
        """The action for a match with an entry in this state."""
        return {
            State.SEED: self.on_seed,
            State.CONFIRMED: self.on_confirmed,
            State.DISPUTED: self.on_disputed,
            State.WITHDRAWN: Action.ALLOW,
        }[state]

    def counts(self, hold: Hold, distance: int, witness: bool | None = None) -> bool:
        """Whether a hold makes an entry at a distance a match.

        witness : whether the picture's other hash agrees with its case; None when that is not known.
        """
        is_contradicted = witness is False and self.witness_above is not None and distance > self.witness_above
        return self.counts_in(hold.region) and distance <= self.threshold_for(hold.state) and not is_contradicted

    def leaves_out(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Rows that count for nothing: below ``min_quality``, of pictures with a row that is not. bool [n]."""
        is_hashed = hashes.status == int(Status.OK)
        is_low: NDArray[np.bool_] = is_hashed & (hashes.quality < self.min_quality)  # not known is 255
        if not is_low.any():
            return is_low
        has_better = np.zeros(hashes.pictures, bool)
        has_better[hashes.source_row[is_hashed & ~is_low]] = True
        return is_low & has_better[hashes.source_row]

    def to_search(self, hashes: Hashes) -> Hashes:
        """What to search a bank for: every row but those that this policy leaves out.

        An entry is found by the view that comes closest. One of too low quality must not stand before a better one.
        """
        if len(hashes) == 0 or hashes.quality.min() >= self.min_quality:
            return hashes
        is_left_out = self.leaves_out(hashes)
        return hashes[~is_left_out] if is_left_out.any() else hashes

    def counts_in(self, region: str | None) -> bool:
        """Whether a case with this region, or with one of several divided by commas, counts."""
        return self.regions is None or region is None or not self.regions.isdisjoint(region.split(","))


@lru_cache(maxsize=64)
def _id_of(policy: Policy) -> str:
    return hashlib.sha256(json.dumps(policy.to_dict(), sort_keys=True).encode()).hexdigest()[:12]


def _checked_whole(name: str, value: object) -> int:
    if type(value) is not int:
        raise PolicyError(f"{name} is {value!r}; it must be a whole number")
    if value < 0:
        raise PolicyError(f"{name} is {value}; it must be 0 or more")
    return value


def _checked_seconds(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
        raise PolicyError(f"{name} is {value!r}; it must be a number of seconds above 0")
    return float(value)


def _checked_regions(value: Any) -> frozenset[str] | None:
    if value is None:
        return None
    is_wrong = isinstance(value, str | Mapping) or not isinstance(value, Iterable)
    regions = () if is_wrong else tuple(value)
    if is_wrong or not all(isinstance(region, str) and region for region in regions):
        raise PolicyError(f"regions is {value!r}; it must be a list of region codes, such as ['IN', 'GB']")
    return frozenset(regions)


def _check_keys(content: Mapping[str, Any], allowed: tuple[str, ...], table: str) -> None:
    for name in content:
        if name not in allowed:
            raise PolicyError(f"{table}{name} is not a setting of a policy; choose from {', '.join(allowed)}")


def _table_in(content: Mapping[str, Any], name: str, allowed: tuple[str, ...]) -> Mapping[str, Any]:
    table = content.get(name, {})
    if not isinstance(table, Mapping):
        raise PolicyError(f"{name} is {table!r}; it must be a table with keys from {', '.join(allowed)}")
    _check_keys(table, allowed, f"{name}.")
    return table


def _as_toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_as_toml(element) for element in value)}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
