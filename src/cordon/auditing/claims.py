"""Whether what a model says of its privacy follows from the ledger: recomputed, nothing taken over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cordon.accountants import MOST_FOR_PLD, Event, epsilon_pld, epsilon_rdp
from cordon.auditing.checks import Check
from cordon.chain import Chain, hexadecimal
from cordon.federation.plan import Plan
from cordon.model import Model
from cordon.several_sites import at_more_sites
from cordon.site_ledger import CALIBRATION, FOLLOWED, RESERVED, SENT
from cordon.spending import ASKED, Charge, behind, charged
from cordon.tradeoff import LIFETIME, RUN, risk

QUESTION = "Does the ledger bear out what the model says of its privacy?"
# A statement may be rounded, never down.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Spent:
    """All that one identity released, over rounds and runs: its events, and those of the run in question.

    ``beside`` are those of calibrations, which no model tells of and no aggregator knows.
    """

    holder: str
    events: tuple[Event, ...]
    of_run: tuple[Event, ...]
    beside: tuple[Event, ...] = ()

    def epsilons(self, delta: float) -> tuple[float, float | None]:
        """Epsilon by RDP, and by PLD where RDP's promises anything."""
        rdp = epsilon_rdp(self.events, delta)
        return rdp, epsilon_pld(self.events, delta) if rdp <= MOST_FOR_PLD else None


def spent(rows: Sequence[Mapping[str, Any]], run: str) -> list[Spent]:
    """What each identity behind a run's model released, from the aggregator's rows or a site's own.

    At the aggregator, identities that were charged in ``run``, whether or not an update of theirs arrived;
    all that they are charged with counts. In a site's ledger, the rounds that it answered: what a calibration
    cost is in the site's own VCFs, and in no model.
    """
    costs = list(charged(rows))
    if costs:
        return [
            Spent(
                name, _events(costs, name), _events([cost for cost in costs if cost[0]["run"] == run], name)
            )
            for name in behind(rows, run)
        ]
    left = {(row["run"], row["round"]) for row in rows if row["kind"] == SENT}
    own = [row for row in rows if row["kind"] == RESERVED and (row["run"], row["round"]) in left]
    everything = [(row["run"], Event(**row["event"])) for row in own]
    events = tuple(event for name, event in everything if not name.startswith(CALIBRATION))
    if not events:
        return []
    of_run = tuple(event for name, event in everything if name == run)
    beside = tuple(event for name, event in everything if name.startswith(CALIBRATION))
    return [Spent("this site", events, of_run, beside)]


def risks(holders: Sequence[Spent], plan: Plan) -> list[dict[str, Any]]:
    """What the events of whoever spent most come to, in the run and, where that is more, in all runs."""

    def most(events: Sequence[tuple[Event, ...]]) -> tuple[Event, ...]:
        return max(events, key=lambda own: epsilon_rdp(own, plan.delta))

    scopes = {RUN: most([holder.of_run for holder in holders])}
    lifetime = most([holder.events + holder.beside for holder in holders])
    if epsilon_rdp(lifetime, plan.delta) > epsilon_rdp(scopes[RUN], plan.delta):
        scopes[LIFETIME] = lifetime
    return [
        {"scope": scope, **risk(events, unit=plan.unit, delta=plan.delta).to_dict()}
        for scope, events in scopes.items()
    ]


def _events(costs: Sequence[Charge], identity: str) -> tuple[Event, ...]:
    return tuple(event for row, events in costs if row["identity"] == identity for event in events)


def check_claims(model: Model, plan: Plan, chain: Chain, *, model_hash: str | None = None) -> Check:
    """Hold the model's statement against plan and ledger; ``model_hash`` is the record's, if there is one."""
    holders = spent(chain.rows, plan.run)
    faults = list(_faults(model, plan, chain, holders, model_hash))

    def costs(events: Sequence[Event]) -> float:
        return epsilon_rdp(events, plan.delta)

    by_holder = {holder.holder: holder.epsilons(plan.delta) for holder in holders}
    about = {
        "unit": plan.unit, "delta": plan.delta, "mechanism": plan.mechanism, "adjacency": plan.adjacency,
    }  # fmt: skip
    figures = {
        "claimed": model.privacy.get("epsilon"), **about,
        "recomputed": [
            {"holder": name, "epsilon_rdp": rdp, "epsilon_pld": pld, **about}
            for name, (rdp, pld) in by_holder.items()
        ],
        # Of the identity that was charged the most.
        "at_more_sites": at_more_sites(
            max((h.events for h in holders), key=costs, default=()),
            unit=plan.unit, delta=plan.delta, mechanism=plan.mechanism,
        ),
        "risks": risks(holders, plan) if holders else [],
    }  # fmt: skip
    most = max((rdp for rdp, _ in by_holder.values()), default=0.0)
    return Check.of(
        "claims", QUESTION, faults,
        f"the ledger's events come to {plan.statement(most)}, and the model states no less", figures,
        most=f"any epsilon below {plan.statement(most)} would have failed it, and any other word or plan; a "
        "ledger that lacks events would not",
    )  # fmt: skip


def _faults(
    model: Model, plan: Plan, chain: Chain, holders: Sequence[Spent], model_hash: str | None
) -> Iterator[str]:
    said = model.privacy
    if model_hash is not None and model_hash != model.hash:
        yield f"the model has hash {model.hash[:12]}, the run's record tells of {model_hash[:12]}"
    for name in ("unit", "delta", "mechanism", "adjacency", "run"):
        if said.get(name) != getattr(plan, name):
            yield f"the model states {name} {said.get(name)!r}, the plan has {getattr(plan, name)!r}"
    if (counted := said.get("sites_per_patient", 1)) != plan.sites_per_patient:
        yield f"the model counts a person at {counted!r} sites, the plan at {plan.sites_per_patient}"
    asked = {row.get("plan") for row in chain.rows if row["kind"] == ASKED and row["run"] == plan.run}
    if {said.get("plan"), *asked} != {plan.digest}:
        yield "the record's plan is not the one of the run that made the model"
    claimed = said.get("epsilon")
    if not isinstance(claimed, int | float) or not claimed > 0:
        yield f"the model states {claimed!r} as its epsilon"
        claimed = float("inf")
    if not holders:
        yield f"the ledger holds nothing of run {plan.run}"
    for holder in holders:
        rdp = epsilon_rdp(holder.events, plan.delta)
        if claimed < rdp * (1 - ROUNDING):
            yield (
                f"the model states {plan.statement(claimed)}, and the events of {holder.holder[:12]} come to "
                f"{plan.statement(rdp)}"
            )
        if any(event != plan.event for event in holder.of_run):
            yield f"{holder.holder[:12]} has events in the run that are not its plan's"
    own = [row for row in chain.rows if row["kind"] == RESERVED and row["run"] == plan.run]
    planned = plan.grouping(1)
    said_of = {(int(row.get("declared_units", 0)), row.get("grouping")) for row in own}
    if any(grouping != replace(planned, declared=declared).digest for declared, grouping in said_of):
        yield "the site trained on units that were grouped otherwise than the plan says"
    yield from _tip_faults(said.get("ledger"), chain)


def _tip_faults(tip: Any, chain: Chain) -> Iterator[str]:
    """The ledger's tip that the model carries must stand in the ledger, or have been seen by the site."""
    if not isinstance(tip, Mapping) or not {"key", "rows", "digest"} <= set(tip):
        yield "the model carries no tip of the aggregator's ledger"
        return
    seen = [row for row in chain.rows if row["kind"] == FOLLOWED]
    followed = any(all(row[name] == tip[name] for name in ("key", "rows", "digest")) for row in seen)
    same = tip["key"] == hexadecimal(chain.key)
    if not (followed or (same and tip["rows"] <= len(chain) and chain.holds(tip["digest"]))):
        yield f"the ledger's row {tip['rows']}, which the model carries, is not in this ledger"
