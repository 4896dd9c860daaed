"""What happened in a run, for people and for the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypedDict

from cordon.federation.messages import SiteStatus
from cordon.federation.plan import Plan
from cordon.ledger.rows import DecisionFields
from cordon.ledger.site import SiteLedger
from cordon.privacy.accountants import epsilons
from cordon.privacy.events import mechanism_of
from cordon.privacy.guarantee import Guarantee
from cordon.privacy.several_sites import at_more_sites


class RoundRecord(TypedDict):
    """What happened in a round: what was decided on each site, and how long it took."""

    round: int
    seconds: float
    sites: list[DecisionFields]


class SiteRecord(TypedDict):
    """How a site's part ended, and what its key was charged over all runs and in this one (``run_``)."""

    site: str
    weight: float
    declared_patients: int
    status: SiteStatus
    reason: str
    epsilon_rdp: float
    epsilon_pld: float | None
    run_epsilon_rdp: float
    run_epsilon_pld: float | None
    delta: float
    mechanism: str


@dataclass
class Record:
    """What happened in a run: the content of federation.json."""

    plan: Plan
    seconds: float = 0.0
    rounds: list[RoundRecord] = field(default_factory=list)
    sites: list[SiteRecord] = field(default_factory=list)
    model_hash: str = ""
    start: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "run": self.plan.run,
            "plan": self.plan.to_dict(),
            "model_hash": self.model_hash,
            "start": self.start,
            "seconds": round(self.seconds, 2),
            "rounds": self.rounds,
            "sites": self.sites,
        }


def spent_by(name: str, ledger: SiteLedger, plan: Plan) -> dict[str, Any]:
    """What whoever of a site's patients spent most spent, over all runs and in the plan's.

    For SITE.spent.json. It is held against the budget, and so at the ledger's delta, which may be another
    than the plan's.
    """
    lifetime, in_run, delta = ledger.most_spent(), ledger.most_spent(plan.run), ledger.delta
    (rdp, pld), (run_rdp, run_pld) = epsilons(lifetime, delta), epsilons(in_run, delta)
    mechanism = mechanism_of(lifetime)
    return {
        "site": name, "epsilon_rdp": rdp, "epsilon_pld": pld, "run_epsilon_rdp": run_rdp,
        "run_epsilon_pld": run_pld, "accountant": plan.accountant.upper(), "budget": ledger.epsilon,
        "unit": plan.unit, "delta": delta, "mechanism": mechanism, "run_mechanism": plan.mechanism,
        "adjacency": plan.adjacency,
        "at_more_sites": at_more_sites(lifetime, Guarantee(plan.unit, delta, mechanism)),
    }  # fmt: skip
