"""A site's part in a run: this process, answering the tasks that its SuperNode receives."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cordon.console.progress import Say
from cordon.errors import BudgetExceeded, FederationError
from cordon.federation.messages import Outcome, Reply, ReplyStatus, Task
from cordon.federation.plan import Plan
from cordon.federation.site.terms import Terms
from cordon.files import parse_json
from cordon.ledger.provenance import Provenance, installed
from cordon.ledger.site import SiteLedger
from cordon.model.architectures import build, check_parameters, width
from cordon.model.initial_weights import initial_parameters
from cordon.model.released import Model
from cordon.model.statement import stated
from cordon.privacy.grouping import Grouping, check_delta
from cordon.privacy.guarantee import LIFETIME, composed_statement
from cordon.steps import duration
from cordon.training.dpsgd import train
from cordon.training.units import Units

if TYPE_CHECKING:
    from flwr.app import Message, RecordDict


def reading(tables: Sequence[Path], one_id: Mapping[str, str]) -> Callable[[Plan], Units]:
    """What makes a site's units, for a plan's model and unit, from its ``tables`` of labelled variants.

    ``one_id`` as for `cordon.training.units.Units.read`.
    """
    return lambda plan: Units.read(tables, unit=plan.unit, architecture=plan.model, one_id=one_id)


class Participant:
    """Answers tasks with a site's own units, within its own budget.

    ``load_units`` makes the privacy units for a plan's model and kind of unit, and is asked again where a
    task's plan has others: rows grouped by one unit are never trained on under the name of another.
    Its own ``terms`` bound every plan. Before a plan's first reservation ``test`` is asked what
    trains here, and raises where that must not: at once where a plan was agreed on. ``outcome`` is the
    aggregator's last word, when it came.
    """

    # Answers leave on this grid (seconds after the task came), so that the time an answer takes, which
    # Flower reports with it, does not tell how many rows were drawn.
    answer_grid = 0.5

    def __init__(
        self,
        terms: Terms,
        load_units: Callable[[Plan], Units],
        features: tuple[str, ...],
        *,
        ledger: SiteLedger,
        say: Say,
        test: Callable[[Plan], Provenance] | None = None,
    ) -> None:
        self.name, self._terms = terms.name, terms
        self._load_units = load_units
        # The units of the last task, and what they were made for.
        self._units: tuple[Grouping, Units] | None = None
        # Those of the patients who took part last, and who they are.
        self._part: tuple[frozenset[str], Units] | None = None
        self._features = features
        self._ledger = ledger
        self._say = say
        self._test = test
        # Where the adaptive clip of a run stands; a site that starts anew begins at the plan's first one.
        self._clips: dict[str, float] = {}
        # A run's first round that this process was asked for, and when: how long the rest takes.
        self._asked: dict[str, tuple[int, float]] = {}
        self.outcome: Outcome | None = None

    def warm_up(self) -> None:
        """Import what training takes, which is seconds: before the first task, not in it."""
        if self._terms.agreed is None:
            import opacus  # noqa: F401  some models take it
            import torch  # noqa: F401
        else:
            from cordon.privacy.gradients import unit_gradients

            self._terms.agreed.check_expiry()
            model, features = self._terms.agreed.model, len(self._features)
            unit_gradients(build(model, features), width(model, features))
            self._provenance(self._terms.agreed)

    def handle(self, message: Message) -> RecordDict:
        """The reply to one message, on the answer grid."""
        began = time.monotonic()
        reply = self._finish(message) if message.metadata.message_type == "query" else self._train(message)
        elapsed, grid = time.monotonic() - began, self.answer_grid
        if grid:
            time.sleep(math.ceil(elapsed / grid) * grid - elapsed)
        if reply.status == ReplyStatus.TRAINED:
            self._ledger.mark_sent(reply.run, reply.round)
        return reply.to_records()

    def _train(self, message: Message) -> Reply:
        task = Task.from_records(message.content)
        plan = task.plan
        self._terms.check(task, self._ledger.delta)
        # The budget is held at the site's own delta, which is no less than the plan's.
        declared = plan.declared_units(self._terms.declared_patients)
        warning = check_delta(self.name, self._ledger.delta, declared)
        self._ledger.follow(plan.run, task.tip)
        answered = self._ledger.answered(plan.run)
        if task.round < answered:
            raise FederationError(
                f"the aggregator asks for round {task.round} of run {plan.run}, and round {answered} was "
                "answered: it went back to an older checkpoint. Nothing was sent. Ask the operator for a new "
                "run."
            )
        if task.round == answered:
            return Reply(ReplyStatus.ANSWERED, plan.run, task.round)
        self._check_start(task)
        units = self._units_for(plan)
        if warning and plan.run not in self._asked:
            self._say(warning)
        provenance = self._provenance(plan)
        first, began = self._asked.setdefault(plan.run, (task.round, time.monotonic()))
        try:
            part = self._ledger.reserve(
                plan.run, task.round, plan.event, plan.grouping(self._terms.declared_patients),
                None if units.owners is None else units.patients,
                after=plan.rounds - task.round, accountant=plan.accountant, also=units.also,
            )  # fmt: skip
        except BudgetExceeded as error:
            self._say(f"{self.name} stops by itself: {error}")
            return Reply(ReplyStatus.STOPPED, plan.run, task.round)
        settings = plan.settings_for(self._terms.declared_patients)
        carried = self._clips.get(plan.run) if plan.clipping == "adaptive" else None
        taking = self._taking(units, part)
        trained = train(plan.model, task.parameters, taking, settings, clip_norm=carried)
        self._clips[plan.run] = trained.clip_norm
        each, more = (time.monotonic() - began) / (task.round - first + 1), plan.rounds - task.round
        self._say(
            f"{self.name}, round {task.round} of {plan.rounds}: trained; {self._spent(plan)}, reserved of a "
            f"lifetime's {self._ledger.epsilon:g}" + (f"; about {duration(each * more)} left" if more else "")
        )
        provenance = replace(provenance, seeded=provenance.seeded or trained.seeded)
        return Reply(ReplyStatus.TRAINED, plan.run, task.round, plan.event, trained.update, provenance)

    def _spent(self, plan: Plan) -> str:
        """What whoever spent most of the site's budget spent: at the budget's delta, which may be another."""
        events = self._ledger.most_spent()
        return composed_statement(events, unit=plan.unit, delta=self._ledger.delta, scope=LIFETIME)

    def _provenance(self, plan: Plan) -> Provenance:
        """What trains here, and what checks of it found."""
        return installed() if self._test is None else self._test(plan)

    def _check_start(self, task: Task) -> None:
        """FederationError where the task's parameters are no model of the plan's."""
        expected = initial_parameters(task.plan.model, len(self._features))
        try:
            check_parameters(task.parameters, expected=expected)
        except ValueError as error:
            raise FederationError(
                f"the aggregator's model cannot be trained: {error}. Nothing was reserved. Use the same "
                "version of Cordon at sites and aggregator."
            ) from error

    def _units_for(self, plan: Plan) -> Units:
        """This site's units for ``plan``, those of the last task where it asked for the same."""
        wanted = plan.grouping(self._terms.declared_patients)
        if self._units is None or self._units[0] != wanted:
            self._units = self._part = None  # two at once might not fit
            units = self._load_units(plan)
            units.require(plan.unit)
            self._units = (wanted, units)
        return self._units[1]

    def _taking(self, units: Units, part: frozenset[str]) -> Units:
        """The units of the patients that take ``part``; who is left out is told here and nowhere else."""
        if units.owners is None:
            return units
        if self._part is None or self._part[0] != part:
            out = len(units.patients) - len(part)
            if out:
                self._say(
                    f"{self.name}: {out} of {len(units.patients)} patients take no part, for what they spent "
                    "before leaves no room for this run in their budget (cordon ledger show)"
                )
            self._part = None  # two at once might not fit
            self._part = part, units.of(part)
        return self._part[1]

    def _finish(self, message: Message) -> Reply:
        outcome = Outcome.from_records(message.content)
        self._ledger.follow(outcome.run, outcome.tip)
        self.outcome = outcome
        return Reply(ReplyStatus.RECEIVED, outcome.run, 0)

    def model(self) -> Model:
        """The final model that came with the outcome; FederationError where it is none."""
        assert self.outcome is not None
        words = self.outcome
        try:
            expected = initial_parameters(words.architecture, len(self._features))
            check_parameters(words.parameters, expected=expected)
            privacy = stated(parse_json(words.privacy))
        except (ValueError, TypeError) as error:
            raise FederationError(
                f"the aggregator's final model cannot be used: {error}. Ask its operator for the model."
            ) from error
        return Model(words.architecture, self._features, words.parameters, privacy)
