"""What each identity is charged for its part in rounds, as rows of the aggregator's ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

from cordon.errors import UserError
from cordon.federation.aggregator.history import IdentityRows
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
from cordon.privacy.accountants import epsilon_pld, epsilon_rdp
from cordon.privacy.events import Event, mechanism_of


class Charges:
    """What sites are charged for a plan's rounds, beside what the ledger charged them before.

    A site that was asked may have trained and answered, whatever arrives: its release may be anywhere. So it
    is charged the round's event, whatever it declares, unless it says itself that it stopped, which only its
    own patients would pay for were it a lie; another event that it declares is charged beside it. That is an
    upper bound of what the site's own ledger holds of the run.

    UserError where the ledger holds spending for another privacy unit: the two do not compose.
    """

    def __init__(self, plan: Plan, ledger: ChainedLog) -> None:
        others = {row["unit"] for row in ledger if row["kind"] in (Kind.ASKED, Kind.DECISION)} - {plan.unit}
        if others:
            raise UserError(
                f"{ledger.path} accounts for one {' and one '.join(sorted(others))}, the plan for one "
                f"{plan.unit}. Keep a ledger (--state) for each privacy unit."
            )
        self._plan = plan
        self._ledger = ledger
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
            for site in [site for site in sites if not self.asked(site, round_number)]:
                self._ledger.append(
                    {
                        "kind": Kind.ASKED, "site": site.name, **self._on_round(site, round_number),
                        "event": self._plan.event.to_dict(), "plan": self._plan.digest,
                    }
                )  # fmt: skip
        # By PLD it takes as long as signing hundreds of decisions does: while the sites train.
        expected = {self._events(identity(site)) for site in sites}
        self._foreseen = self._composing.submit(self._compose, expected)

    def await_composed(self) -> None:
        """Wait until what was asked for is composed."""
        if self._foreseen is not None:
            self._foreseen.result()

    def spent(self, site: Site) -> tuple[float, float | None]:
        """Epsilon of all that ``site`` is charged with so far, by RDP and by PLD."""
        return self.epsilons(self._events(identity(site)))

    def spent_in_run(self, site: Site) -> tuple[float, float | None]:
        """Epsilon of what ``site`` is charged with in this run alone, by RDP and by PLD."""
        return self.epsilons(self._in_run(identity(site)))

    def mechanism(self, site: Site) -> str:
        """The mechanisms of all that ``site`` is charged with so far."""
        return mechanism_of(self._events(identity(site)))

    def of_model(self) -> tuple[tuple[float, float | None], tuple[float, float | None]]:
        """Epsilons of whom was charged the most, of those that the run's model may tell of.

        Over all runs, and in this one; each by RDP and by PLD.
        """
        keys = behind(self._ledger, self._plan.run)
        return (
            max((self.epsilons(self._events(key)) for key in keys), key=lambda both: both[0]),
            max((self.epsilons(self._in_run(key)) for key in keys), key=lambda both: both[0]),
        )

    def of_round(self, site: Site, round_number: int, reply: Reply | None, fault: str) -> list[Event]:
        """What the round costs the site: what it was asked for, once, and what else it declares.

        What it declares never takes the place of what it was asked for: a release at that cost may be
        anywhere, whatever the reply says. An honest site declares the same, which then is one release.
        """
        declared = [] if reply is None or reply.event is None else [reply.event]
        place = (self._plan.run, round_number)
        if reply is not None and (reply.status, reply.run, reply.round) == (ReplyStatus.STOPPED, *place):
            return declared
        # Without a fault there may be no answer because nothing was asked.
        silent = reply is None and not fault and not self.asked(site, round_number)
        earlier = any(row["events"] for row in self.decisions(site) if (row["run"], row["round"]) == place)
        if silent or earlier or declared == [self._plan.event]:
            return declared
        return [self._plan.event, *declared]

    def note(
        self,
        decision: DecisionFields,
        site: Site,
        round_number: int,
        events: Sequence[Event],
        reply: Reply | None,
    ) -> None:
        """Write what was decided, and of what computed the update its digest, and once in a run all of it."""
        by: TrainedByFields = {}
        if reply is not None and reply.status == ReplyStatus.TRAINED:
            said = {"run": self._plan.run, "trained_by": reply.provenance.digest}
            by["trained_by"] = reply.provenance.digest
            if not any(said.items() <= row.items() for row in self.decisions(site)):
                by["provenance"] = reply.provenance.to_dict()
        self._ledger.append(
            {
                "kind": Kind.DECISION, **self._on_round(site, round_number), **decision, **by,
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

    def decisions(self, site: Site) -> list[DecisionRow]:
        """What was decided on the site's identity."""
        return [row for row in self._history.of(identity(site)) if row["kind"] == Kind.DECISION]

    def _events(self, key: str) -> tuple[Event, ...]:
        """All that the identity ``key`` is charged with, accepted or not."""
        return tuple(event for _, events in charged(self._history.of(key)) for event in events)

    def with_round(self, site: Site, round_number: int, charge: Sequence[Event]) -> tuple[Event, ...]:
        """All that ``site`` is charged with if a round costs ``charge``, in the place of what was asked."""
        rows = [row for row in self._history.of(identity(site)) if not self._asks(row, round_number)]
        return (*(event for _, events in charged(rows) for event in events), *charge)

    def _in_run(self, key: str) -> tuple[Event, ...]:
        """What the identity ``key`` is charged with in this run."""
        rows = charged(self._history.of(key))
        return tuple(event for row, events in rows if row["run"] == self._plan.run for event in events)

    def asked(self, site: Site, round_number: int) -> bool:
        """Whether the site was sent this round of the run."""
        return any(self._asks(row, round_number) for row in self._history.of(identity(site)))

    def _asks(self, row: IdentityRow, round_number: int) -> bool:
        """Whether ``row`` says that a round of this run was asked for."""
        return row["kind"] == Kind.ASKED and (row["run"], row["round"]) == (self._plan.run, round_number)

    def accepted(self, site: Site, round_number: int) -> bool:
        """Whether an update of this round of the run was accepted from the site."""
        place = (Judgement.ACCEPTED, self._plan.run, round_number)
        return any((row["decision"], row["run"], row["round"]) == place for row in self.decisions(site))

    def _compose(self, lists: Iterable[Sequence[Event]]) -> None:
        for events in lists:
            self.epsilons(events)

    def epsilons(self, events: Sequence[Event]) -> tuple[float, float | None]:
        """Epsilon of ``events`` by RDP, and by PLD where a decision tells it."""
        most = self._plan.budget * (1.0 if self._plan.accountant == "rdp" else 2.0)
        return _composed(tuple(events), self._plan.delta, most)

    def _by_plan(self, events: Sequence[Event]) -> float:
        """Epsilon by the accountant that the plan's budget is held against."""
        if self._plan.accountant == "rdp":
            return epsilon_rdp(events, self._plan.delta)
        rdp, pld = self.epsilons(events)
        return rdp if pld is None else pld


@lru_cache(maxsize=1024)
def _composed(events: tuple[Event, ...], delta: float, most: float) -> tuple[float, float | None]:
    """Epsilon of ``events`` by RDP, and by PLD where RDP's is at most ``most``.

    Most sites of a run have the same events behind them.
    """
    rdp = epsilon_rdp(events, delta)
    return rdp, epsilon_pld(events, delta) if rdp <= most else None
