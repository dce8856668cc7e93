"""From what an engine found for each hash to one row a picture."""

import numpy as np
from numpy.typing import NDArray

from ncii_match.values import Hashes, Matches


def merge(
    hashes: Hashes,
    rows: NDArray[np.int64],
    entry_ids: NDArray[np.int64],
    distances: NDArray[np.uint16],
    radius: int,
) -> Matches:
    """Finds (row of ``hashes``, entry, distance), in any order, to Matches.

    An entry found through several views of one picture is kept once, with the best distance and the lowest view that
    has it.
    """
    pictures = hashes.source_row[rows].astype(np.int64)
    views = hashes.view[rows]
    order = np.lexsort((views, distances, entry_ids, pictures))
    pictures, entry_ids, distances, views = pictures[order], entry_ids[order], distances[order], views[order]
    first = np.ones(len(order), bool)
    first[1:] = (pictures[1:] != pictures[:-1]) | (entry_ids[1:] != entry_ids[:-1])
    pictures, entry_ids, distances, views = pictures[first], entry_ids[first], distances[first], views[first]
    order = np.lexsort((entry_ids, distances, pictures))
    offsets = np.zeros(hashes.pictures + 1, np.int64)
    np.cumsum(np.bincount(pictures, minlength=hashes.pictures), out=offsets[1:])
    return Matches(offsets, entry_ids[order], distances[order], views[order], radius)
