"""What a site has spent, on disk before it is spent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cordon.accountants import Event, epsilon_rdp, statement
from cordon.errors import BudgetExceeded, FederationError, UserError
from cordon.ledger import ChainedLog, Tip
from cordon.provenance import FAILED, UNTRIED
from cordon.units import Grouping

# Kinds of a site's rows: its budget, a round's cost before it trains, a round's answer before it leaves, how
# far the aggregator's ledger was, and what checks of the training code found before a run reserved anything.
BUDGET, RESERVED, SENT, FOLLOWED, TESTED = "budget", "reserved", "sent", "followed", "tested"
# What the rows of a private calibration have as their run begins so; no run's name may hold a colon.
CALIBRATION = "calibration:"


class SiteLedger:
    """A site's privacy spending, over all runs on the same patients.

    A round's cost is reserved before the round trains, and marked as sent before its update leaves:
    a crash can waste budget but never spend it unrecorded. Two processes may share a ledger: each one's
    reservations count for the other.
    """

    def __init__(self, path: Path, *, epsilon: float, delta: float) -> None:
        if not (0 < epsilon < math.inf and 0 < delta < 1):
            raise UserError(
                f"no budget: epsilon {epsilon}, delta {delta}. Give epsilon above 0 and delta in (0, 1)."
            )
        self._log = ChainedLog(path)
        self.epsilon = epsilon
        self.delta = delta

    def events(self) -> list[Event]:
        """Every event reserved so far, sent or not."""
        return [_event(row) for row in self._log if row["kind"] == RESERVED]

    def spent(self) -> float:
        """Epsilon reserved so far, by RDP at the ledger's delta."""
        return epsilon_rdp(self.events(), self.delta)

    def sent(self, run: str, round_number: int) -> bool:
        return bool(self._rows(SENT, run, round_number))

    def released(self, run: str, round_number: int) -> dict[str, Any] | None:
        """What `mark_sent` recorded as the release of a round; None where the round was not sent."""
        return next((row.get("released") for row in self._rows(SENT, run, round_number)), None)

    def answered(self, run: str) -> int:
        """The last round of ``run`` that was answered; 0 where none was."""
        return max(
            (row["round"] for row in self._log if row["kind"] == SENT and row["run"] == run), default=0
        )

    def follow(self, run: str, tip: Tip) -> None:
        """Record how far the aggregator's ledger is; FederationError where that ledger went back.

        It may only grow: a shorter one, another one of the same length, or one under another key in the
        middle of a run was put back from a copy, or begun anew.
        """
        with self._log.locked():
            seen = self._log.of_kind(FOLLOWED)
            same = [row for row in seen if row["key"] == tip.key][-1:]
            if any(row["run"] == run and row["key"] != tip.key for row in seen):
                fault = "has another key than earlier in this run"
            elif same and tip.rows < same[0]["rows"]:
                fault = f"has {tip.rows} rows, and had {same[0]['rows']}"
            elif same and tip.rows == same[0]["rows"] and tip.digest != same[0]["digest"]:
                fault = f"has another last row {tip.rows} than it had"
            else:
                if not same or tip.rows > same[0]["rows"] or same[0]["run"] != run:
                    self._log.append({"kind": FOLLOWED, "run": run, **asdict(tip)})
                return
        raise FederationError(
            f"the aggregator's ledger {fault}: an older copy was put back, or it was begun anew. Nothing was "
            "sent. Ask the operator to restore the newest ledger."
        )

    def reserve(self, run: str, round_number: int, event: Event, grouping: Grouping) -> None:
        """Record that ``event`` will be spent; BudgetExceeded (nothing recorded) where it may not be.

        ``grouping`` is what will be trained on: its digest, and the units that the site's owner declared,
        stand in the row. A reservation of the same round, event and grouping is used again if nothing was
        sent on it. UserError where the ledger holds the spending of another privacy unit: the two do not
        compose into one epsilon.
        """
        unit = grouping.unit
        about = {"unit": unit, "declared_units": grouping.declared, "grouping": grouping.digest}
        reserved = {**about, "event": event.to_dict()}
        with self._log.locked():
            others = {row["unit"] for row in self._log if row["kind"] == RESERVED} - {unit}
            if others:
                raise UserError(
                    f"{self._log.path} holds what was spent per {others.pop()}; this run counts per {unit}. "
                    "Use the same --privacy_unit, or another --state_dir for other patients."
                )
            self._refuse_if_sent(run, round_number)
            held = self._rows(RESERVED, run, round_number)
            if held and about.items() <= held[-1].items() and _event(held[-1]) == event:
                return
            after = epsilon_rdp([*self.events(), event], self.delta)
            if after > self.epsilon:
                reached = statement(after, unit=unit, delta=self.delta, mechanism=event.mechanism)
                raise BudgetExceeded(
                    f"round {round_number} would bring epsilon to more than the site's budget of "
                    f"{self.epsilon:.4g}: {reached}, by RDP. Nothing was spent; {self._log.path} holds what "
                    "was."
                )
            self._note_budget()
            place = {"kind": RESERVED, "run": run, "round": round_number}
            self._log.append(place | reserved)

    def passed_test(self, settings: str, provenance: Mapping[str, Any]) -> dict[str, str] | None:
        """The verdicts of the same code and software for a plan of the same ``settings``, if none failed.

        None too where a check was not tried, which it may be another time.
        """
        same = {"plan": settings, "code": provenance["code"], "versions": dict(provenance["versions"])}
        for row in reversed(self._log.of_kind(TESTED)):
            if same.items() <= row.items():
                bad = row["seeded"] or {FAILED, UNTRIED} & set(row["verdicts"].values())
                return None if bad else dict(row["verdicts"])
        return None

    def note_test(self, run: str, settings: str, provenance: Mapping[str, Any]) -> None:
        """Record what is about to train in ``run``, and what checks found of it; once for a run.

        ``before`` says that the checks were made for an earlier run, whose row says the same.
        """
        said = {"plan": settings, **provenance}
        with self._log.locked():
            same = [row for row in self._log.of_kind(TESTED) if said.items() <= row.items()]
            if not any(row["run"] == run for row in same):
                self._log.append({"kind": TESTED, "run": run, "before": bool(same), **said})

    def mark_sent(self, run: str, round_number: int, released: Mapping[str, Any] | None = None) -> None:
        """Record that the round's update leaves now; call it before it does.

        What is small is recorded itself (``released``, for JSON): whoever asks again gets the same.
        UserError (nothing may leave) where the round was not reserved, or was answered by another process.
        """
        with self._log.locked():
            self._refuse_if_sent(run, round_number)
            if not self._rows(RESERVED, run, round_number):
                raise UserError(
                    f"round {round_number} of run {run} was not reserved in {self._log.path}. Reserve it "
                    "first."
                )
            self._log.append(
                {"kind": SENT, "run": run, "round": round_number}
                | ({} if released is None else {"released": dict(released)})
            )

    def _note_budget(self) -> None:
        """The budget in force is part of the record, and so is any change of it."""
        budget = {"kind": BUDGET, "epsilon": float(self.epsilon), "delta": self.delta}
        if budget not in [row for row in self._log if row["kind"] == BUDGET][-1:]:
            self._log.append(budget)

    def _refuse_if_sent(self, run: str, round_number: int) -> None:
        if self.sent(run, round_number):
            raise UserError(
                f"round {round_number} of run {run} was answered before; a second answer would be a second "
                "release. Start a new run."
            )

    def _rows(self, kind: str, run: str, round_number: int) -> list[dict[str, Any]]:
        place = (kind, run, round_number)
        return [row for row in self._log if (row["kind"], row.get("run"), row.get("round")) == place]


def _event(row: dict[str, Any]) -> Event:
    return Event(**row["event"])
