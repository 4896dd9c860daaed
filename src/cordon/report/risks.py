"""What may be learnt of one unit at most: from the run, and from all that the aggregator's ledger holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cordon.errors import UserError
from cordon.privacy.accountants import epsilon_rdp
from cordon.privacy.events import Event
from cordon.privacy.guarantee import LIFETIME, RUN, Guarantee
from cordon.privacy.tradeoff import Risk, Tradeoff, risk, tradeoff
from cordon.report.sources import Sources


@dataclass(frozen=True)
class Scope:
    """What a statement is about, what it comes to and means, and the trade-off curve behind it."""

    name: str
    risk: Risk
    guarantee: Guarantee
    curve: Tradeoff


def scopes(sources: Sources) -> list[Scope]:
    """The run as it was planned and, where the ledger charges a site more, all runs of the one charged most.

    A site whose updates are in quarantine is told apart in the decisions. Empty where nothing was trained.
    """
    plan = sources.plan or (sources.certificate or {}).get("plan", {})
    if not plan or sources.guarantee is None:
        return []
    delta = sources.guarantee.delta
    released = {RUN: _planned(plan)}
    sites = sources.federation.sites if sources.federation else ()
    refused = {site.site for site in sites if site.status == "quarantined"}
    by_site: dict[str, list[Event]] = {}
    for own in sources.ledger.events if sources.ledger else ():
        if own.site in refused:
            continue
        by_site.setdefault(own.site, []).extend([own.event] * own.rounds)
    most = max(by_site.values(), key=lambda events: epsilon_rdp(events, delta), default=[])
    if epsilon_rdp(most, delta) > epsilon_rdp(released[RUN], delta):
        released[LIFETIME] = most
    return [_scope(name, events, sources.guarantee) for name, events in released.items()]


def _planned(plan: Mapping[str, Any]) -> list[Event]:
    try:
        step = plan["noise_multiplier"], plan["sampling_rate"], plan["local_steps"], plan["mechanism"]
        one = Event(*step, plan.get("sites_per_patient", 1))
        return [one] * int(plan["rounds"])
    except KeyError as error:
        raise UserError(
            f"the plan of the run's record lacks {error}. Give the record that the run wrote."
        ) from error


def _scope(name: str, events: Sequence[Event], guarantee: Guarantee) -> Scope:
    known = risk(events, unit=guarantee.unit, delta=guarantee.delta)
    means = replace(guarantee, mechanism=known.mechanism)
    return Scope(name, known, means, tradeoff(events, guarantee.delta))
