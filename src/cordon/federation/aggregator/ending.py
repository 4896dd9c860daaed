"""How a run ends: what its record says of each site's part, and what its model says of its privacy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cordon.federation.aggregator.charges import Charges
from cordon.federation.aggregator.judge import Decision
from cordon.federation.aggregator.record import Record, SiteRecord
from cordon.federation.messages import SiteStatus
from cordon.federation.plan import Site
from cordon.ledger.log import ChainedLog
from cordon.ledger.rows import DecisionFields, Judgement
from cordon.ledger.spending import behind, charged
from cordon.privacy.events import mechanism_of
from cordon.privacy.guarantee import LIFETIME


def ended_parts(
    record: Record, sites: Sequence[Site], ended: Mapping[str, Decision], charges: Charges
) -> list[SiteRecord]:
    """How each site's part ended; ``ended`` are the decisions that ended it before the run's end, by site."""
    last = {row["site"]: row for entry in record.rounds for row in entry["sites"]}
    found: list[SiteRecord] = []
    for site in sites:
        status, reason = _status(ended.get(site.name), last.get(site.name))
        (rdp, pld), (run_rdp, run_pld) = charges.spent(site), charges.spent_in_run(site)
        found.append(
            {
                "site": site.name, "weight": site.weight, "declared_patients": site.declared_patients,
                "status": status, "reason": reason, "epsilon_rdp": rdp, "epsilon_pld": pld,
                "run_epsilon_rdp": run_rdp, "run_epsilon_pld": run_pld, "delta": record.plan.delta,
                "mechanism": charges.mechanism(site),
            }
        )  # fmt: skip
    return found


def _status(ended: Decision | None, last: DecisionFields | None) -> tuple[SiteStatus, str]:
    """By what ``ended`` a site's part, or else by the ``last`` decision on it; and the reason."""
    if ended is not None:
        quarantined = ended.decision == Judgement.QUARANTINED
        return (SiteStatus.QUARANTINED if quarantined else SiteStatus.STOPPED), ended.reason
    if last is None:
        return SiteStatus.MISSING, "it never joined"
    if last["decision"] == Judgement.ACCEPTED:
        return SiteStatus.FINISHED, ""
    return SiteStatus.MISSING, last["reason"]


def stated(record: Record, charges: Charges, ledger: ChainedLog) -> dict[str, Any]:
    """What every copy of the model says of its privacy: over all runs, and of this one (``run_``)."""
    plan = record.plan
    lifetime, in_run = charges.of_model()
    keys = behind(ledger, plan.run)
    mechanism = mechanism_of(
        event for row, events in charged(ledger) if row["identity"] in keys for event in events
    )
    pld = plan.accountant == "pld" and lifetime[1] is not None
    rows = [row for entry in record.rounds for row in entry["sites"]]
    taken = {row["site"] for row in rows if row["decision"] == Judgement.ACCEPTED}
    return {
        "unit": plan.unit, "epsilon": lifetime[pld], "scope": LIFETIME, "delta": plan.delta,
        "mechanism": mechanism, "run_mechanism": plan.mechanism,
        "adjacency": plan.adjacency, "accountant": plan.accountant.upper(),
        "epsilon_rdp": lifetime[0], "epsilon_pld": lifetime[1],
        "run_epsilon_rdp": in_run[0], "run_epsilon_pld": in_run[1], "budget": plan.budget,
        "rounds": len(record.rounds), "sites": len(taken), "run": plan.run,
        "plan": plan.digest, "ledger": asdict(ledger.tip), "sites_per_patient": plan.sites_per_patient,
    }  # fmt: skip
