"""What a site has spent, on disk before it is spent.

Formal guarantee: all that a site released of one patient, over rounds, runs and calibrations, under any name
of the site whose ledgers stand in one folder, composes to no more than the ledger's (epsilon, delta). A cost
is reserved, durably, before its rows are touched; whether a patient takes part depends on that patient's own
history and on public things alone; whoever has no room takes part in nothing. It rests on the folder: an
older copy of it that is put back forgets (the aggregator's ledger, which a site follows, tells).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cordon.errors import BudgetExceeded, FederationError, UserError
from cordon.ledger import database
from cordon.ledger.cohorts import (
    Beside,
    History,
    Ids,
    counted,
    everybody,
    histories,
    members,
    of_all,
    salts_named,
    written,
)
from cordon.ledger.hash_chain import Chain
from cordon.ledger.log import ChainedLog, Tip
from cordon.ledger.provenance import ProvenanceFields, Verdict
from cordon.ledger.pseudonyms import Salt, read_salt
from cordon.ledger.room import Budget, ToReserve
from cordon.ledger.rows import BudgetRow, Kind, ReservedRow, SentRow, TestedFields, TestedRow
from cordon.privacy.accountants import epsilon_by, epsilon_rdp, epsilons
from cordon.privacy.events import Event
from cordon.privacy.grouping import MOST_DELTA, Grouping

# What the rows of a private calibration have as their run begins so; no run's name may hold a colon.
CALIBRATION = "calibration:"
# Held while a round is reserved for patients, who may stand in other ledgers of the folder too.
RESERVING_LOCK = "reserving.lock"


def follow_anew(path: Path, key: str, reason: str) -> None:
    """Take back the aggregator's ledger of the public ``key``, wherever it is now; the reason stands in ours.

    For a site's owner who agrees that the aggregator goes on from an older copy. UserError where the site's
    ledger at ``path`` never followed that one.
    """
    log = ChainedLog(path)
    known = {row["key"] for row in log if row["kind"] == Kind.FOLLOWED}
    if key not in known:
        raise UserError(
            f"{path}: followed no ledger of the key {key[:16]}, but {', '.join(sorted(known)) or 'none'}. "
            "Give one of these."
        )
    log.append({"kind": Kind.ANEW, "key": key, "reason": reason})


class SiteLedger:
    """A site's privacy spending, over all runs.

    A round's cost is reserved before the round trains, and marked as sent before its update leaves:
    a crash can waste budget but never spend it unrecorded. Two processes may share a ledger: each one's
    reservations count for the other.

    ``epsilon`` is what a patient may spend in a lifetime. It is counted by patient, over all site ledgers in
    the folder (`cordon.ledger.cohorts`).
    """

    def __init__(self, path: Path, *, epsilon: float, delta: float) -> None:
        if not (0 < epsilon < math.inf and 0 < delta <= MOST_DELTA):
            raise UserError(
                f"no budget: epsilon {epsilon}, delta {delta}. Give epsilon above 0 and delta above 0 and at "
                f"most {MOST_DELTA:g}: with that probability a whole unit may be released."
            )
        self._log = ChainedLog(path)
        self._beside = Beside(path)
        # The digests of the patients that were asked for last, and what they were made of.
        self._digests: tuple[Ids, ...] = ()
        self._digested: tuple[tuple[tuple[str, ...], ...], str] = (), ""
        self.epsilon = epsilon
        self.delta = delta

    def events(self) -> list[Event]:
        """Every event reserved so far, sent or not, whoever took part."""
        return [held.event for held in of_all(self._log.chain).reservations]

    def histories(self) -> list[History]:
        """The histories of all patients that took part here, over all ledgers of the folder."""
        patients = everybody(self._log.chain)
        # Without a cohort, other ledgers' rows are not known to be anybody's of this one.
        return histories(self._chains() if patients else [self._log.chain], patients)

    def spent(self) -> float:
        """Epsilon reserved so far for whom it is the most, by RDP at the ledger's delta."""
        return max(epsilon_rdp(history.events, self.delta) for history in self.histories())

    def most_spent(self, run: str | None = None) -> list[Event]:
        """The events of whoever spent most; in ``run`` alone, where it is named."""
        spent = [
            counted(held for held in history.reservations if run in (None, held.run))
            for history in self.histories()
        ]
        return max(spent, key=lambda events: epsilon_rdp(events, self.delta))

    def epsilons(self, run: str | None = None) -> tuple[float, float | None]:
        """`spent`, by RDP and by PLD; in ``run`` alone, where it is named."""
        return epsilons(self.most_spent(run), self.delta)

    def sent(self, run: str, round_number: int) -> bool:
        return any(row["round"] == round_number for row in self._answers(run))

    def released(self, run: str, round_number: int) -> dict[str, Any] | None:
        """What `mark_sent` recorded as the release of a round; None where the round was not sent."""
        answers = (row for row in self._answers(run) if row["round"] == round_number)
        return next((row.get("released") for row in answers), None)

    def answered(self, run: str) -> int:
        """The last round of ``run`` that was answered; 0 where none was."""
        return max((row["round"] for row in self._answers(run)), default=0)

    def follow(self, run: str, tip: Tip) -> None:
        """Record how far the aggregator's ledger is; FederationError where that ledger went back.

        It may only grow: a shorter one, another one of the same length, or one under another key in the
        middle of a run was put back from a copy, or begun anew. What an aggregator had before the site's
        owner took it back (`follow_anew`) counts no more.
        """
        with self._log.locked():
            anew = {row["key"]: place for place, row in enumerate(self._log) if row["kind"] == Kind.ANEW}
            seen = [
                row for place, row in enumerate(self._log)
                if row["kind"] == Kind.FOLLOWED and place > anew.get(row["key"], -1)
            ]  # fmt: skip
            same = [row for row in seen if row["key"] == tip.key][-1:]
            if any(row["run"] == run and row["key"] != tip.key for row in seen):
                fault = "has another key than earlier in this run"
            elif same and tip.rows < same[0]["rows"]:
                fault = f"has {tip.rows} rows, and had {same[0]['rows']}"
            elif same and tip.rows == same[0]["rows"] and tip.digest != same[0]["digest"]:
                fault = f"has another last row {tip.rows} than it had"
            else:
                if not same or tip.rows > same[0]["rows"] or same[0]["run"] != run:
                    self._log.append({"kind": Kind.FOLLOWED, "run": run, **tip.to_dict()})
                return
        raise FederationError(
            f"the aggregator's ledger {fault}: an older copy was put back, or it was begun anew. Nothing was "
            "sent. Ask the operator to restore the newest ledger; where you agree that it goes on from an "
            "older one, take it back with cordon ledger follow-anew."
        )

    def reserve(
        self, run: str, round_number: int, event: Event, grouping: Grouping,
        patients: Sequence[str] | None = None, *, accountant: str, after: int = 0,
        also: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> frozenset[str]:  # fmt: skip
        """Record that ``event`` will be spent, and return which of ``patients`` take part.

        A patient takes part where the budget, by ``accountant``, has room for all that it spent before and
        the event. When the run begins here, there must be room for the ``after`` rounds behind this one as
        well, lest one spends on half a model. (Where not even somebody who spent nothing has so much, as plan
        and budget alone say, the event decides.) Who is left out of a round stays out of the run. So whether
        one takes part depends on nobody else. ``also`` has the other ids of patients who go by several, who
        spent what each of them did. Without ``patients`` the row counts for everybody, and all that this
        ledger holds is taken for one history.

        ``grouping`` is what will be trained on: its digest, and the units that the site's owner declared,
        stand in the row. Event and grouping that are reserved again for the same round cost those nothing
        who are in it, since at most one answer is sent; but the budget in force must have room for what they
        spent. BudgetExceeded (nothing spent) where nobody has room: a row then ends the run here, and later
        rounds of it are refused like this one, for whoever had no room must not come back because nobody else
        was there. UserError where the ledgers hold the spending of another privacy unit: the two do not
        compose into one epsilon.
        """
        # What that reads, computes and imports takes longer than all the rest.
        names = [(name, *also.get(name, ())) for name in patients or ()]
        if patients is not None:
            self._identify(names, self._salt(self._chains()))
        epsilon_by(accountant, [event], self.delta)
        with self._alone() if patients is not None else nullcontext(), self._log.locked():
            chains = self._chains() if patients is not None else [self._log.chain]
            self._refuse_other_units(chains, grouping.unit)
            self._refuse_if_sent(run, round_number)
            self._refuse_if_stopped(run)
            if patients is not None:
                self._identify(names, salt := self._salt(chains))
            last = self._reserved(run)[-1:]
            here = self._going_on(last) if names else []
            name = self._log.path.stem
            asked = ToReserve(
                name, run, round_number, event, after, bool(last), grouping.unit, grouping.digest
            )
            held_by = [of_all(self._log.chain)]
            if patients is not None:
                held_by = histories(chains, [self._digests[place] for place in here])
            try:
                part = Budget(self.epsilon, self.delta, accountant).room_for(asked, held_by)
            except BudgetExceeded as error:
                self._log.append({"kind": Kind.STOPPED, "run": run, "round": round_number})
                refusal = error  # raised when the row is on disk
            else:
                self._note_budget(accountant)
                row: ReservedRow = {
                    "kind": Kind.RESERVED, "run": run, "round": round_number, "unit": grouping.unit,
                    "declared_units": grouping.declared, "grouping": grouping.digest,
                    "event": event.to_dict(),
                }  # fmt: skip
                taking = [place for place, takes in zip(here, part, strict=True) if takes]
                if patients is not None:
                    digests = (digest for place in taking for digest in self._digests[place])
                    cohort = written(digests, salt.cohort_key(name, run))
                    row["cohort"], row["salt"] = self._log.attach(cohort), salt.name
                if last != [row]:
                    self._log.append(row)
                return frozenset(names[place][0] for place in taking)
        raise refusal

    def passed_test(self, settings: str, provenance: ProvenanceFields) -> dict[str, Verdict] | None:
        """The verdicts of the same code and software for a plan of the same ``settings``, if none failed.

        None too where a check was not tried, which it may be another time.
        """
        same = {"plan": settings, "code": provenance["code"], "versions": dict(provenance["versions"])}
        for row in reversed(self._tests()):
            if same.items() <= row.items():
                bad = row["seeded"] or {Verdict.FAILED, Verdict.UNTRIED} & set(row["verdicts"].values())
                return None if bad else dict(row["verdicts"])
        return None

    def note_test(self, run: str, settings: str, provenance: ProvenanceFields) -> None:
        """Record what is about to train in ``run``, and what checks found of it; once for a run.

        ``before`` says that the checks were made for an earlier run, whose row says the same.
        """
        said: TestedFields = {"plan": settings, **provenance}
        with self._log.locked():
            same = [row for row in self._tests() if said.items() <= row.items()]
            if not any(row["run"] == run for row in same):
                before = bool(same)
                self._log.append({"kind": Kind.TESTED, "run": run, "before": before, **said})

    def mark_sent(self, run: str, round_number: int, released: Mapping[str, Any] | None = None) -> None:
        """Record that the round's update leaves now; call it before it does.

        What is small is recorded itself (``released``, for JSON): whoever asks again gets the same.
        UserError (nothing may leave) where the round was not reserved, or was answered by another process.
        """
        with self._log.locked():
            self._refuse_if_sent(run, round_number)
            if all(row["round"] != round_number for row in self._reserved(run)):
                raise UserError(
                    f"round {round_number} of run {run} was not reserved in {self._log.path}. Reserve it "
                    "first."
                )
            row: SentRow = {"kind": Kind.SENT, "run": run, "round": round_number}
            if released is not None:
                row["released"] = dict(released)
            self._log.append(row)

    def _going_on(self, last: Sequence[ReservedRow]) -> list[int]:
        """The places of the patients who are in the run's ``last`` reservation; of all where it begins.

        UserError where that is nobody.
        """
        cohort = members(self._log.chain, last[0]) if last else None
        if cohort is None:
            return [*range(len(self._digests))]
        here = [place for place, ids in enumerate(self._digests) if not cohort.isdisjoint(ids)]
        if not here:
            raise UserError(
                f"there is nobody to reserve a round of run {last[0]['run']} for: of these patients none "
                "took part in its last one. Start a new run."
            )
        return here

    def _chains(self) -> list[Chain]:
        """This ledger and those beside it."""
        return [self._log.chain, *self._beside.chains()]

    def _salt(self, chains: Sequence[Chain]) -> Salt:
        return read_salt(self._log.path.parent, salts_named(chains))

    def _identify(self, names: Sequence[tuple[str, ...]], salt: Salt) -> None:
        """Make the patients' digests, once for the same ones."""
        wanted = tuple(names), salt.name
        if self._digested != wanted:
            self._digests = tuple(tuple(map(salt.digest, ids)) for ids in names)
            self._digested = wanted

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep all ledgers of the folder from reserving: one patient may stand in several of them."""
        with database.transaction(self._log.path.parent / RESERVING_LOCK):
            yield

    def _note_budget(self, accountant: str) -> None:
        """The budget in force is part of the record, and so is any change of it."""
        budget: BudgetRow = {
            "kind": Kind.BUDGET, "epsilon": float(self.epsilon), "delta": self.delta,
            "accountant": accountant,
        }  # fmt: skip
        if budget not in [row for row in self._log if row["kind"] == Kind.BUDGET][-1:]:
            self._log.append(budget)

    def _refuse_other_units(self, chains: Sequence[Chain], unit: str) -> None:
        for chain in chains:
            others = {row["unit"] for row in chain.rows if row["kind"] == Kind.RESERVED} - {unit}
            if others:
                raise UserError(
                    f"{chain.name} holds what was spent per {others.pop()}; this run counts per {unit}. "
                    "Use the same --privacy_unit, or another --state_dir for other patients."
                )

    def _refuse_if_stopped(self, run: str) -> None:
        for row in self._log:
            if row["kind"] == Kind.STOPPED and row["run"] == run:
                raise BudgetExceeded(
                    f"run {run} ended here at round {row['round']}, for which nobody had room. Nothing was "
                    "spent. Start a new run."
                )

    def _refuse_if_sent(self, run: str, round_number: int) -> None:
        if self.sent(run, round_number):
            raise UserError(
                f"round {round_number} of run {run} was answered before; a second answer would be a second "
                "release. Start a new run."
            )

    def _reserved(self, run: str) -> list[ReservedRow]:
        return [row for row in self._log if row["kind"] == Kind.RESERVED and row["run"] == run]

    def _answers(self, run: str) -> list[SentRow]:
        return [row for row in self._log if row["kind"] == Kind.SENT and row["run"] == run]

    def _tests(self) -> list[TestedRow]:
        return [row for row in self._log if row["kind"] == Kind.TESTED]
