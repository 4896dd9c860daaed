"""A site that an audit plays: its own code answers rounds, without a network, on units at hand or made up."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import shake_256
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

from cordon.arrays import Floats
from cordon.auditing.recorder import Recorded, Recorder, in_order, made_of_releases
from cordon.federation.flower.processes import end_with_parent
from cordon.federation.messages import Reply, Task
from cordon.federation.plan import Plan
from cordon.federation.site.participate import Participant
from cordon.federation.site.terms import Terms
from cordon.ledger.hash_chain import new_key
from cordon.ledger.log import Tip
from cordon.ledger.site import SiteLedger
from cordon.model.architectures import Parameters, width
from cordon.model.devices import THREADS_VARIABLE
from cordon.model.initial_weights import initial_parameters
from cordon.training.units import Units
from cordon.variants.features import FEATURES

if TYPE_CHECKING:
    from flwr.app import RecordDict

T = TypeVar("T")

# The patients that a played site declares, and about how many it holds.
PATIENTS = 8
# What a played site's budget is more than what its plan costs, lest that be rounded otherwise.
ROUNDED = 1.0 + 1e-9
# Steps of a round that are played at most: what goes wrong later in a longer one is not looked at.
MOST_PLAYED_STEPS = 100
# Rounds of a run that are played at most (`some_rounds`).
MOST_PLAYED = 5


class Played(Participant):
    """A site whose words nobody reads: what it spent is not computed for them, which takes a second."""

    answer_grid = 0.0  # an audit answers nobody

    def __init__(
        self, load: Callable[[Plan], Units], ledger: SiteLedger, declared_patients: int = PATIENTS
    ) -> None:
        super().__init__(
            Terms("site", declared_patients), load, FEATURES, ledger=ledger, say=lambda line: None
        )

    def _spent(self, plan: Plan) -> str:
        return ""


def replies(
    plan: Plan, start: Parameters, load: Callable[[Plan], Units], *, declared_patients: int,
    rounds: Iterable[int], epsilon: float, spent: Sequence[str] = (),
) -> Iterator[RecordDict]:  # fmt: skip
    """What a site with a budget of ``epsilon`` answers to ``rounds``, each from ``start``.

    The patients ``spent`` took part in a round like the plan's in an earlier run.
    """
    with tempfile.TemporaryDirectory() as folder:
        ledger = SiteLedger(Path(folder) / "site.sqlite", epsilon=epsilon, delta=plan.delta)
        if spent:
            grouping = plan.grouping(declared_patients)
            ledger.reserve("earlier", 1, plan.event, grouping, spent, accountant=plan.accountant)
        site = Played(load, ledger, declared_patients)
        for number in rounds:
            yield site.handle(message(plan, number, start, declared_patients))


# No aggregator's: a site reads it as it would a real one.
TIP = Tip.signed(0, "0" * 64, new_key()[0])


def message(plan: Plan, number: int, start: Parameters, declared_patients: int) -> Any:
    """What asks a site for a round: as much as it reads; a real one belongs to a task of Flower's."""
    task = Task(plan, number, declared_patients, start, TIP)
    return SimpleNamespace(content=task.to_records(), metadata=SimpleNamespace(message_type="train"))


@dataclass(frozen=True)
class PlayedRound:
    """What a played site did in a round: its ``releases``, the ``update`` [P] that it sent, and ``faults``.

    These are what of an update does not come of the releases.
    """

    number: int
    releases: list[Recorded]
    update: Floats
    faults: list[str]


def as_told(plan: Plan) -> Plan:
    """The plan as a played site is told it: its own, but for what has no part in what a round sends."""
    # Delta is told of no update, and a plan's may be too large for so few patients as are made up.
    return replace(
        plan, run="audit", delta=1e-12, accountant="rdp", sites_per_patient=1, lifetime_epsilon=0.0,
        local_steps=min(plan.local_steps, MOST_PLAYED_STEPS),
    )  # fmt: skip


def made_up_start(plan: Plan) -> Parameters:
    """Parameters that are made up: from a model's own, some layers have no gradient."""
    numbers = np.random.default_rng(2)
    return {
        name: (value + numbers.normal(scale=0.2, size=value.shape)).astype(np.float32)
        for name, value in initial_parameters(plan.model, len(FEATURES)).items()
    }


def some_rounds(plan: Plan) -> list[int]:
    """The first two and the last two rounds of a plan, and one that nobody knows before."""
    last = plan.rounds
    return sorted({1, min(2, last), 1 + secrets.randbelow(last), max(1, last - 1), last})


def played(
    plan: Plan, load: Callable[[Plan], Units], recorder: Recorder, rounds: Sequence[int],
    spent: Sequence[str] = (),
) -> list[PlayedRound]:  # fmt: skip
    """``rounds`` of ``plan`` (`as_told`) at a site, which ``recorder`` records, each from `made_up_start`.

    Its budget is what the plan costs, so that whoever ``spent`` something before has no room.
    """
    start = made_up_start(plan)
    settings = plan.settings_for(PATIENTS)
    from_where = in_order(plan.model, len(FEATURES), start)
    found: list[PlayedRound] = []
    answers = replies(
        plan, start, load, declared_patients=PATIENTS, rounds=rounds, epsilon=plan.cost() * ROUNDED,
        spent=spent,
    )  # fmt: skip
    recorder.taken()
    for number, answer in zip(rounds, answers, strict=True):
        reply, releases = Reply.from_records(answer), recorder.taken()
        update = in_order(plan.model, len(FEATURES), reply.update or start)
        carried = found[-1].releases[-1].used_clip if found and found[-1].releases else plan.clip_norm
        faults = list(made_of_releases(releases, from_where, update, settings))
        faults += _clip_faults(releases, carried, settings.clipping)
        found.append(PlayedRound(number, releases, update, faults))
    return found


def _clip_faults(releases: Sequence[Recorded], carried: float, clipping: str) -> Iterator[str]:
    """The clip norm of a release is what the last one ended with, ``carried`` over from round to round."""
    ends = [carried, *(release.used_clip for release in releases)]
    if any(release.clip != end for release, end in zip(releases, ends, strict=False)):
        yield "a clip norm is another than the release before it made it"
    if clipping == "fixed" and any(release.next_clip != release.clip for release in releases):
        yield "a fixed clip norm moves"


def marked(plan: Plan, count: int) -> Units:
    """So many units of one row each, with marks from 1 on as their first input, and labels of both kinds."""
    rows = np.zeros((count, width(plan.model, len(FEATURES))), np.float32)
    rows[:, 0] = np.arange(1, count + 1)
    return Units(rows, np.arange(count, dtype=np.float32) % 2, np.arange(count + 1), plan.unit)


def repeated(name: str = "") -> Callable[[int], bytes]:
    """A source that gives the same bytes to the same question, a longer one's beginning to a shorter one."""
    asked = itertools.count()
    return lambda size: shake_256(f"{name} {next(asked)}".encode()).digest(size)


def apart(function: Callable[..., T], *calls: Sequence[Any]) -> list[T]:
    """What ``function`` gives for the arguments of each of ``calls``, in processes as sites have.

    What processes inherit they share, and what one changes it keeps.
    """
    # What a site's code takes is imported once, and not in each of them: pyarrow imports pandas to convert.
    import flwr.app  # noqa: F401
    import torch  # noqa: F401

    pa.array([0])
    with ExitStack() as stack:
        context = multiprocessing.get_context("fork")
        pools = [stack.enter_context(context.Pool(1, begin_apart)) for _ in calls]
        found = [pool.apply_async(function, call) for pool, call in zip(pools, calls, strict=True)]
        return [one.get() for one in found]


def begin_apart() -> None:
    """What a process that was forked for a check does first: it ends when whoever forked it does.

    One thread: it has none of those that the torch of whoever forked it has started, and to wait for them is
    the end of it.
    """
    os.environ[THREADS_VARIABLE] = "1"
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent(signal.SIGKILL)
