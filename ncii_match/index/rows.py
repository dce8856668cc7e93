"""From what an engine found for each hash to one row a picture."""

import numpy as np
from numpy.typing import NDArray

from ncii_match.errors import InputError
from ncii_match.index.engine import Found
from ncii_match.kernels.rows import MANY, group_by_picture
from ncii_match.values import Hashes, Matches

_NOTHING = np.empty((2, 0), np.uint32), np.empty(0, np.int64)


def merge(
    hashes: Hashes,
    asked: NDArray[np.int64],
    found: Found,
    entry_ids: NDArray[np.int64],
    radius: int,
    top_k: int | None,
) -> Matches:
    """Finds among the hashes ``asked``, in any order, to Matches.

    An entry found through several views of one picture is kept once, with the best distance and the lowest view that
    has it. Of each picture the ``top_k`` nearest entries are kept, all when None.
    """
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k is {top_k}; it must be 1 or more, or None for every entry")
    count = len(found.rows)
    offsets = np.zeros(hashes.pictures + 1, np.int64)
    ids, distances, views = np.empty(count, np.int64), np.empty(count, np.uint16), np.empty(count, np.uint8)
    if count:  # most pictures match nothing
        most = count if top_k is None else top_k
        count = group_by_picture(
            count, found.queries, found.rows, found.distances, entry_ids, asked, hashes.source_row, hashes.view, most,
            *(_NOTHING if count <= MANY else (np.empty((2, count), np.uint32), np.empty(count, np.int64))),
            offsets, ids, distances, views,
        )  # fmt: skip
    if count < len(ids):
        ids, distances, views = ids[:count], distances[:count], views[:count]
    return Matches.unchecked(offsets, ids, distances, views, radius)
