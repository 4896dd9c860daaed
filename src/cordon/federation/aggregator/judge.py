"""The aggregator's judgement on each reply, before anything is averaged.

An audit never raises on what a site sent: every fault of a site is a decision with a reason, signed
and chained in the aggregator's ledger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from cordon import foreign
from cordon.federation.aggregator.charges import Charges
from cordon.federation.aggregator.noise_checks import ceiling, most_small, small_coordinates, without_noise
from cordon.federation.aggregator.outliers import Outliers, flat
from cordon.federation.messages import Reply, ReplyStatus
from cordon.federation.plan import Plan, Site
from cordon.ledger.log import ChainedLog
from cordon.ledger.rows import DecisionFields, Judgement
from cordon.model.architectures import Parameters, check_parameters
from cordon.privacy.events import mechanism_of
from cordon.privacy.guarantee import LIFETIME

# What came of a site in a round: its reply, or the fault for which there is none (neither: silence).
Answer = tuple[Reply | None, str]


@dataclass(frozen=True)
class Decision:
    """What became of one site's part in one round.

    The epsilons compose every event that the site's identity is charged with, over rounds and runs;
    PLD is left out (None) above the budget (twice the budget where it is held against PLD), where its
    distributions can grow without bound. ``mechanism`` names those of all these events.
    ``update_norm`` is the L2 norm of the update, which is private already, ``ceiling`` the longest that the
    plan lets an honest one be, ``small`` how many of its numbers are small for noise, ``most_small`` how many
    may be (`cordon.federation.aggregator.noise_checks`), and ``digest`` the SHA-256 of its numbers.
    """

    site: str
    decision: Judgement
    reason: str
    epsilon_rdp: float
    epsilon_pld: float | None
    update_norm: float | None = None
    bytes: int = 0
    ceiling: float | None = None
    small: int = 0
    most_small: int | None = None
    digest: str = ""
    mechanism: str = ""

    def to_dict(self) -> DecisionFields:
        return {
            "site": self.site, "decision": self.decision, "reason": self.reason,
            "epsilon_rdp": self.epsilon_rdp, "epsilon_pld": self.epsilon_pld,
            "update_norm": self.update_norm, "bytes": self.bytes, "ceiling": self.ceiling,
            "small": self.small, "most_small": self.most_small, "digest": self.digest,
            "mechanism": self.mechanism,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, fields: DecisionFields) -> Decision:
        return replace(cls(**fields), decision=Judgement(fields["decision"]))


Keep = Callable[[list[Decision]], None]


class Auditor:
    """Judges replies against the plan and against what each identity has spent before.

    ``charges`` has what each was charged before, and writes down what is decided.
    """

    def __init__(self, plan: Plan, ledger: ChainedLog, *, expected: Parameters) -> None:
        self.charges = Charges(plan, ledger)
        self._plan = plan
        self._ledger = ledger
        self._expected = expected
        self._parameters = sum(array.size for array in expected.values())
        self._outliers = Outliers(plan)

    def judge(
        self, round_number: int, replies: Mapping[Site, Answer], *, keep: Keep = lambda decisions: None
    ) -> list[Decision]:
        """Decide on what came of ``round_number``, each reply by itself and then against the others.

        All decisions are written together or none: what counts as spent cannot change in between.
        ``keep`` is called before they are for good; where it raises, none is.
        """
        self.charges.await_composed()
        with self._ledger.locked():
            decisions = {site: self._alone(site, round_number, *answer) for site, answer in replies.items()}
            accepted = {site.name: site for site, d in decisions.items() if d.decision == Judgement.ACCEPTED}
            updates = {name: _update(replies[site][0]) for name, site in accepted.items()}
            for name, reason in self._outliers.faults(accepted, updates).items():
                site = accepted[name]
                decisions[site] = replace(decisions[site], decision=Judgement.QUARANTINED, reason=reason)
            charges = {
                site: self.charges.of_round(site, round_number, *answer) for site, answer in replies.items()
            }
            for site, events in charges.items():
                self.charges.note(decisions[site].to_dict(), site, round_number, events, replies[site][0])
            keep(list(decisions.values()))
        return list(decisions.values())

    def _alone(self, site: Site, round_number: int, reply: Reply | None, fault: str) -> Decision:
        charge = self.charges.of_round(site, round_number, reply, fault)
        events = self.charges.with_round(site, round_number, charge)
        rdp, pld = self.charges.epsilons(events)
        update = _update(reply)
        size = sum(array.nbytes for array in update.values())
        said = mechanism_of(events)
        epsilon = rdp if self._plan.accountant == "rdp" or pld is None else pld
        beyond = ""
        if epsilon > self._plan.budget:
            beyond = self._plan.guarantee(LIFETIME, said).statement(epsilon)
        judgement, reason = self._judgement(site, round_number, reply, beyond, fault)
        decision = Decision(site.name, judgement, reason, rdp, pld, _norm(update), size, mechanism=said)
        if judgement == Judgement.ACCEPTED:
            decision = self._measured(decision, site, update)
            if reason := self._noise_fault(decision, site):
                decision = replace(decision, decision=Judgement.QUARANTINED, reason=reason)
        return replace(decision, reason=foreign.words(decision.reason))

    def _judgement(
        self, site: Site, round_number: int, reply: Reply | None, beyond: str, fault: str
    ) -> tuple[Judgement, str]:
        """The decision and its reason; ``beyond`` states what is spent where that is beyond the budget."""
        plan, missing, quarantined = self._plan, Judgement.MISSING, Judgement.QUARANTINED
        if reply is None:
            silence = "no reply before the round's deadline"
            if not self.charges.asked(site, round_number):
                silence += ": the site was not connected when the round began, and was sent nothing"
            return (quarantined, fault) if fault else (missing, silence)
        if (reply.run, reply.round) != (plan.run, round_number):
            of = f"round {reply.round} of run {foreign.name(reply.run)}"
            return quarantined, f"a reply to {of}: stale or replayed"
        if self.charges.accepted(site, round_number):
            return quarantined, f"a second reply to round {round_number} of run {plan.run}: replayed"
        asked = self.charges.asked(site, round_number)
        if reply.status == ReplyStatus.STOPPED and not asked and not self.charges.has_room(site):
            return missing, "the site was sent nothing: what it is charged with leaves no room for a round"
        if reply.status == ReplyStatus.STOPPED:
            return missing, "the site stopped by itself: its own budget allows no further round"
        if reply.status == ReplyStatus.ANSWERED:
            return missing, "the site answered this round before, and that answer was lost on its way"
        if reply.status != ReplyStatus.TRAINED or reply.update is None or reply.event is None:
            return quarantined, f"a reply of kind '{foreign.name(reply.status)}' to a training task"
        if beyond:
            return quarantined, f"over budget: {beyond} by {plan.accountant.upper()} is above {plan.budget:g}"
        if reply.event != plan.event:
            return quarantined, "declared events that are not the plan's"
        try:
            check_parameters(reply.update, expected=self._expected)
        except ValueError as error:
            return quarantined, f"not an update of this model: {error}"
        return Judgement.ACCEPTED, ""

    def _measured(self, decision: Decision, site: Site, update: Parameters) -> Decision:
        """``decision`` with what is told from the numbers of a sound ``update``."""
        vector = flat(update)
        return replace(
            decision,
            ceiling=ceiling(self._plan, site.declared_patients, self._parameters),
            small=small_coordinates(self._plan, site.declared_patients, vector),
            most_small=most_small(self._plan, site.declared_patients, vector.size),
            digest=hashlib.sha256(vector.tobytes()).hexdigest(),
        )

    def _noise_fault(self, update: Decision, site: Site) -> str:
        """Why the update cannot be what the plan's mechanism made, or nothing."""
        assert update.update_norm is not None
        assert update.ceiling is not None
        if update.update_norm > update.ceiling:
            return (
                f"a norm of {update.update_norm:.4g}, above the {update.ceiling:.4g} that the plan's clip "
                "and noise allow: its gradients were not clipped, or it was scaled"
            )
        before = [row for row in self.charges.decisions(site) if row["decision"] == Judgement.ACCEPTED]
        if any(row["digest"] == update.digest for row in before):
            return "the same numbers as in an earlier round: replayed"
        own = [row["small"] for row in before if row["run"] == self._plan.run]
        for small, rounds in ((update.small, 1), (update.small + sum(own), 1 + len(own))):
            numbers = rounds * self._parameters
            if without_noise(self._plan, site.declared_patients, small, numbers):
                return (
                    f"less noise than declared: {small} of {numbers} numbers are smaller than the plan's "
                    "noise leaves them"
                )
        return ""


def _update(reply: Reply | None) -> Parameters:
    return reply.update if reply is not None and reply.update is not None else {}


def _norm(update: Parameters) -> float | None:
    """The L2 norm of ``update``; None where there is none, or where it is not finite."""
    norm = float(np.sqrt(sum(float(np.square(a, dtype=np.float64).sum()) for a in update.values())))
    return norm if update and np.isfinite(norm) else None
