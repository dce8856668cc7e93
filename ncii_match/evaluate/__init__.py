"""What hashes survive and what they do not: altered copies of pictures, thresholds, and pages that show the result."""

from typing import TYPE_CHECKING

from ncii_match.lazy_names import lazy_names

if TYPE_CHECKING:
    from ncii_match.evaluate.pairs import PairCounts as PairCounts
    from ncii_match.evaluate.pairs import distance_histogram as distance_histogram
    from ncii_match.evaluate.thresholds import Comparison as Comparison
    from ncii_match.evaluate.thresholds import FalseFlags as FalseFlags
    from ncii_match.evaluate.thresholds import FalseRate as FalseRate
    from ncii_match.evaluate.thresholds import Recall as Recall
    from ncii_match.evaluate.thresholds import SamePairs as SamePairs
    from ncii_match.evaluate.thresholds import ThresholdTable as ThresholdTable
    from ncii_match.evaluate.thresholds import sweep_thresholds as sweep_thresholds

HOMES = {
    "ncii_match.evaluate.pairs": (
        "PairCounts",
        "distance_histogram",
    ),
    "ncii_match.evaluate.thresholds": (
        "Comparison",
        "FalseFlags",
        "FalseRate",
        "Recall",
        "SamePairs",
        "ThresholdTable",
        "sweep_thresholds",
    ),
}
"""By module: the public names that it owns."""

__all__ = [
    "Comparison",
    "FalseFlags",
    "FalseRate",
    "PairCounts",
    "Recall",
    "SamePairs",
    "ThresholdTable",
    "distance_histogram",
    "sweep_thresholds",
]

__getattr__, __dir__ = lazy_names(__name__, HOMES, __all__)
