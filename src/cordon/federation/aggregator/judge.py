"""The aggregator's judgement on each reply, before anything is averaged.

An audit never raises on what a site sent: every fault of a site is a decision with a reason, signed
and chained in the aggregator's ledger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from cordon import foreign
from cordon.errors import UserError
from cordon.federation.aggregator.history import IdentityRows
from cordon.federation.aggregator.noise_checks import ceiling, most_small, small_coordinates, without_noise
from cordon.federation.aggregator.outliers import Outliers, flat
from cordon.federation.messages import Reply, ReplyStatus
from cordon.federation.plan import Plan, Site, identity
from cordon.ledger.log import ChainedLog
from cordon.ledger.rows import (
    DecisionFields,
    DecisionRow,
    IdentityRow,
    Judgement,
    Kind,
    OnRound,
    TrainedByFields,
)
from cordon.ledger.spending import behind, charged
from cordon.model.architectures import Parameters, check_parameters
from cordon.privacy.accountants import epsilon_pld, epsilon_rdp
from cordon.privacy.events import Event, mechanism_of
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

    A site that was asked may have trained and answered, whatever arrives: its release may be anywhere. So it
    is charged the round's event, whatever it declares, unless it says itself that it stopped, which only its
    own patients would pay for were it a lie; another event that it declares is charged beside it. That is an
    upper bound of what the site's own ledger holds of the run.

    UserError where the ledger holds spending for another privacy unit: the two do not compose.
    """

    def __init__(self, plan: Plan, ledger: ChainedLog, *, expected: Parameters) -> None:
        others = {row["unit"] for row in ledger if row["kind"] in (Kind.ASKED, Kind.DECISION)} - {plan.unit}
        if others:
            raise UserError(
                f"{ledger.path} accounts for one {' and one '.join(sorted(others))}, the plan for one "
                f"{plan.unit}. Keep a ledger (--state) for each privacy unit."
            )
        self._plan = plan
        self._ledger = ledger
        self._expected = expected
        self._parameters = sum(array.size for array in expected.values())
        self._outliers = Outliers(plan)
        self._history = IdentityRows(ledger)
        self._composing = ThreadPoolExecutor(1, "composing")
        self._foreseen: Future[None] | None = None

    def has_room(self, site: Site) -> bool:
        """Whether ``site`` may be charged one more round: who may not is asked for nothing."""
        return self._by_plan([*self._events(identity(site)), self._plan.event]) <= self._plan.budget

    def ask(self, round_number: int, sites: Sequence[Site]) -> None:
        """Record that ``sites`` are sent the round's task; call it before the first message leaves.

        Should the aggregator end before it judges the round, this is what they are charged. A round that is
        asked again after that is the same reservation at the site, and one row here.
        """
        with self._ledger.locked():
            for site in [site for site in sites if not self._asked(site, round_number)]:
                self._ledger.append(
                    {
                        "kind": Kind.ASKED, "site": site.name, **self._on_round(site, round_number),
                        "event": self._plan.event.to_dict(), "plan": self._plan.digest,
                    }
                )  # fmt: skip
        # By PLD it takes as long as signing hundreds of decisions does: while the sites train.
        expected = {self._events(identity(site)) for site in sites}
        self._foreseen = self._composing.submit(self._compose, expected)

    def spent(self, site: Site) -> tuple[float, float | None]:
        """Epsilon of all that ``site`` is charged with so far, by RDP and by PLD."""
        return self._epsilons(self._events(identity(site)))

    def spent_in_run(self, site: Site) -> tuple[float, float | None]:
        """Epsilon of what ``site`` is charged with in this run alone, by RDP and by PLD."""
        return self._epsilons(self._in_run(identity(site)))

    def mechanism(self, site: Site) -> str:
        """The mechanisms of all that ``site`` is charged with so far."""
        return mechanism_of(self._events(identity(site)))

    def of_model(self) -> tuple[tuple[float, float | None], tuple[float, float | None]]:
        """Epsilons of whom was charged the most, of those that the run's model may tell of.

        Over all runs, and in this one; each by RDP and by PLD.
        """
        keys = behind(self._ledger, self._plan.run)
        return (
            max((self._epsilons(self._events(key)) for key in keys), key=lambda both: both[0]),
            max((self._epsilons(self._in_run(key)) for key in keys), key=lambda both: both[0]),
        )

    def judge(
        self, round_number: int, replies: Mapping[Site, Answer], *, keep: Keep = lambda decisions: None
    ) -> list[Decision]:
        """Decide on what came of ``round_number``, each reply by itself and then against the others.

        All decisions are written together or none: what counts as spent cannot change in between.
        ``keep`` is called before they are for good; where it raises, none is.
        """
        if self._foreseen is not None:
            self._foreseen.result()
        with self._ledger.locked():
            decisions = {site: self._alone(site, round_number, *answer) for site, answer in replies.items()}
            accepted = {site.name: site for site, d in decisions.items() if d.decision == Judgement.ACCEPTED}
            updates = {name: _update(replies[site][0]) for name, site in accepted.items()}
            for name, reason in self._outliers.faults(accepted, updates).items():
                site = accepted[name]
                decisions[site] = replace(decisions[site], decision=Judgement.QUARANTINED, reason=reason)
            charges = {site: self._charge(site, round_number, *answer) for site, answer in replies.items()}
            for site, events in charges.items():
                self._note(site, round_number, decisions[site], events, replies[site][0])
            keep(list(decisions.values()))
        return list(decisions.values())

    def _alone(self, site: Site, round_number: int, reply: Reply | None, fault: str) -> Decision:
        charge = self._charge(site, round_number, reply, fault)
        events = self._events_with(identity(site), round_number, charge)
        rdp, pld = self._epsilons(events)
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

    def _charge(self, site: Site, round_number: int, reply: Reply | None, fault: str) -> list[Event]:
        """What the round costs the site: what it was asked for, once, and what else it declares.

        What it declares never takes the place of what it was asked for: a release at that cost may be
        anywhere, whatever the reply says. An honest site declares the same, which then is one release.
        """
        declared = [] if reply is None or reply.event is None else [reply.event]
        place = (self._plan.run, round_number)
        if reply is not None and (reply.status, reply.run, reply.round) == (ReplyStatus.STOPPED, *place):
            return declared
        # Without a fault there may be no answer because nothing was asked.
        silent = reply is None and not fault and not self._asked(site, round_number)
        earlier = any(row["events"] for row in self._decisions(site) if (row["run"], row["round"]) == place)
        if silent or earlier or declared == [self._plan.event]:
            return declared
        return [self._plan.event, *declared]

    def _note(
        self, site: Site, round_number: int, decision: Decision, events: Sequence[Event], reply: Reply | None
    ) -> None:
        """Write what was decided, and of what computed the update its digest, and once in a run all of it."""
        by: TrainedByFields = {}
        if reply is not None and reply.status == ReplyStatus.TRAINED:
            said = {"run": self._plan.run, "trained_by": reply.provenance.digest}
            by["trained_by"] = reply.provenance.digest
            if not any(said.items() <= row.items() for row in self._decisions(site)):
                by["provenance"] = reply.provenance.to_dict()
        self._ledger.append(
            {
                "kind": Kind.DECISION, **self._on_round(site, round_number), **decision.to_dict(), **by,
                "events": [event.to_dict() for event in events],
            }
        )  # fmt: skip

    def _on_round(self, site: Site, round_number: int) -> OnRound:
        return {
            "run": self._plan.run,
            "round": round_number,
            "identity": identity(site),
            "budget": self._plan.budget,
            "delta": self._plan.delta,
            "accountant": self._plan.accountant,
            "unit": self._plan.unit,
        }

    def _judgement(
        self, site: Site, round_number: int, reply: Reply | None, beyond: str, fault: str
    ) -> tuple[Judgement, str]:
        """The decision and its reason; ``beyond`` states what is spent where that is beyond the budget."""
        plan = self._plan
        if reply is None:
            silence = "no reply before the round's deadline"
            if not self._asked(site, round_number):
                silence += ": the site was not connected when the round began, and was sent nothing"
            return (Judgement.QUARANTINED, fault) if fault else (Judgement.MISSING, silence)
        if (reply.run, reply.round) != (plan.run, round_number):
            of = f"round {reply.round} of run {foreign.name(reply.run)}"
            return Judgement.QUARANTINED, f"a reply to {of}: stale or replayed"
        if self._accepted(site, round_number):
            return (
                Judgement.QUARANTINED,
                f"a second reply to round {round_number} of run {plan.run}: replayed",
            )
        if (
            reply.status == ReplyStatus.STOPPED
            and not self._asked(site, round_number)
            and not self.has_room(site)
        ):
            return (
                Judgement.MISSING,
                "the site was sent nothing: what it is charged with leaves no room for a round",
            )
        if reply.status == ReplyStatus.STOPPED:
            return Judgement.MISSING, "the site stopped by itself: its own budget allows no further round"
        if reply.status == ReplyStatus.ANSWERED:
            return (
                Judgement.MISSING,
                "the site answered this round before, and that answer was lost on its way",
            )
        if reply.status != ReplyStatus.TRAINED or reply.update is None or reply.event is None:
            return Judgement.QUARANTINED, f"a reply of kind {reply.status.value!r} to a training task"
        if beyond:
            return (
                Judgement.QUARANTINED,
                f"over budget: {beyond} by {plan.accountant.upper()} is above {plan.budget:g}",
            )
        if reply.event != plan.event:
            return Judgement.QUARANTINED, "declared events that are not the plan's"
        try:
            check_parameters(reply.update, expected=self._expected)
        except ValueError as error:
            return Judgement.QUARANTINED, f"not an update of this model: {error}"
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
        before = [row for row in self._decisions(site) if row["decision"] == Judgement.ACCEPTED]
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

    def _decisions(self, site: Site) -> list[DecisionRow]:
        """What was decided on the site's identity."""
        return [row for row in self._history.of(identity(site)) if row["kind"] == Kind.DECISION]

    def _events(self, key: str) -> tuple[Event, ...]:
        """All that the identity ``key`` is charged with, accepted or not."""
        return tuple(event for _, events in charged(self._history.of(key)) for event in events)

    def _events_with(self, key: str, round_number: int, charge: Sequence[Event]) -> tuple[Event, ...]:
        """`_events` where a decision charges ``charge`` for a round, in the place of what was asked."""
        rows = [row for row in self._history.of(key) if not self._asks(row, round_number)]
        return (*(event for _, events in charged(rows) for event in events), *charge)

    def _in_run(self, key: str) -> tuple[Event, ...]:
        """What the identity ``key`` is charged with in this run."""
        rows = charged(self._history.of(key))
        return tuple(event for row, events in rows if row["run"] == self._plan.run for event in events)

    def _asked(self, site: Site, round_number: int) -> bool:
        return any(self._asks(row, round_number) for row in self._history.of(identity(site)))

    def _asks(self, row: IdentityRow, round_number: int) -> bool:
        """Whether ``row`` says that a round of this run was asked for."""
        return row["kind"] == Kind.ASKED and (row["run"], row["round"]) == (self._plan.run, round_number)

    def _accepted(self, site: Site, round_number: int) -> bool:
        place = (Judgement.ACCEPTED, self._plan.run, round_number)
        return any((row["decision"], row["run"], row["round"]) == place for row in self._decisions(site))

    def _compose(self, lists: Iterable[Sequence[Event]]) -> None:
        for events in lists:
            self._epsilons(events)

    def _epsilons(self, events: Sequence[Event]) -> tuple[float, float | None]:
        most = self._plan.budget * (1.0 if self._plan.accountant == "rdp" else 2.0)
        return _composed(tuple(events), self._plan.delta, most)

    def _by_plan(self, events: Sequence[Event]) -> float:
        """Epsilon by the accountant that the plan's budget is held against."""
        if self._plan.accountant == "rdp":
            return epsilon_rdp(events, self._plan.delta)
        rdp, pld = self._epsilons(events)
        return rdp if pld is None else pld


@lru_cache(maxsize=1024)
def _composed(events: tuple[Event, ...], delta: float, most: float) -> tuple[float, float | None]:
    """Epsilon of ``events`` by RDP, and by PLD where RDP's is at most ``most``.

    Most sites of a run have the same events behind them.
    """
    rdp = epsilon_rdp(events, delta)
    return rdp, epsilon_pld(events, delta) if rdp <= most else None


def _update(reply: Reply | None) -> Parameters:
    return reply.update if reply is not None and reply.update is not None else {}


def _norm(update: Parameters) -> float | None:
    """The L2 norm of ``update``; None where there is none, or where it is not finite."""
    norm = float(np.sqrt(sum(float(np.square(a, dtype=np.float64).sum()) for a in update.values())))
    return norm if update and np.isfinite(norm) else None
