"""A plan from what is asked and what was spent: all that the planning step decides, and its reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cordon.federation import defaults, expected
from cordon.federation.averaging import check_rule
from cordon.federation.plan import Plan, Site
from cordon.federation.remaining import Accounts, plan_within
from cordon.privacy.events import Event
from cordon.privacy.several_sites import at_more_sites
from cordon.privacy.several_sites import told as several_sites


@dataclass(frozen=True)
class Planned:
    """A plan, ``lines`` that tell it with its reasons, ``warnings``, and what ``more`` sites cost."""

    plan: Plan
    lines: tuple[str, ...]
    warnings: tuple[str, ...]
    more: list[dict[str, Any]]


def make_plan(
    sites: Sequence[Site], spent: Accounts, settings: Mapping[str, Any], *, beside: Sequence[Event] = ()
) -> Planned:
    """The plan for ``sites`` that ``spent`` so much of their budgets.

    ``settings`` are a plan's, as `plan_within` takes them; what is None in them, or missing, follows from the
    others (`defaults`). ``beside`` is what comes beside its rounds, such as a calibration. Raises as
    `plan_within` does, and UserError where the sites are too few for the aggregation.
    """
    said = {name: value for name, value in settings.items() if value is not None}
    chosen = defaults.defaults(said["unit"], start=bool(said.get("start")), rounds=said.get("rounds"))
    given = {"learning_rate": 1.0} | chosen | said
    plan, unable = plan_within(spent, beside=beside, **given)
    if "learning_rate" not in said:
        plan = defaults.with_learning_rate(plan, sites)
    check_rule(plan.aggregation, plan.malicious_sites, len(sites))
    lifetime = plan.guarantee().budget(plan.budget)
    warnings = [plan.check_delta(site.name, site.declared_patients) for site in sites]
    warnings.append(defaults.warning(plan, sites))
    warnings += [
        f"site {name}: what it was charged before leaves no room for this run in a lifetime's budget of "
        f"{lifetime}, by {plan.accountant.upper()}; it takes no part"
        for name in unable
    ]
    told = (
        f"{len(sites)} sites, {plan.rounds} rounds: noise multiplier {plan.noise_multiplier:.4g} keeps "
        f"each within {plan.stated()}, in this run, and {plan.budget:g} over all runs, by "
        f"{plan.accountant.upper()}"
    )
    more = at_more_sites(plan.events(), plan.guarantee())
    lines = (told, defaults.reasons(plan, sites), expected.told(plan, sites), several_sites(more))
    return Planned(plan, tuple(filter(None, lines)), tuple(filter(None, warnings)), more)
