"""Tables of figures get into their places, and nothing else of a page changes."""

import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import tables

PAGE = """# Title

Text before.

<!-- table: goals -->

| an old table |

<!-- end -->

Text between.

<!-- table: runs -->
<!-- end -->

Text after.
"""


def test_tables_take_their_places_and_the_text_stays():
    page = tables.fill(PAGE, {"goals": "| a |\n", "runs": "| b |\n"})
    assert page == PAGE.replace("| an old table |", "| a |").replace(
        "<!-- table: runs -->\n", "<!-- table: runs -->\n\n| b |\n\n"
    )
    assert tables.fill(page, {"goals": "| a |\n", "runs": "| b |\n"}) == page


@pytest.mark.parametrize("names", [("goals",), ("goals", "runs", "more"), ()])
def test_a_table_without_a_place_and_a_place_without_a_table_are_refused(names):
    with pytest.raises(ValueError, match="the page has places for"):
        tables.fill(PAGE, dict.fromkeys(names, ""))


@pytest.mark.parametrize(
    ("goal", "is_met"),
    [
        (tables.at_least("a", 2, 2.0), True),
        (tables.at_least("a", 2, 1.99), False),
        (tables.at_most("a", 2, 2.0), True),
        (tables.at_most("a", 2, 2.01), False),
    ],
)
def test_a_promise_is_kept_at_its_bound(goal, is_met):
    assert goal.is_met == is_met
    assert ("**missed**" in tables.goals([goal])) != is_met


def test_numbers_have_three_digits_that_count():
    assert [tables.number(value) for value in (0.012345, 1.2345, 99.94, 123.4, 1234567)] == [
        "0.0123", "1.23", "99.9", "123", "1,234,567",
    ]  # fmt: skip
    assert tables.spread([3.0, 1.0, 2.0]) == "2x (1 to 3)"
