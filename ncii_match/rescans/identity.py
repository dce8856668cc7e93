"""What makes a rescan this one and no other: what ``job.json`` says, and every worker must see for itself."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncii_match.jobs.stored_rows import Chunks
from ncii_match.matcher import Matcher

FORMAT = 1


def said_of(
    chunks: Chunks,
    matcher: Matcher,
    *,
    hashes: Path | None,
    bank: str | None,
    since: tuple[int, NDArray[np.int64]] | None,
) -> dict[str, Any]:
    """The input, the question and where hashes go, as JSON gives it back.

    hashes : where the media's hashes are kept; None for nowhere. bank : its name. since : number of a snapshot, and
    int64 [n], what the bank has learned since; None for the whole bank.
    """
    stored = chunks.stored
    limits = asdict(matcher.limits) | {"formats": sorted(matcher.limits.formats)}
    said = {
        "format": FORMAT,
        "contents": stored.contents,
        "input": stored.fingerprint,
        "rows": stored.rows,
        "chunk": chunks.size,
        "algorithm": str(matcher.snapshot.algorithm),
        "views": [int(view) for view in matcher.views] if chunks.is_pictures else None,
        "limits": limits if chunks.is_pictures else None,
        "jpeg": matcher.jpeg if chunks.is_pictures else None,
        "bank": {"name": bank, "is": [*matcher.banks]},
        "policy": matcher.policy.to_dict(),
        "radius": matcher.radius,
        "hashes": None if hashes is None else os.fsencode(hashes).decode("utf-8", "backslashreplace"),
        "since": None if since is None else [since[0], _digest(since[1])],
    }
    plain: dict[str, Any] = json.loads(json.dumps(said))  # as it will be read
    return plain


def written(said: Mapping[str, Any]) -> bytes:
    """As it stands in ``job.json``."""
    return json.dumps(said, indent=1).encode() + b"\n"


def other_in(before: Mapping[str, Any], said: Mapping[str, Any]) -> list[str]:
    """Names of what differs."""
    return [name for name in said if before.get(name) != said[name]]


def _digest(entry_ids: NDArray[np.int64]) -> str:
    return hashlib.sha256(entry_ids.astype("<i8").tobytes()).hexdigest()
