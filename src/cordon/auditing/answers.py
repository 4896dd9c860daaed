"""A privacy reviewer's questions, answered from a run's public plan; the words stand in answers.toml."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from cordon.accountants import LAPLACE
from cordon.federation.plan import Plan
from cordon.several_sites import told


def answers(
    plan: Plan, epsilon: float, sites: Sequence[Mapping[str, Any]],
    at_more_sites: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, str]]:  # fmt: skip
    """One answer to each question; ``sites`` hold the public ``site`` and ``declared_patients``.

    ``at_more_sites`` is what `cordon.several_sites` found of the site that was charged the most.
    """
    by_row = plan.unit == "variant"
    words = {
        "statement": plan.statement(epsilon), "strength": strength(epsilon),
        "unit": plan.unit, "adjacency": plan.adjacency,
        "rows": "one row" if by_row else f"at most {plan.max_variants_per_patient} rows of a patient",
        "limit": "A unit is one row of the variant table: what neighbouring rows' features show of it is not "
        "covered." if by_row else "Relatives are other patients to it; what they share is not covered.",
        "several": told(at_more_sites),
        "noise": f"{'Laplace noise on L1' if plan.mechanism == LAPLACE else 'Gaussian noise on L2'}-clipped",
        "rate": f"{plan.sampling_rate:g}", "rounds": plan.rounds, "steps": plan.local_steps,
        "multiplier": f"{plan.noise_multiplier:.4g}", "clipping": plan.clipping,
        "clip": f"{plan.clip_norm:g}",
        "sites": "; ".join(f"{site['site']}, {site['declared_patients']} patients" for site in sites),
    }  # fmt: skip
    return [
        {"question": item["question"], "answer": item["answer"].format(**words)}
        for item in _texts()["question"]
    ]


def strength(epsilon: float) -> str:
    """What an epsilon bounds, in words: the best guess from even odds, e^epsilon to 1."""
    guess = 1.0 / (1.0 + math.exp(-epsilon))
    return (
        "Whoever guesses at even odds whether a given unit took part is right at most "
        f"{100 * guess:.2f} % of the time, apart from delta."
    )


def law() -> list[dict[str, str]]:
    """Where the terms of two laws meet the figures; no claim of compliance."""
    return list(_texts()["law"])


def _texts() -> dict[str, list[dict[str, str]]]:
    return tomllib.loads(files("cordon.auditing").joinpath("answers.toml").read_text(encoding="utf-8"))
