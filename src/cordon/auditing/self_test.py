"""What a site finds about its own code before a run's first reservation: checks on made-up rows alone.

An audit shows that the code which audits is sound; this, that the code which trains is. It reads no row of a
patient and spends nothing. Code, versions and verdicts go into the site's ledger, and with each update to the
aggregator, so that a certificate can name them.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from cordon.auditing import additions, egress, reserving, sampling, specified, step_bound, updates
from cordon.auditing.checks import Check, confirmed
from cordon.auditing.egress import check_egress
from cordon.auditing.made_up_rows import MOST_ROWS_OF_ONE, ROWS, table_of, units_of
from cordon.auditing.made_up_site import PATIENTS, apart, as_told, begin_apart, marked
from cordon.errors import Unsound
from cordon.federation.plan import Plan
from cordon.ledger.provenance import Provenance, installed
from cordon.ledger.site import SiteLedger
from cordon.model.initial_weights import initial_parameters
from cordon.training.dpsgd import train
from cordon.variants.features import FEATURES

# Seconds that all checks may take: a site where they take longer does not train.
MOST_SECONDS = 300.0
LATE = f"the time for these checks, {MOST_SECONDS:g} s, was over (give the task more processors)"
# Steps of a round whose message is looked at.
MESSAGE_STEPS = 2
# Draws of the step bound's noise, and of units that are in a step: fewer than an audit's.
SELF_TEST_TRIALS, SELF_TEST_SAMPLED = 20_000, 1_000


def _step(plan: Plan) -> Check:
    return step_bound.check_step(
        plan, trials=max(SELF_TEST_TRIALS, math.ceil(SELF_TEST_SAMPLED / plan.sampling_rate))
    )


def _egress(plan: Plan) -> Check:
    rows = min(plan.max_variants_per_patient, MOST_ROWS_OF_ONE)
    own = replace(
        as_told(plan), local_steps=min(plan.local_steps, MESSAGE_STEPS), max_variants_per_patient=rows
    )
    start = initial_parameters(plan.model, len(FEATURES))
    return check_egress(own, start, units_of([table_of(own, ROWS)], own), PATIENTS)


# By name: the question, and who answers it. First what forks: before their process has threads of its own, or
# a GPU's context.
CHECKS: dict[str, tuple[str, Callable[[Plan], Check]]] = {
    "noise": (updates.NOISE, updates.check_noise),
    "neighbours": (additions.NEIGHBOURS, additions.check_neighbours),
    "sampling": (sampling.SAMPLING, sampling.check_sampling),
    "specified": (specified.SPECIFIED, specified.check_specified),
    "reserving": (reserving.RESERVING, reserving.check_reserving),
    "egress": (egress.EGRESS, _egress),
    "step bound": (step_bound.STEP_BOUND, _step),
}


class SelfTest:
    """The checks of a site with a ``ledger``, once for each plan; what they found is a row for each run.

    Where the same code and software passed them for the same settings on this ledger before, they are not
    made again, and the row says so.
    """

    def __init__(self, ledger: SiteLedger, say: Callable[[str], None]) -> None:
        self._ledger, self._say = ledger, say
        self._found: dict[str, Provenance] = {}

    def __call__(self, plan: Plan) -> Provenance:
        """What trains here; Unsound where a check failed, which the ledger then says."""
        settings = replace(plan, run="").digest
        if settings not in self._found:
            self._found[settings] = self._examined(plan, settings)
        found = self._found[settings]
        if plan.run:
            self._ledger.note_test(plan.run, settings, found.to_dict())
        return found

    def _examined(self, plan: Plan, settings: str) -> Provenance:
        here = installed()
        if (passed := self._ledger.passed_test(settings, here.to_dict())) is not None:
            self._say("the training code and its software passed their checks here before")
            return replace(here, verdicts=passed)
        began = time.monotonic()
        checks, seeded = examine(plan)
        found = replace(here, verdicts={check.name: check.verdict for check in checks}, seeded=seeded)
        self._say(
            f"the training code was checked on made-up rows: {sum(check.passed for check in checks)} of "
            f"{len(checks)} checks passed, {sum(check.failed for check in checks)} failed, in "
            f"{time.monotonic() - began:.1f} s"
        )
        faults = [f"{check.name}: {check.reason}" for check in checks if check.failed or check.reason == LATE]
        if found.faults or faults:
            self._ledger.note_test(plan.run, settings, found.to_dict())
            refuse(found, faults)
        return found


def refuse(found: Provenance, reasons: Sequence[str]) -> None:
    """Unsound for what was ``found``."""
    said = "; ".join([*reasons, *(["seeded: not private"] if found.seeded else [])])
    raise Unsound(
        f"the code that would train here is not sound: {said}. Nothing was reserved and nothing was sent. "
        "Install an unchanged release of Cordon, and start again."
    )


def examine(plan: Plan, *, seconds: float = MOST_SECONDS) -> tuple[list[Check], bool]:
    """All checks, and whether training draws from a seed; in a process of their own, for so long at most.

    It is forked, or begun anew where this process has a GPU's context, which cannot be forked. Unsound where
    it ends by itself.
    """
    torch = sys.modules.get("torch")
    used = torch is not None and torch.cuda.is_initialized()
    context: Any = multiprocessing.get_context("spawn" if used else "fork")
    heard, told = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(plan, told))
    process.start()
    told.close()
    deadline, called = time.monotonic() + seconds, CHECKS
    found: list[Any] = []
    try:
        while len(found) <= len(called) and heard.poll(max(0.0, deadline - time.monotonic())):
            found.append(heard.recv())
    except EOFError:
        process.join()
        raise Unsound(
            "the checks of the training code ended by themselves, with status "
            f"{process.exitcode}. Nothing was reserved. See the lines above; give the task more memory, or "
            "install an unchanged release of Cordon."
        ) from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
    seeded, checks = bool(found[:1] == [True]), found[1:]
    left = list(called.items())[len(checks) :]
    return [*checks, *(Check.untried(name, question, LATE) for name, (question, _) in left)], seeded


def _tell(plan: Plan, told: Connection) -> None:
    """Send whether training is seeded, and then each check; begins as a process of its own."""
    os.setsid()
    begin_apart()
    try:
        told.send(apart(_seeded, [plan])[0])
    except Exception:  # code that cannot train: each check says so
        told.send(False)
    for check in _checks(plan):
        told.send(check)


def _checks(plan: Plan) -> Iterator[Check]:
    for name, (question, check) in CHECKS.items():
        try:
            yield confirmed(partial(check, plan))
        except Exception as error:  # whatever it is: right code trains on made-up rows by any plan
            yield Check.of(name, question, [f"the code cannot train: {error!r}"], "", most="")


def _seeded(plan: Plan) -> bool:
    start = initial_parameters(plan.model, len(FEATURES))
    settings = replace(plan, local_steps=1).settings_for(PATIENTS)
    return train(plan.model, start, marked(plan, 0), settings).seeded
