"""A site that an audit plays: its own code answers rounds, on the audit's units and without a network."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from cordon.features import FEATURES
from cordon.federation.messages import Task
from cordon.federation.plan import Plan
from cordon.federation.site import Participant
from cordon.ledger import Tip
from cordon.model import Parameters
from cordon.site_ledger import SiteLedger
from cordon.units import Units

if TYPE_CHECKING:
    from flwr.app import RecordDict


def replies(
    plan: Plan, start: Parameters, load: Callable[[Plan], Units], *, declared_patients: int, rounds: int,
    epsilon: float,
) -> Iterator[RecordDict]:  # fmt: skip
    """What a site with a budget of ``epsilon`` answers to the first ``rounds``, each from ``start``."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = SiteLedger(Path(folder) / "site.sqlite", epsilon=epsilon, delta=plan.delta)
        site = Participant(
            "site", load, FEATURES, declared_patients=declared_patients, ledger=ledger, say=lambda line: None
        )
        for number in range(1, rounds + 1):
            task = Task(plan, number, declared_patients, start, Tip("0" * 64, 0, "0" * 64))
            message: Any = SimpleNamespace(
                content=task.to_records(), metadata=SimpleNamespace(message_type="train")
            )  # as much of one as a site reads; a real one belongs to a task of Flower's
            yield site.handle(message)
