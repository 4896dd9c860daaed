"""What leaves a site beside its update: its own code is run on two sets of rows, and must say the same.

Whatever name a leak has, and wherever in a message it stands, it differs between rows that differ. Updates
themselves may, and must even on the same rows: noise that comes twice is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cordon.auditing.checks import Check
from cordon.auditing.made_up_site import ROUNDED, replies
from cordon.errors import CordonError
from cordon.federation.messages import Reply
from cordon.federation.plan import Plan
from cordon.model.architectures import Parameters
from cordon.training.units import Units

if TYPE_CHECKING:
    from flwr.app import RecordDict

EGRESS = "Does anything leave a site beside its private update?"
EGRESS_MOST = (
    "any part of a message beside the update that differs between rows would have failed it; what hides "
    "within the update would not"
)
EGRESS_RUN = "audit"


def check_egress(plan: Plan, start: Parameters, units: Units, declared_patients: int) -> Check:
    """Run a site on ``units``, on them again, and on half of them with other labels; compare its messages."""
    kinds = (units, units, other(units))
    try:
        answers = [_reply(plan, start, own, declared_patients) for own in kinds]
    except CordonError as error:
        return Check.of("egress", EGRESS, [f"the site cannot answer: {error}"], "", most=EGRESS_MOST)
    named = sorted(name for name, _ in _values(answers[0]))
    return Check.of(
        "egress", EGRESS, _faults(answers),
        "messages about different rows differ in the noisy update alone", {"fields": named}, most=EGRESS_MOST,
    )  # fmt: skip


def other(units: Units) -> Units:
    """Half of the units, at least one, with every label turned."""
    half = max(1, len(units) // 2)
    rows = np.arange(units.offsets[half])
    return Units(
        units.features.take(rows, 0), 1.0 - units.labels[rows], units.offsets[: half + 1], units.unit
    )


def _reply(plan: Plan, start: Parameters, units: Units, declared_patients: int) -> RecordDict:
    """What a site with ``units`` answers to the first round."""
    # The budget is what the plan costs, at the delta that it is played with.
    (reply,) = replies(
        replace(plan, run=EGRESS_RUN), start, lambda plan: units, declared_patients=declared_patients,
        rounds=[1], epsilon=ROUNDED * max(plan.epsilon, plan.cost()),
    )  # fmt: skip
    return reply


def _values(content: RecordDict) -> Iterator[tuple[str, Any]]:
    """Everything in a message by name, arrays by shape and type alone."""
    from flwr.app import ArrayRecord

    for key, record in content.items():
        if isinstance(record, ArrayRecord):
            for name, array in record.items():
                yield f"{key}.{name}", (array.shape, array.dtype, array.stype, len(array.data))
        else:
            yield from ((f"{key}.{name}", value) for name, value in record.items())


def _faults(answers: Sequence[RecordDict]) -> Iterator[str]:
    first, again, other = (dict(_values(reply)) for reply in answers)
    for name in sorted(first.keys() | again.keys() | other.keys()):
        seen = [values.get(name) for values in (first, again, other)]
        if any(value != seen[0] for value in seen):
            yield f"{name} depends on the site's rows"
    updates = []
    for reply in answers:
        try:
            updates.append(Reply.from_records(reply).update or {})
        except CordonError as error:
            yield f"a message is not on the allow-list: {error}"
            return
    if not all(updates):
        yield "the site sends no update"
    elif any(np.array_equal(value, updates[1][name]) for name, value in updates[0].items()):
        yield "two updates from the same rows are the same: their noise is not fresh"
