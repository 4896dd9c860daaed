"""What a model says of its own privacy: known facts, of known types and bounded, whoever sent it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from cordon import foreign
from cordon.privacy.grouping import UNITS
from cordon.privacy.guarantee import ADJACENCY, LIFETIME, RUN

MECHANISM = re.compile(r"[A-Za-z][A-Za-z ,-]{0,199}")
ACCOUNTANT = re.compile(r"RDP|PLD|rdp|pld")
PLAIN = re.compile(r"[A-Za-z0-9_.-]{0,100}")
HASH = re.compile(r"[0-9a-f]{0,64}")
SIGNATURE = re.compile(r"[0-9a-f]{0,128}")
MOST = 10**12

Holds = Callable[[Any], bool]


def _text(pattern: re.Pattern[str]) -> Holds:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _one_of(*values: str) -> Holds:
    return lambda value: isinstance(value, str) and value in values


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and 0 <= value <= MOST


def _number_or_none(value: Any) -> bool:
    return value is None or _number(value)


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST


def _tip(value: Any) -> bool:
    kinds: dict[str, Holds] = {
        "key": _text(HASH), "rows": _count, "digest": _text(HASH), "signature": _text(SIGNATURE),
    }  # fmt: skip
    if not isinstance(value, dict) or not {"key", "rows", "digest"} <= set(value) <= set(kinds):
        return False
    return all(kinds[name](held) for name, held in value.items())


FACTS: Mapping[str, Holds] = {
    "unit": _one_of(*UNITS), "scope": _one_of(RUN, LIFETIME), "adjacency": _one_of(ADJACENCY),
    "mechanism": _text(MECHANISM), "run_mechanism": _text(MECHANISM), "accountant": _text(ACCOUNTANT),
    "run": _text(PLAIN), "plan": _text(HASH), "data": _one_of("public"), "ledger": _tip,
    "epsilon": _number, "delta": _number, "budget": _number,
    "epsilon_rdp": _number, "run_epsilon_rdp": _number,
    "epsilon_pld": _number_or_none, "run_epsilon_pld": _number_or_none,
    "rounds": _count, "sites": _count, "sites_per_patient": _count,
}  # fmt: skip


def stated(said: Any) -> dict[str, Any]:
    """``said`` as a statement of privacy; ValueError where it holds another fact, or one of another form."""
    if not isinstance(said, dict):
        raise ValueError("its privacy is no statement")
    if unknown := set(said) - set(FACTS):
        raise ValueError(f"its privacy is no statement, but says {foreign.names(unknown)}")
    if wrong := [name for name in said if not FACTS[name](said[name])]:
        raise ValueError(f"its privacy is no statement: {wrong[0]} is none")
    return said
