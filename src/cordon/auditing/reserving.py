"""What a site does with its ledger: each round is reserved before it trains, once, within the budget."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from cordon.auditing.checks import Check
from cordon.auditing.made_up_rows import ROWS, table_of, units_of
from cordon.auditing.made_up_site import (
    PATIENTS,
    ROUNDED,
    Played,
    apart,
    as_told,
    made_up_start,
    message,
)
from cordon.errors import CordonError
from cordon.federation.messages import Reply, ReplyStatus
from cordon.federation.plan import Plan
from cordon.federation.site import participate
from cordon.ledger.site import SiteLedger
from cordon.model.architectures import Parameters
from cordon.privacy.events import Event

RESERVING = "Is each round reserved before it trains, once, and none beyond the budget?"
ROUNDS = 3


def check_reserving(plan: Plan) -> Check:
    """Rounds of a site, one that is asked for again, an earlier one, and budgets that lack a bit."""
    own = replace(
        as_told(plan), rounds=ROUNDS, local_steps=1, averaged_rounds=min(plan.averaged_rounds, ROUNDS),
        max_variants_per_patient=1,
    )  # fmt: skip
    (faults,) = apart(_faults, [own])
    return Check.of(
        "reserving", RESERVING, faults,
        f"each of {ROUNDS} rounds was reserved for every patient before it trained, at what the plan costs, "
        "and nothing was sent twice or without room in the budget",
        {"rounds": ROUNDS},
        most="a round that trains before its whole cost is reserved, again, or beyond the budget would have "
        "failed it",
    )  # fmt: skip


def _faults(plan: Plan) -> list[str]:
    return list(dict.fromkeys([*_spending_faults(plan), *_budget_faults(plan)]))


def _spending_faults(plan: Plan) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        site, ledger = _site(plan, Path(folder), plan.cost() * ROUNDED)
        start, reserved = made_up_start(plan), list[tuple[int, set[tuple[Event, ...]]]]()
        train = vars(participate)["train"]

        def trained(*arguments: Any, **named: Any) -> Any:
            held = ledger.histories()
            spent = {tuple(history.events) for history in held}
            reserved.append((sum(int(history.patients.sum()) for history in held), spent))
            return train(*arguments, **named)

        vars(participate)["train"] = trained
        for number in range(1, ROUNDS + 1):
            reply = _asked(site, plan, number, start)
            if reply is None or reply.status != ReplyStatus.TRAINED or reply.event != plan.event:
                yield f"round {number} is not answered as the plan has it"
            if reserved[number - 1 :] != [(len(ROWS), {(plan.event,) * number})]:
                yield "a round trains whose cost is not reserved for each patient as the plan has it"
        again, earlier = (_asked(site, plan, number, start) for number in (ROUNDS, 1))
        if again is None or again.status != ReplyStatus.ANSWERED or again.update is not None:
            yield "a round that was answered is answered again"
        if earlier is not None:
            yield "a round before one that was answered is answered"
        if len(reserved) > ROUNDS:
            yield "a round trains again"


def _budget_faults(plan: Plan) -> Iterator[str]:
    """Of budgets that lack a thousandth of what the plan costs, and nearly all of it."""
    for share, fit in ((0.999, ROUNDS - 1), (1e-6, 0)):
        with tempfile.TemporaryDirectory() as folder:
            site, ledger = _site(plan, Path(folder), plan.cost() * share)
            start = made_up_start(plan)
            replies = [_asked(site, plan, number, start) for number in range(1, fit + 2)]
            last = replies[-1]
            if last is None or last.status != ReplyStatus.STOPPED or last.update is not None:
                yield f"a budget of {share:g} of what the run costs does not stop it"
            if len(ledger.events()) > fit:
                yield "a round is reserved that the budget has no room for"


def _site(plan: Plan, folder: Path, epsilon: float) -> tuple[Played, SiteLedger]:
    units = units_of([table_of(plan, ROWS)], plan)
    ledger = SiteLedger(folder / "site.sqlite", epsilon=epsilon, delta=plan.delta)
    return Played(lambda plan: units, ledger), ledger


def _asked(site: Played, plan: Plan, number: int, start: Parameters) -> Reply | None:
    """Its answer to a round, or None where it refuses to give one."""
    try:
        return Reply.from_records(site.handle(message(plan, number, start, PATIENTS)))
    except CordonError:
        return None
