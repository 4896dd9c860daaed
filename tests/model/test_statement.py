"""Tests of cordon.model.statement: what a received model may say of its privacy."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cordon.errors import UserError
from cordon.model.initial_weights import initial_parameters
from cordon.model.released import Model, load
from cordon.model.statement import stated
from cordon.privacy.guarantee import ADJACENCY, LIFETIME
from cordon.variants.features import FEATURES

GOOD: dict[str, Any] = {
    "unit": "patient", "epsilon": 2.0, "scope": LIFETIME, "delta": 1e-5, "adjacency": ADJACENCY,
    "mechanism": "Poisson-sampled Gaussian", "run_mechanism": "Poisson-sampled Gaussian",
    "accountant": "RDP", "epsilon_rdp": 2.0, "epsilon_pld": None, "run_epsilon_rdp": 1.0,
    "run_epsilon_pld": 0.9, "budget": 8.0, "rounds": 3, "sites": 3, "run": "a1", "plan": "ab" * 32,
    "ledger": {"key": "ab" * 32, "rows": 12, "digest": "cd" * 32}, "sites_per_patient": 1,
}  # fmt: skip
WRONG: list[dict[str, Any]] = [
    {"unit": "patient\r##contig=<ID=forged>"}, {"unit": 1}, {"unit": "family"}, {"epsilon": "2"},
    {"epsilon": True}, {"epsilon": float("nan")}, {"epsilon": float("inf")}, {"epsilon": -1.0},
    {"delta": None}, {"mechanism": 'x"\r##INFO=<ID=Y>'}, {"mechanism": ["a"]}, {"mechanism": "a" * 1000},
    {"adjacency": "\x1b[2J"}, {"scope": "everything"}, {"accountant": "mine"}, {"rounds": 1.5},
    {"rounds": 10**40}, {"sites": "3"}, {"run": "../x y"}, {"plan": "zz"}, {"ledger": {"key": "ab"}},
    {"ledger": {"key": "ab", "rows": "1", "digest": "cd"}}, {"data": "secret"}, {"note": "hello"},
    {"sites_per_patient": {"a": 1}},
]  # fmt: skip


def saved(path: Path, privacy: dict[str, Any]) -> Path:
    Model("logistic", FEATURES, initial_parameters("logistic", len(FEATURES)), privacy).save(path)
    return path


def test_what_a_run_states_is_read(tmp_path: Path) -> None:
    assert load(saved(tmp_path / "model.safetensors", GOOD)).privacy == GOOD


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_a_model_that_states_anything_else_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="privacy is no statement") as caught:
        load(saved(tmp_path / "model.safetensors", GOOD | change))
    assert not {"\r", "\x1b"} & set(str(caught.value))


def test_a_statement_without_end_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "model.safetensors"
    for said in ("[" * 200_000, json.dumps({"privacy": "x" * 2**21})):
        save_file(initial_parameters("logistic", len(FEATURES)), path, metadata={"cordon": said})
        with pytest.raises(UserError, match="not a model written by Cordon"):
            load(path)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) |
                    st.dictionaries(st.text() | st.sampled_from(sorted(GOOD)), x)))  # fmt: skip
def test_whatever_is_said_is_a_statement_or_refused(said: Any) -> None:
    with contextlib.suppress(ValueError):
        assert set(stated(said)) <= {*GOOD, "data"}
