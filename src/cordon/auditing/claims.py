"""Whether what a model says of its privacy follows from the ledger: recomputed, nothing taken over.

What is found leaves the site in its certificate, so it rests on public things alone: which rounds left, and
what each cost. Who took part in which is known at the site only, and a figure that followed from it would
tell of single patients (as in `cordon.federation.remaining`). So all rounds are composed, as of somebody who
took part in everything, and no patient spent more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cordon.auditing.checks import Check
from cordon.federation.plan import Plan
from cordon.ledger.hash_chain import Chain, hexadecimal
from cordon.ledger.rows import Kind
from cordon.ledger.site import CALIBRATION
from cordon.ledger.spending import Charge, behind, charged
from cordon.model.released import Model
from cordon.privacy.accountants import epsilon_by, epsilons
from cordon.privacy.events import MECHANISMS, Event, all_mechanisms, mechanism_of
from cordon.privacy.guarantee import LIFETIME, RUN
from cordon.privacy.several_sites import at_more_sites
from cordon.privacy.tradeoff import risk

CLAIMS = "Does the ledger bear out what the model says of its privacy?"
# A statement may be rounded, never down.
STATED_ROUNDING = 1e-9
# Whose ledger it is.
AGGREGATOR, SITE = "aggregator", "site"
Events = tuple[Event, ...]


@dataclass(frozen=True)
class HolderEvents:
    """What ``holder`` released over rounds and runs: one identity at the aggregator, or the site itself.

    ``events`` are those that the model tells of, ``of_run`` those of the run in question among them.
    ``beside`` are those that no model tells of, and no aggregator of this key knows: of calibrations, and of
    the other site ledgers in the folder.
    """

    holder: str
    events: Events
    of_run: Events
    beside: Events = ()

    @property
    def lifetime(self) -> Events:
        return self.events + self.beside

    def told(self, delta: float, about: Mapping[str, Any]) -> dict[str, Any]:
        """Epsilons of all and of the run alone (``run_``), with what stands beside each."""
        (rdp, pld), (run_rdp, run_pld) = epsilons(self.lifetime, delta), epsilons(self.of_run, delta)
        return {
            "holder": self.holder, "epsilon_rdp": rdp, "epsilon_pld": pld, "run_epsilon_rdp": run_rdp,
            "run_epsilon_pld": run_pld, **about, "mechanism": mechanism_of(self.lifetime),
            "run_mechanism": mechanism_of(self.of_run),
        }  # fmt: skip


def spent(chain: Chain, run: str, beside: Sequence[Chain] = ()) -> list[HolderEvents]:
    """What each identity behind a run's model released, from the aggregator's rows or a site's own.

    At the aggregator, identities that were charged in ``run``, whether or not an update of theirs arrived;
    all that they are charged with counts. In a site's ledger all rounds that it answered, whoever took part,
    and those of the ledgers ``beside`` it.
    """
    costs = list(charged(chain.rows))
    if costs:
        return [
            HolderEvents(
                name, _events(costs, name), _events([cost for cost in costs if cost[0]["run"] == run], name)
            )
            for name in behind(chain.rows, run)
        ]
    own, others = _answered(chain), [event for other in beside for _, event in _answered(other)]
    of_run = tuple(event for name, event in own if name == run)
    trained = tuple(event for name, event in own if not name.startswith(CALIBRATION))
    calibrated = tuple(event for name, event in own if name.startswith(CALIBRATION))
    return [HolderEvents("this site", trained, of_run, (*calibrated, *others))] if of_run else []


def _answered(chain: Chain) -> list[tuple[str, Event]]:
    """Run and event of each round that a site's ledger answered.

    Of a round that was reserved anew, the last reservation is the one that was trained.
    """
    left = {(row["run"], row["round"]) for row in chain.rows if row["kind"] == Kind.SENT}
    last = {(row["run"], row["round"]): row["event"] for row in chain.rows if row["kind"] == Kind.RESERVED}
    return [(place[0], Event(**event)) for place, event in last.items() if place in left]


def risks(holders: Sequence[HolderEvents], plan: Plan, lifetime: str = LIFETIME) -> list[dict[str, Any]]:
    """What the events of whoever spent most come to, in the run and, where there are others, in all runs.

    ``lifetime`` is what the latter is called.
    """
    scopes = {RUN: _most([holder.of_run for holder in holders], plan)}
    if any(len(holder.lifetime) > len(holder.of_run) for holder in holders):
        scopes[lifetime] = _most([holder.lifetime for holder in holders], plan)
    return [
        {"scope": scope, **risk(events, unit=plan.unit, delta=plan.delta).to_dict()}
        for scope, events in scopes.items()
    ]


def _most(found: Sequence[Events], plan: Plan) -> Events:
    return max(found, key=lambda events: epsilon_by("rdp", events, plan.delta), default=())


def _events(costs: Sequence[Charge], identity: str) -> Events:
    return tuple(event for row, events in costs if row["identity"] == identity for event in events)


def check_claims(
    model: Model, plan: Plan, chain: Chain, *, beside: Sequence[Chain] = (), model_hash: str | None = None
) -> Check:
    """Hold the model's statement against plan and ledger; ``model_hash`` is the record's, if there is one.

    A model tells what one key was charged, so it is held against the ledger of that name alone. The figures
    over all runs count the site ledgers ``beside`` it as well.
    """
    beside = [other for other in beside if _answered(other)]
    holders = spent(chain, plan.run, beside)
    faults = list(_faults(model, plan, chain, holders, model_hash))
    about = {"unit": plan.unit, "delta": plan.delta, "adjacency": plan.adjacency}
    lifetime = f"all runs in {1 + len(beside)} ledgers" if beside else LIFETIME
    in_all = _most([holder.lifetime for holder in holders], plan)
    known = _most([holder.events for holder in holders], plan)
    in_run = _most([holder.of_run for holder in holders], plan)
    figures = {
        "claimed": model.privacy.get("epsilon"), "accountant": plan.accountant.upper(), **about,
        "mechanism": model.privacy.get("mechanism"), "scope": LIFETIME,
        "ledger": SITE if any(row["kind"] == Kind.RESERVED for row in chain.rows) else AGGREGATOR,
        "ledgers": 1 + len(beside), "lifetime_scope": lifetime,
        "recomputed": [holder.told(plan.delta, about) for holder in holders],
        # Of whoever was charged the most.
        "at_more_sites": at_more_sites(in_all, plan.guarantee(mechanism=mechanism_of(in_all))),
        "risks": risks(holders, plan, lifetime) if holders else [],
    }  # fmt: skip
    decides = max((epsilon_by(plan.accountant, held.events, plan.delta) for held in holders), default=0.0)
    more = ""
    if in_all != known:
        more = f"; with what no model tells of, {plan.stated_of(in_all, lifetime)}"
    return Check.of(
        "claims", CLAIMS, faults,
        f"over all runs the ledger's events come to {plan.stated_of(known)}, in this one to "
        f"{plan.stated_of(in_run, RUN)}, and the model states no less{more}", figures,
        most=f"any epsilon below {_stated(decides, known, plan)} would have failed it, and any other word or "
        "plan; a ledger that lacks events would not",
    )  # fmt: skip


def _stated(epsilon: float, events: Events, plan: Plan) -> str:
    """``epsilon`` of ``events``, over all runs."""
    return plan.guarantee(LIFETIME, mechanism_of(events)).statement(epsilon)


def _faults(
    model: Model, plan: Plan, chain: Chain, holders: Sequence[HolderEvents], model_hash: str | None
) -> Iterator[str]:
    said = model.privacy
    if model_hash is not None and model_hash != model.hash:
        yield f"the model has hash {model.hash[:12]}, the run's record tells of {model_hash[:12]}"
    for name in ("unit", "delta", "adjacency", "run"):
        if said.get(name) != getattr(plan, name):
            yield f"the model states {name} {said.get(name)!r}, the plan has {getattr(plan, name)!r}"
    if said.get("scope") != LIFETIME:
        yield f"the model states scope {said.get('scope')!r}, and its epsilon must be of {LIFETIME!r}"
    composed = {plan.mechanism, *(event.mechanism for holder in holders for event in holder.events)}
    # An aggregator's model names those of other sites too.
    if not composed <= set(str(said.get("mechanism")).split(" and ")) <= set(MECHANISMS):
        yield (
            f"the model states mechanism {said.get('mechanism')!r}, and its epsilon composes events of "
            f"{all_mechanisms(composed)!r}"
        )
    if said.get("accountant") != plan.accountant.upper():
        yield (
            f"the model states an epsilon by {said.get('accountant')!r}, and the plan's budget is held "
            f"against {plan.accountant.upper()}"
        )
    if (counted := said.get("sites_per_patient", 1)) != plan.sites_per_patient:
        yield f"the model counts a person at {counted!r} sites, the plan at {plan.sites_per_patient}"
    asked = {row.get("plan") for row in chain.rows if row["kind"] == Kind.ASKED and row["run"] == plan.run}
    if {said.get("plan"), *asked} != {plan.digest}:
        yield "the record's plan is not the one of the run that made the model"
    claimed = said.get("epsilon")
    if not isinstance(claimed, int | float) or not claimed > 0:
        yield f"the model states {claimed!r} as its epsilon"
        claimed = float("inf")
    if not holders:
        yield f"the ledger holds nothing of run {plan.run}"
    for holder in holders:
        epsilon = epsilon_by(plan.accountant, holder.events, plan.delta)
        if claimed < epsilon * (1 - STATED_ROUNDING):
            yield (
                f"the model states {_stated(claimed, holder.events, plan)}, and the events of "
                f"{holder.holder[:12]} come to {_stated(epsilon, holder.events, plan)}, by "
                f"{plan.accountant.upper()}"
            )
        if any(event != plan.event for event in holder.of_run):
            yield f"{holder.holder[:12]} has events in the run that are not its plan's"
    own = [row for row in chain.rows if row["kind"] == Kind.RESERVED and row["run"] == plan.run]
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
    seen = [row for row in chain.rows if row["kind"] == Kind.FOLLOWED]
    followed = any(all(row[name] == tip[name] for name in ("key", "rows", "digest")) for row in seen)
    same = tip["key"] == hexadecimal(chain.key)
    if not (followed or (same and tip["rows"] <= len(chain) and chain.holds(tip["digest"]))):
        yield f"the ledger's row {tip['rows']}, which the model carries, is not in this ledger"
