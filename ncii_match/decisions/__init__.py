"""Matches to decisions: the policy, the judgement, and what a decision is. Pure: no input, no clock, no bank."""

from ncii_match.decisions.cross_check import CrossCheck, weak_matches
from ncii_match.decisions.decision import CAUSES, Context, Decision, Decisions, Match, Timings
from ncii_match.decisions.judgement import NO_ENTRIES, check_rows, decide, undecided
from ncii_match.decisions.policy import Policy
from ncii_match.decisions.shortlist import MOST_HOLDS, MOST_MATCHES, Shortlist, choose_strongest
from ncii_match.decisions.stored import redecide

__all__ = [
    "CAUSES",
    "MOST_HOLDS",
    "MOST_MATCHES",
    "NO_ENTRIES",
    "Context",
    "CrossCheck",
    "Decision",
    "Decisions",
    "Match",
    "Policy",
    "Shortlist",
    "Timings",
    "check_rows",
    "choose_strongest",
    "decide",
    "redecide",
    "undecided",
    "weak_matches",
]
