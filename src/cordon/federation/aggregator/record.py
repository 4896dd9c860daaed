"""What happened in a run, for people and for the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cordon.federation.plan import Plan
from cordon.ledger.site import SiteLedger
from cordon.privacy.accountants import epsilons
from cordon.privacy.events import mechanism_of
from cordon.privacy.guarantee import Guarantee
from cordon.privacy.several_sites import at_more_sites


@dataclass
class Record:
    """What happened in a run: the content of federation.json."""

    plan: Plan
    seconds: float = 0.0
    rounds: list[dict[str, Any]] = field(default_factory=list)
    sites: list[dict[str, Any]] = field(default_factory=list)
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
