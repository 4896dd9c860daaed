"""What a site takes part on: its own terms, which bound every plan."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cordon.errors import FederationError
from cordon.federation.messages import Task
from cordon.federation.plan import Plan


@dataclass(frozen=True)
class Terms:
    """What a site says of itself and asks of a plan; None, or one site a person, where it asks nothing.

    ``name`` is the site's, and ``declared_patients`` what its owner declared. Its budget is counted in one
    kind of ``unit`` and held against one ``accountant``; a run may cost ``run_epsilon`` at most. A person is
    counted at ``sites_per_patient`` sites or more. Where the site ``agreed`` on a plan beforehand, it trains
    by no other.
    """

    name: str
    declared_patients: int
    unit: str | None = None
    accountant: str | None = None
    run_epsilon: float | None = None
    sites_per_patient: int = 1
    agreed: Plan | None = None

    def check(self, task: Task, delta: float) -> None:
        """FederationError where ``task`` asks for anything else; ``delta`` is the budget's own."""
        plan = task.plan
        if task.declared_patients != self.declared_patients:
            raise FederationError(
                f"the aggregator holds {task.declared_patients} declared patients for {self.name}, the site "
                f"declared {self.declared_patients}. Agree on one sites sheet."
            )
        if self.agreed is not None and plan != replace(self.agreed, run=plan.run):
            raise FederationError(
                "the aggregator's plan is not the one that was agreed. Agree on one plan.json."
            )
        plan.check_expiry()
        if self.unit is not None and plan.unit != self.unit:
            raise FederationError(
                f"the plan's unit of privacy is one {plan.unit}, and {self.name}'s is one {self.unit}. "
                "Agree on one (--privacy_unit). Nothing was reserved and nothing was sent."
            )
        if self.accountant is not None and plan.accountant != self.accountant:
            raise FederationError(
                f"the plan's budget is held against {plan.accountant.upper()}, and {self.name}'s against "
                f"{self.accountant.upper()}. Agree on one (--accountant). Nothing was reserved and nothing "
                "was sent."
            )
        if self.run_epsilon is not None and plan.cost(delta) > self.run_epsilon:
            raise FederationError(
                f"the plan's {plan.rounds} rounds cost {plan.stated(delta)} as a run, and "
                f"{self.name} allows a run {self.run_epsilon:g} (--run_epsilon). Agree on one. Nothing was "
                "reserved and nothing was sent."
            )
        if plan.sites_per_patient < self.sites_per_patient:
            raise FederationError(
                f"the plan counts a person at {plan.sites_per_patient} sites, and {self.name}'s may be at "
                f"{self.sites_per_patient}. Agree on one (--sites_per_patient). Nothing was reserved and "
                "nothing was sent."
            )
        if not 1 <= task.round <= plan.rounds:
            raise FederationError(
                f"the aggregator asks for round {task.round} of a plan of {plan.rounds} rounds. Nothing was "
                "sent. Ask its operator for a new run."
            )
        if plan.delta > delta:
            raise FederationError(
                f"the plan's delta {plan.delta:g} is above the site's {delta:g}. Agree on one."
            )
