"""Hypothesis strategies for the values of the house."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ncii_match.outcomes import Status
from ncii_match.values import PDQ, PHASH, Hashes, View

algorithms = st.sampled_from([PDQ, PHASH])


@st.composite
def hashes(draw, most=20):
    """A batch of any hashes: every status, view, quality and repeated source rows."""
    algorithm = draw(algorithms)
    n = draw(st.integers(0, most))
    status = draw(hnp.arrays(np.uint8, n, elements=st.sampled_from([int(one) for one in Status])))
    bits = draw(hnp.arrays(np.uint8, (n, algorithm.nbytes)))
    bits[status != Status.OK] = 0
    source = np.sort(draw(hnp.arrays(np.uint32, n, elements=st.integers(0, 9))))
    return Hashes(
        algorithm,
        bits,
        draw(hnp.arrays(np.uint8, n, elements=st.sampled_from([0, 50, 100, 255]))),
        status,
        source,
        draw(hnp.arrays(np.uint8, n, elements=st.sampled_from([int(one) for one in View]))),
    )
