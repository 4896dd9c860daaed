"""What a ledger's rows add up to: epsilon round by round, by both accountants, and what is left.

Everything is computed anew from the recorded events; no epsilon that a row states is taken over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cordon.errors import UserError
from cordon.ledger.cohorts import everybody, histories
from cordon.ledger.hash_chain import Chain
from cordon.ledger.rows import ChargedRow, Judgement, Kind, Row
from cordon.privacy.accountants import epsilon_by, epsilons
from cordon.privacy.events import Event, mechanism_of
from cordon.privacy.guarantee import ADJACENCY, Guarantee
from cordon.privacy.several_sites import at_more_sites
from cordon.steps import Steps, Tick, silent

MOST_FURTHER_ROUNDS = 10_000
# One of an aggregator's rows, and the events that it charges the row's identity.
Charge = tuple[ChargedRow, tuple[Event, ...]]


@dataclass(frozen=True)
class RoundSpending:
    """One reservation of a site, or one decision on it.

    The epsilons compose every event of the account up to and with this one, over rounds and runs, and
    ``mechanism`` names all of theirs; ``epsilon_pld`` is None above MOST_FOR_PLD.
    """

    run: str
    round: int
    state: str
    events: tuple[Event, ...]
    mechanism: str
    epsilon_rdp: float
    epsilon_pld: float | None


@dataclass(frozen=True)
class Account:
    """What ``holder`` spent: the site whose ledger this is, or one identity in the aggregator's.

    In a site's ledger that is what a patient spent who took part in all of it (`by_cohort` tells what others
    did). ``left`` is what lies between epsilon by ``accountant`` and the budget; epsilons do not add, so
    ``further_rounds`` says how many more events like the last one the budget allows, counted up to
    MOST_FURTHER_ROUNDS. Both are None where no budget is known. ``at_more_sites`` is what a person comes to
    who took part elsewhere, too (`cordon.privacy.several_sites`).
    """

    holder: str
    unit: str
    delta: float
    budget: float | None
    accountant: str
    rounds: tuple[RoundSpending, ...]
    left: float | None
    further_rounds: int | None
    at_more_sites: tuple[Mapping[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``: unit, delta, mechanism and adjacency are in the same object as each epsilon."""
        about = {"unit": self.unit, "delta": self.delta, "adjacency": ADJACENCY}
        last = self.rounds[-1]
        return {
            "holder": self.holder, **about, "mechanism": last.mechanism, "budget": self.budget,
            "epsilon_rdp": last.epsilon_rdp, "epsilon_pld": last.epsilon_pld,
            f"left_by_{self.accountant}": self.left, "further_rounds": self.further_rounds,
            "at_more_sites": [dict(item) for item in self.at_more_sites],
            "rounds": [
                {
                    "run": item.run, "round": item.round, "state": item.state, **about,
                    "mechanism": item.mechanism, "events": [event.to_dict() for event in item.events],
                    "epsilon_rdp": item.epsilon_rdp, "epsilon_pld": item.epsilon_pld,
                }
                for item in self.rounds
            ],
        }  # fmt: skip


@dataclass(frozen=True)
class _Entry:
    holder: str
    run: str
    round: int
    state: str
    unit: str
    events: tuple[Event, ...]


def accounts(
    rows: Iterable[Row], *, epsilon: float | None = None, delta: float | None = None,
    steps: Steps = silent,
) -> list[Account]:  # fmt: skip
    """One account a holder, in the order of first appearance.

    Budget, delta and accountant are those that the ledger recorded last, unless ``epsilon`` or ``delta`` is
    given. UserError where a row is of no known ledger, or no delta is known.
    """
    rows = list(rows)
    _refuse_unknown(rows)
    epsilon, delta, accountant = _terms(rows, epsilon, delta)
    entries: dict[str, list[_Entry]] = {}
    for entry in _entries(rows):
        entries.setdefault(entry.holder, []).append(entry)
    if not entries:
        return []
    if delta is None:
        raise UserError("the ledger records no delta. Give --delta.")
    with steps("composing", sum(map(len, entries.values())), "rounds") as tick:
        return [_account(items, epsilon, delta, accountant, tick) for items in entries.values()]


def _terms(
    rows: Sequence[Row], epsilon: float | None, delta: float | None
) -> tuple[float | None, float | None, str]:
    """The budget in force, where it is known, and the accountant that it is held against."""
    for row in reversed(rows):
        if row["kind"] in (Kind.BUDGET, Kind.ASKED, Kind.DECISION):
            stated = row["epsilon"] if row["kind"] == Kind.BUDGET else row["budget"]
            return (
                float(stated) if epsilon is None else epsilon,
                float(row["delta"]) if delta is None else delta,
                str(row.get("accountant", "rdp")),
            )
    return epsilon, delta, "rdp"


@dataclass(frozen=True)
class Cohort:
    """Patients of a site who took part in the same rounds, and what that cost each of them.

    ``ledgers`` are the site ledgers of the folder that hold these rounds, and ``left`` is what the site's
    budget leaves by ``accountant``.
    """

    patients: int
    runs: tuple[str, ...]
    rounds: int
    ledgers: tuple[str, ...]
    unit: str
    mechanism: str
    delta: float
    epsilon_rdp: float
    epsilon_pld: float | None
    accountant: str
    left: float | None

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        left, accountant = values.pop("left"), values.pop("accountant")
        return values | {"adjacency": ADJACENCY, f"left_by_{accountant}": left}


def by_cohort(
    own: Chain, beside: Sequence[Chain], *, epsilon: float | None = None, delta: float | None = None
) -> list[Cohort]:  # fmt: skip
    """What the patients of a site's ledger ``own`` spent, by history, who spent most first.

    Over all ledgers of the folder; none where it names no cohort. Budget and delta as for `accounts`.
    """
    epsilon, delta, accountant = _terms(own.rows, epsilon, delta)
    if delta is None or not (patients := everybody(own)):
        return []
    found = []
    for history in histories([own, *beside], patients):
        held = history.reservations
        rdp, pld = epsilons(history.events, delta)
        left = None if epsilon is None else epsilon - epsilon_by(accountant, history.events, delta)
        found.append(
            Cohort(
                int(history.patients.sum()), tuple(dict.fromkeys(one.run for one in held)), len(held),
                tuple(sorted({one.ledger for one in held})), held[0].unit, mechanism_of(history.events),
                delta, rdp, pld, accountant, None if left is None else max(0.0, left),
            )
        )  # fmt: skip
    return sorted(found, key=lambda cohort: -cohort.epsilon_rdp)


def charged(rows: Iterable[Row]) -> Iterator[Charge]:
    """Each of an aggregator's rows that says what a round cost an identity, and the events of it.

    A decision says so. Where a site was asked and there is none, because the aggregator ended before it, the
    site may have trained and answered: it is charged what it was asked for.
    """
    rows = list(rows)
    decided = {_place(row) for row in rows if row["kind"] == Kind.DECISION}
    for row in rows:
        if row["kind"] == Kind.DECISION:
            yield row, tuple(Event(**event) for event in row["events"])
        elif row["kind"] == Kind.ASKED and _place(row) not in decided:
            yield row, (Event(**row["event"]),)


def behind(rows: Iterable[Row], run: str) -> list[str]:
    """The identities whose patients the model of ``run`` may tell of, in order.

    That is who was charged in the run, whether or not an update arrived: it may be anywhere. Of whom every
    answer was refused, nothing is in the model, and nobody vouches for what it says that it spent.
    """
    costs = [(row, events) for row, events in charged(rows) if row["run"] == run]
    return sorted({row["identity"] for row, events in costs if events and not _refused(row)})


def _refused(row: ChargedRow) -> bool:
    return row["kind"] == Kind.DECISION and row["decision"] == Judgement.QUARANTINED


def _place(row: ChargedRow) -> tuple[Any, ...]:
    return row["identity"], row["run"], row["round"]


def _refuse_unknown(rows: Sequence[Row]) -> None:
    for number, row in enumerate(rows, start=1):
        if row.get("kind") not in [*Kind]:
            raise UserError(
                f"row {number} is of kind {row.get('kind')!r}, which this version does not know. "
                "Read the ledger with the version of Cordon that wrote it."
            )


def _entries(rows: Sequence[Row]) -> Iterable[_Entry]:
    sent = {(row["run"], row["round"]) for row in rows if row["kind"] == Kind.SENT}
    # A round that was asked again at another cost has several reservations; the last one was sent. Equal ones
    # are one release, at most (`cordon.ledger.cohorts`).
    reserved = [
        (row["run"], row["round"], row["unit"], row.get("grouping", ""), Event(**row["event"]))
        for row in rows if row["kind"] == Kind.RESERVED
    ]  # fmt: skip
    last = {one[:2]: one for one in reserved}
    for one in dict.fromkeys(reserved):
        run, number, unit, _, event = one
        state: str = Kind.SENT if (run, number) in sent and last[run, number] == one else Kind.RESERVED
        yield _Entry("this site", run, number, state, unit, (event,))
    for row, events in charged(rows):
        holder = f"{row['site']} (key {row['identity'][:12]})"
        state = row["decision"] if row["kind"] == Kind.DECISION else row["kind"]
        yield _Entry(holder, row["run"], row["round"], state, row["unit"], events)


def _account(
    entries: list[_Entry], budget: float | None, delta: float, accountant: str, tick: Tick
) -> Account:
    events: list[Event] = []
    rounds = []
    for entry in entries:
        events += entry.events
        rdp, pld = epsilons(events, delta)
        about = entry.run, entry.round, entry.state, entry.events, mechanism_of(events)
        rounds.append(RoundSpending(*about, rdp, pld))
        tick()
    left = None if budget is None else max(0.0, budget - epsilon_by(accountant, events, delta))
    further = _further(events, budget, delta, accountant) if budget is not None and events else None
    first = entries[0]
    more = tuple(at_more_sites(events, Guarantee(first.unit, delta, rounds[-1].mechanism)))
    return Account(first.holder, first.unit, delta, budget, accountant, tuple(rounds), left, further, more)


def _further(events: list[Event], budget: float, delta: float, accountant: str) -> int:
    fits, beyond = 0, MOST_FURTHER_ROUNDS + 1
    while beyond - fits > 1:
        tried = (fits + beyond) // 2
        if epsilon_by(accountant, [*events, *events[-1:] * tried], delta) <= budget:
            fits = tried
        else:
            beyond = tried
    return fits
