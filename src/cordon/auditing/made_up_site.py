"""A site that an audit plays: its own code answers rounds, without a network, on units at hand or made up."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from hashlib import shake_256
from multiprocessing.pool import Pool
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cordon.devices import THREADS
from cordon.features import FEATURES
from cordon.federation.messages import Reply, Task
from cordon.federation.outliers import flat
from cordon.federation.plan import Plan
from cordon.federation.processes import PR_SET_PDEATHSIG
from cordon.federation.site import Participant
from cordon.images import SIZE
from cordon.ledger import Tip
from cordon.model import Parameters, initial_parameters, width
from cordon.site_ledger import SiteLedger
from cordon.tables import LABELLED, PILEUP, for_model, write_table
from cordon.units import Units

if TYPE_CHECKING:
    from flwr.app import RecordDict

Floats = npt.NDArray[np.float64]

# What is made up: patients, and rows of each.
PATIENTS, ROWS = 8, 4


def replies(
    plan: Plan, start: Parameters, load: Callable[[Plan], Units], *, declared_patients: int, rounds: int,
    epsilon: float,
) -> Iterator[RecordDict]:  # fmt: skip
    """What a site with a budget of ``epsilon`` answers to the first ``rounds``, each from ``start``."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = SiteLedger(Path(folder) / "site.sqlite", epsilon=epsilon, delta=plan.delta)
        site = Participant(
            "site", load, FEATURES, declared_patients=declared_patients, ledger=ledger,
            say=lambda line: None, answer_grid=0.0,
        )  # fmt: skip
        for number in range(1, rounds + 1):
            task = Task(plan, number, declared_patients, start, Tip("0" * 64, 0, "0" * 64))
            message: Any = SimpleNamespace(
                content=task.to_records(), metadata=SimpleNamespace(message_type="train")
            )  # as much of one as a site reads; a real one belongs to a task of Flower's
            yield site.handle(message)


def sent(plan: Plan, load: Callable[[Plan], Units], rounds: int) -> Floats:
    """The updates that a site sends in its first rounds, each from one start, [rounds, parameters].

    The start is made up too: from a model's own, some layers have no gradient.
    """
    numbers = np.random.default_rng(2)
    start = {
        name: (value + numbers.normal(scale=0.2, size=value.shape)).astype(np.float32)
        for name, value in initial_parameters(plan.model, len(FEATURES)).items()
    }
    # A budget that many rounds of the plan do not exceed: it is the update that is looked at.
    found = replies(plan, start, load, declared_patients=PATIENTS, rounds=rounds, epsilon=1e9)
    return np.array([flat(Reply.from_records(reply).update or {}).astype(np.float64) for reply in found])


def no_units(plan: Plan) -> Units:
    """Those of a site without rows: what it sends is noise alone."""
    no_rows = np.zeros((0, width(plan.model, len(FEATURES))), np.float32)
    return Units(no_rows, np.zeros(0, np.float32), np.zeros(1, np.int64), plan.unit)


def read_back(tables: list[pa.Table], plan: Plan) -> list[Units]:
    """The units that a site reads from each of ``tables``, as `made_up` makes them."""
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for number, table in enumerate(tables):
            path = Path(folder) / f"{number}.parquet"
            write_table(table, path)
            found.append(Units.read([path], unit=plan.unit, architecture=plan.model))
        return found


def made_up(plan: Plan) -> pa.Table:
    """PATIENTS of ROWS each, all alike but for the last one, which pulls the other way and twice as hard."""
    pulls = [1.0] * (PATIENTS - 1) + [-2.0]
    return pa.concat_tables(_patient(f"p{number}", pull, plan) for number, pull in enumerate(pulls))


def _patient(name: str, pull: float, plan: Plan) -> pa.Table:
    """ROWS that are all the same."""
    schema = for_model(LABELLED, plan.model)
    values: dict[str, Any] = dict.fromkeys(FEATURES, 3.0 * pull)
    values |= {
        "patient": name,
        "position": 1,
        "label": 1,
        PILEUP.name: bytes([160 if pull > 0 else 80]) * SIZE,
    }
    row = [values.get(field.name, None if field.nullable else "x") for field in schema]
    columns = [pa.array([value] * ROWS, field.type) for value, field in zip(row, schema, strict=True)]
    return pa.Table.from_arrays(columns, schema=schema)


def repeated() -> Callable[[int], bytes]:
    """A source that gives the same bytes to the same question, a longer one's beginning to a shorter one."""
    asked = iter(range(10**9))
    return lambda size: shake_256(f"{next(asked)}".encode()).digest(size)


def processes(count: int) -> Pool:
    """Processes of their own, as sites are: what they inherit they share, and what one changes it keeps."""
    # What a site's code takes is imported once, and not in each of them: pyarrow imports pandas to convert.
    import flwr.app  # noqa: F401

    pa.array([0])
    return multiprocessing.get_context("fork").Pool(count, begin_apart)


def begin_apart() -> None:
    """What a process that was forked for a check does first: it ends when whoever forked it does.

    One thread: it has none of those that the torch of whoever forked it has started, and to wait for them is
    the end of it.
    """
    os.environ[THREADS] = "1"
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
