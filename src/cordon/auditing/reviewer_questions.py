"""A privacy reviewer's questions, answered from a run's public plan; the words stand in answers.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING
from importlib.resources import files
from typing import Any

from cordon.auditing.claims import AGGREGATOR
from cordon.federation.plan import Plan
from cordon.privacy.events import LAPLACE
from cordon.privacy.grouping import MOST_DELTA, USUAL_DELTA
from cordon.privacy.guarantee import RUN, Guarantee, three_digits
from cordon.privacy.several_sites import told
from cordon.privacy.tradeoff import percent

SIZES_IN_WORDS = {"2": "two", "3": "three"}
OTHER_NAMES = "other names of the site are not counted"


def answers(
    plan: Plan, guarantee: Mapping[str, Any], sites: Sequence[Mapping[str, Any]],
    risks: Sequence[Mapping[str, Any]],
) -> list[dict[str, str]]:  # fmt: skip
    """One answer to each question.

    ``guarantee`` is the certificate's, ``sites`` hold the public ``site`` and ``declared_patients``, and
    ``risks`` what `cordon.auditing.claims.risks` says of the run and, where there are others, of all runs.
    """
    by_row = plan.unit == "variant"
    largest = max((plan.declared_units(int(site["declared_patients"] or 0)) for site in sites), default=0)
    words = {
        "statement": stated(guarantee), "counted": counted(guarantee),
        "strength": " ".join(strength(risk) for risk in risks),
        "groups": " ".join(groups(risk) for risk in risks),
        "accountant": plan.accountant.upper(), "run": plan.stated(), "budget": f"{plan.budget:g}",
        "unit": plan.unit, "adjacency": plan.adjacency,
        "rows": "one row" if by_row else f"at most {plan.max_variants_per_patient} rows of a patient",
        "limit": "A unit is one row of the variant table: what neighbouring rows' features show of it is not "
        "covered." if by_row else "Relatives are other patients to it; what they share is not covered.",
        "several": told(guarantee["at_more_sites"]),
        "noise": f"{'Laplace noise on L1' if plan.mechanism == LAPLACE else 'Gaussian noise on L2'}-clipped",
        "rate": f"{plan.sampling_rate:g}", "rounds": plan.rounds, "steps": plan.local_steps,
        "multiplier": f"{plan.noise_multiplier:.4g}", "clipping": plan.clipping,
        "clip": f"{plan.clip_norm:g}", "model": plan.model, "optimiser": plan.optimiser,
        "learning": f"{plan.learning_rate:g}",
        "start": f"the public model {plan.start[:12]}" if plan.start else "the architecture's own start",
        "runs": other_runs(guarantee, risks),
        "delta": f"{plan.delta:g}",
        "declared": f"The site that declares most declares {largest} units, so that at worst "
        f"{plan.delta * largest:.2g} of them are expected to be exposed by it."
        if largest else "What sites declared is not in this record.",
        "usual": f"{USUAL_DELTA:g}", "refused": f"{MOST_DELTA:g}",
        "sites": "; ".join(f"{site['site']}, {site['declared_patients']} patients" for site in sites),
    }  # fmt: skip
    return [
        {"question": item["question"], "answer": item["answer"].format(**words)}
        for item in _texts()["question"]
    ]


def stated(guarantee: Mapping[str, Any]) -> str:
    """What the model itself states, with everything that must stand beside it."""
    return Guarantee.of(guarantee).statement(guarantee["epsilon"])


def counted(guarantee: Mapping[str, Any]) -> str:
    """What the figures over all runs are composed of."""
    if guarantee["ledger"] == AGGREGATOR:
        return "Composed is all that the aggregator's ledger charges one site's key, whoever took part."
    held = (
        f"the {guarantee['ledgers']} site ledgers of this folder, whatever names the sites had"
        if guarantee["ledgers"] > 1
        else f"this site's ledger, under this name; {OTHER_NAMES}"
    )
    return (
        "Composed are all rounds and calibrations, whoever took part, so that no patient spent more by them, "
        f"and most may have spent less: those of {held}."
    )


def other_runs(guarantee: Mapping[str, Any], risks: Sequence[Mapping[str, Any]]) -> str:
    """Whether more than this run is counted."""
    if any(risk["scope"] != RUN for risk in risks):
        return (
            "More than this run is counted, and above stands what all comes to for whoever took part in it."
        )
    if guarantee["ledger"] == AGGREGATOR:
        return "The ledger charges no site behind this model for another run."
    return f"This ledger, under this name, holds no other run and no calibration; {OTHER_NAMES}."


def strength(risk: Mapping[str, Any]) -> str:
    """What may be learnt of one unit at most, in words; ``risk`` is a `Risk` and its scope."""
    about = f"In {risk['scope']}, {_stated(risk)}: "
    if risk["mu"] is None:
        return f"{about}no useful bound on what an attacker may decide."
    return (
        f"{about}whoever guesses at even odds whether a given {risk['unit']} took part is right at most "
        f"{percent(risk['guess'])} of the time, and who accuses {percent(risk['fpr'])} of those who did not "
        f"finds at most {percent(risk['tpr'])} of those who did. The whole trade-off curve lies, apart from "
        f"delta, within that of Gaussian differential privacy with "
        f"mu {three_digits(risk['mu'], ROUND_CEILING)}."
    )


def groups(risk: Mapping[str, Any]) -> str:
    """What several units come to together, such as relatives who are alike."""
    stated = [
        Guarantee(
            f"group of {SIZES_IN_WORDS[size]} {risk['unit']}s", risk["delta"], risk["mechanism"]
        ).statement(epsilon)
        if epsilon is not None else f"no useful bound for {SIZES_IN_WORDS[size]} {risk['unit']}s"
        for size, epsilon in risk["groups"].items()
    ]  # fmt: skip
    return f"In {risk['scope']}: {'; '.join(stated)}, by PLD."


def _stated(risk: Mapping[str, Any]) -> str:
    return Guarantee(risk["unit"], risk["delta"], risk["mechanism"]).statement(risk["epsilon_rdp"])


def law() -> list[dict[str, str]]:
    """Where the terms of two laws meet the figures; no claim of compliance."""
    return list(_texts()["law"])


def _texts() -> dict[str, list[dict[str, str]]]:
    return tomllib.loads(files("cordon.auditing").joinpath("answers.toml").read_text(encoding="utf-8"))
