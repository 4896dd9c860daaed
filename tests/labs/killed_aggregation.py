"""A whole run in one process that is killed at a given line of the aggregator's code, for tests.

Sites are real participants with real ledgers; only Flower, which would carry the messages, is left out.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from cordon.federation.aggregator import run as aggregator
from cordon.federation.aggregator.checkpoint import Checkpoints
from cordon.federation.aggregator.judge import Answer
from cordon.federation.messages import Reply, ReplyStatus
from cordon.federation.plan import Plan, Site
from cordon.federation.site import participate
from cordon.federation.site.terms import Terms
from cordon.ledger.log import ChainedLog
from cordon.ledger.site import SiteLedger
from cordon.privacy import accountants

if TYPE_CHECKING:
    from flwr.app import RecordDict

FEATURES = ("f_a", "f_b", "f_c")
PATIENTS = 4
WEIGHTS = {"n": 1.0, "s": 2.0, "w": 1.0}
SITES = [Site(name, PATIENTS, weight, f"key of {name}") for name, weight in WEIGHTS.items()]
AGREED = Plan(
    run="", model="logistic", unit="patient", epsilon=50.0, delta=1e-5, rounds=3, local_steps=1,
    sampling_rate=0.5, noise_multiplier=2.0, clip_norm=1.0, learning_rate=0.5, max_variants_per_patient=16,
    averaged_rounds=2,
)  # fmt: skip
# Where the aggregator, or a site that writes to its ledger, can die.
MORTAL = (
    "aggregator/run.py", "aggregator/checkpoint.py", "aggregator/judge.py", "aggregator/charges.py",
    "aggregator/attendance.py", "aggregator/ending.py",
    "ledger/log.py", "ledger/site.py", "ledger/hash_chain.py", "ledger/database.py", __file__,
)  # fmt: skip
KILLED = 137
Trace = Callable[[FrameType, str, Any], Any]


class Room:
    """An exchange without a network; each update that is handed over is kept in ``sent``."""

    def __init__(self, folder: Path) -> None:
        self._sent = folder / "sent"
        self._sent.mkdir(exist_ok=True)
        self._participants = {
            one: participate.Participant(
                Terms(one.name, PATIENTS), _units, FEATURES, say=lambda words: None,
                ledger=SiteLedger(folder / "sites" / f"{one.name}.sqlite", epsilon=50.0, delta=1e-5),
            )
            for one in SITES
        }  # fmt: skip

    def online(self) -> dict[Site, int]:
        return {one: number for number, one in enumerate(SITES, start=10)}

    def ask(
        self, contents: Mapping[Site, RecordDict], kind: str, deadline: float, *, group: str
    ) -> dict[Site, Answer]:
        from flwr.app import Message

        answers: dict[Site, Answer] = {}
        for one, content in contents.items():
            message = Message(content, self.online()[one], kind)
            reply = Reply.from_records(self._participants[one].handle(message))
            if reply.status == ReplyStatus.TRAINED:
                assert reply.update is not None
                np.savez(self._sent / f"{one.name}-{reply.round}.npz", **reply.update)
            answers[one] = (reply, "")
        return answers


def _units(plan: Plan) -> Any:
    from cordon.training.units import Units

    source = np.random.default_rng(0)
    features = source.normal(size=(40, 3)).astype(np.float32)
    patients = [f"p{row % PATIENTS}" for row in range(40)]
    return Units.group(features, (features[:, 0] > 0).astype(np.float32), patients, unit=plan.unit)


def attempt(folder: Path, die_at: int | None, lines: Path | None = None) -> None:
    """Begin the run in ``folder`` or go on with it, and die at line ``die_at``; ``lines`` gets them all."""
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = 1, 2, 3
    participate.Participant.answer_grid = 0.001
    accountants.MOST_FOR_PLD = 0.0  # it decides nothing here, and takes long where every call is traced
    folder.mkdir(exist_ok=True)
    seen: list[str] = []
    plan = AGREED.started()
    sys.settrace(_trace(seen, die_at))
    ledger = ChainedLog(folder / "ledger.sqlite")
    checkpoints = Checkpoints(folder, ledger)
    setup = aggregator.RunSetup(plan, SITES, FEATURES, aggregator.RoundLimits(2, 5.0, 5.0))
    aggregation = aggregator.Aggregation(
        setup, ledger=ledger, checkpoints=checkpoints, say=lambda words: None
    )
    model = aggregation.run(Room(folder))  # type: ignore[arg-type]
    model.save(folder / "model.safetensors")
    (folder / "record.json").write_text(json.dumps(aggregation.record.to_dict()))
    checkpoints.discard()
    sys.settrace(None)
    if lines:
        lines.write_text("\n".join(seen))


def _trace(seen: list[str], die_at: int | None) -> Trace:
    def local(frame: FrameType, event: str, argument: Any) -> Trace:
        if event == "line":
            seen.append(f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}")
            if len(seen) == die_at:
                os._exit(KILLED)
        return local

    def trace(frame: FrameType, event: str, argument: Any) -> Trace | None:
        return local if frame.f_code.co_filename.endswith(MORTAL) else None

    return trace
