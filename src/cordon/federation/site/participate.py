"""A site's part in a run: a SuperNode, and this process answering the tasks that it receives."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cordon import foreign
from cordon.console.progress import Say
from cordon.errors import BudgetExceeded, FederationError, Leaving, Quarantined, Unreachable
from cordon.federation.flower.processes import DEALT_WITH, Process, supernode, way_out
from cordon.federation.flower.tasks import answer
from cordon.federation.messages import Outcome, Reply, ReplyStatus, SiteStatus, Task
from cordon.federation.pace import brisk
from cordon.federation.plan import Plan
from cordon.federation.site.walltime import Stay
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

    from cordon.transport.proxy import Proxy

POLL = 0.1
# Answers leave on this grid (seconds after the task came), so that the time an answer takes, which
# Flower reports with it, does not tell how many rows were drawn.
ANSWER_GRID = 0.5
# The SuperNode sends a reply on its own clock, and tries for so long (seconds) at most.
DELIVERY = 20.0
# When a SuperNode leaves, the SuperLink drops what it sent and the aggregator has not collected (seconds).
COLLECTION = 5.0
RESTART_PAUSE = 5.0
REFUSED = "the site refused the task or failed at it"


def reading(tables: Sequence[Path], one_id: Mapping[str, str]) -> Callable[[Plan], Units]:
    """What makes a site's units, for a plan's model and unit, from its ``tables`` of labelled variants.

    ``one_id`` as for `cordon.training.units.Units.read`.
    """
    return lambda plan: Units.read(tables, unit=plan.unit, architecture=plan.model, one_id=one_id)


class Participant:
    """Answers tasks with a site's own units, within its own budget.

    ``load_units`` makes the privacy units for a plan's model and kind of unit, and is asked again where a
    task's plan has others: rows grouped by one unit are never trained on under the name of another.
    Its own terms bound every plan: the kind of ``unit`` that its budget is counted in, the ``accountant``
    that it is held against and ``run_epsilon``, the most that a run may cost, if they are named; the sites
    that a person is counted at (``sites_per_patient`` or more); and where the site agreed on a plan
    beforehand (``agreed``), it trains by no other. Before a plan's first reservation ``test`` is asked what
    trains here, and raises where that must not: at once where a plan was agreed on. ``outcome`` is the
    aggregator's last word, when it came. ``answer_grid`` is for audits, which answer nobody.
    """

    def __init__(
        self, name: str, load_units: Callable[[Plan], Units], features: tuple[str, ...], *,
        declared_patients: int, ledger: SiteLedger, say: Say, agreed: Plan | None = None,
        unit: str | None = None, accountant: str | None = None, run_epsilon: float | None = None,
        sites_per_patient: int = 1, test: Callable[[Plan], Provenance] | None = None,
        answer_grid: float | None = None,
    ) -> None:  # fmt: skip
        self.name, self._unit, self._sites_per_patient = name, unit, sites_per_patient
        self._run_epsilon, self._accountant = run_epsilon, accountant
        self._load_units = load_units
        # The units of the last task, and what they were made for.
        self._units: tuple[Grouping, Units] | None = None
        # Those of the patients who took part last, and who they are.
        self._part: tuple[frozenset[str], Units] | None = None
        self._features = features
        self._declared_patients = declared_patients
        self._ledger = ledger
        self._say = say
        self._agreed = agreed
        self._test = test
        self._grid = answer_grid
        # Where the adaptive clip of a run stands; a site that starts anew begins at the plan's first one.
        self._clips: dict[str, float] = {}
        # A run's first round that this process was asked for, and when: how long the rest takes.
        self._asked: dict[str, tuple[int, float]] = {}
        self.outcome: Outcome | None = None

    def warm_up(self) -> None:
        """Import what training takes, which is seconds: before the first task, not in it."""
        if self._agreed is None:
            import opacus  # noqa: F401  some models take it
            import torch  # noqa: F401
        else:
            from cordon.privacy.gradients import unit_gradients

            self._agreed.check_expiry()
            model, features = self._agreed.model, len(self._features)
            unit_gradients(build(model, features), width(model, features))
            self._provenance(self._agreed)

    def handle(self, message: Message) -> RecordDict:
        """The reply to one message, on the answer grid."""
        began = time.monotonic()
        reply = self._finish(message) if message.metadata.message_type == "query" else self._train(message)
        elapsed, grid = time.monotonic() - began, ANSWER_GRID if self._grid is None else self._grid
        if grid:
            time.sleep(math.ceil(elapsed / grid) * grid - elapsed)
        if reply.status == ReplyStatus.TRAINED:
            self._ledger.mark_sent(reply.run, reply.round)
        return reply.to_records()

    def _train(self, message: Message) -> Reply:
        task = Task.from_records(message.content)
        plan = task.plan
        if task.declared_patients != self._declared_patients:
            raise FederationError(
                f"the aggregator holds {task.declared_patients} declared patients for {self.name}, the site "
                f"declared {self._declared_patients}. Agree on one sites sheet."
            )
        if self._agreed is not None and plan != replace(self._agreed, run=plan.run):
            raise FederationError(
                "the aggregator's plan is not the one that was agreed. Agree on one plan.json."
            )
        plan.check_expiry()
        if self._unit is not None and plan.unit != self._unit:
            raise FederationError(
                f"the plan's unit of privacy is one {plan.unit}, and {self.name}'s is one {self._unit}. "
                "Agree on one (--privacy_unit). Nothing was reserved and nothing was sent."
            )
        if self._accountant is not None and plan.accountant != self._accountant:
            raise FederationError(
                f"the plan's budget is held against {plan.accountant.upper()}, and {self.name}'s against "
                f"{self._accountant.upper()}. Agree on one (--accountant). Nothing was reserved and nothing "
                "was sent."
            )
        if self._run_epsilon is not None and plan.cost(self._ledger.delta) > self._run_epsilon:
            raise FederationError(
                f"the plan's {plan.rounds} rounds cost {plan.stated(self._ledger.delta)} as a run, and "
                f"{self.name} allows a run {self._run_epsilon:g} (--run_epsilon). Agree on one. Nothing was "
                "reserved and nothing was sent."
            )
        if plan.sites_per_patient < self._sites_per_patient:
            raise FederationError(
                f"the plan counts a person at {plan.sites_per_patient} sites, and {self.name}'s may be at "
                f"{self._sites_per_patient}. Agree on one (--sites_per_patient). Nothing was reserved and "
                "nothing was sent."
            )
        if not 1 <= task.round <= plan.rounds:
            raise FederationError(
                f"the aggregator asks for round {task.round} of a plan of {plan.rounds} rounds. Nothing was "
                "sent. Ask its operator for a new run."
            )
        if plan.delta > self._ledger.delta:
            raise FederationError(
                f"the plan's delta {plan.delta:g} is above the site's {self._ledger.delta:g}. Agree on one."
            )
        # The budget is held at the site's own delta, which is no less than the plan's.
        declared = plan.declared_units(self._declared_patients)
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
                plan.run, task.round, plan.event, plan.grouping(self._declared_patients),
                None if units.owners is None else units.patients,
                after=plan.rounds - task.round, accountant=plan.accountant, also=units.also,
            )  # fmt: skip
        except BudgetExceeded as error:
            self._say(f"{self.name} stops by itself: {error}")
            return Reply(ReplyStatus.STOPPED, plan.run, task.round)
        settings = plan.settings_for(self._declared_patients)
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
        wanted = plan.grouping(self._declared_patients)
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


def join(
    participant: Participant, *,
    address: str, certificate: Path | None, key: Path, workdir: Path, join_deadline: float, say: Say,
    policy: Path | None = None, transport: Path | None = None, stay: Stay | None = None,
) -> Model:  # fmt: skip
    """Take part in a run at ``address`` until the aggregator ends it, and return its model.

    The SuperNode trusts ``certificate``, or, with an attestation ``policy``, the certificate of the
    aggregator that satisfies it: asked anew for each SuperNode, before it starts. Connections go through
    the shared folder ``transport`` where there is one, else through the environment's proxy. Raises
    AttestationError where the aggregator does not satisfy the policy, Unreachable where no task comes within
    ``join_deadline`` seconds of starting or of the last one, or in a whole ``stay``, Leaving where the stay
    is over between rounds, Quarantined where the aggregator refused the site's updates, FederationError
    where the run failed.
    """
    participant.warm_up()
    workdir.mkdir(parents=True, exist_ok=True)
    stay = stay or Stay()
    stay.heed_sigterm()
    with way_out(address, transport, participant.name, workdir) as proxy:
        visit = _Visit(participant, address, key, workdir, join_deadline, say, stay, proxy)
        while participant.outcome is None:
            pinned = certificate if policy is None else visit.attested(policy)
            if pinned is not None:
                visit.with_supernode(pinned)
            visit.leave_if_over()
    return _result(participant)


@dataclass
class _Visit:
    """One task's part in a run, over one SuperNode or several."""

    participant: Participant
    address: str
    key: Path
    workdir: Path
    join_deadline: float
    say: Say
    stay: Stay
    proxy: Proxy | None

    def __post_init__(self) -> None:
        self._quiet_since = time.monotonic()
        self._heard = False

    def with_supernode(self, certificate: Path) -> None:
        """Answer tasks until the outcome is known, the SuperNode ends, or the stay is over."""
        node, tasks = supernode(self.address, certificate, self.key, self.workdir, self.proxy)
        self.say(f"SuperNode {node.pid} connects to {self.address}")
        answered, pace = 0, brisk()
        with node, closing(tasks):
            while not (self._done or self._late or node.exit_status() is not None):
                if answer(tasks, self._handle, refused=REFUSED):
                    self._quiet_since, self._heard = time.monotonic(), True
                    answered += 1
                    pace.found()
                pace.wait()
            if answered and self._done and time.monotonic() - self._quiet_since < DELIVERY:
                _await_delivery(node, answered)
                time.sleep(COLLECTION)
        if self._done:
            return
        if self._late:
            raise Unreachable(
                f"no task from the aggregator at {self.address} within {self.join_deadline:g} s; "
                f"{self.workdir / 'supernode.log'} says what the SuperNode saw. Check the address, the key's "
                f"enrolment and the aggregator.{self._elsewhere}"
            )
        # A SuperNode that died is refused until its last heartbeat has lapsed.
        self.say(f"SuperNode {node.pid} ended with status {node.exit_status()}; trying again")
        time.sleep(RESTART_PAUSE)

    @property
    def _elsewhere(self) -> str:
        """What to do where the aggregator may run on another node than this task."""
        if self.proxy is not None or not self.address.startswith("127."):
            return ""
        return " 127.0.0.1 is this node alone: where tasks run on several nodes, give --transport files."

    def leave_if_over(self) -> None:
        """Leaving where the stay is over, and Unreachable where it was for nothing."""
        if self.participant.outcome is not None or not self.stay.over:
            return
        if not self._heard and not self.stay.told:
            raise Unreachable(
                f"no task from the aggregator at {self.address} in all of this task's walltime. Start the "
                "aggregator first, or give the site more time."
            )
        raise Leaving(
            f"{self.participant.name} leaves between rounds: {self.stay.over}. Nothing is lost: started "
            "again, it goes on with the run."
        )

    def attested(self, policy: Path) -> Path | None:
        """The certificate of the attested aggregator, once it is there; None where the stay is over."""
        from cordon.attestation.client import BrokenOff, fetch
        from cordon.attestation.policy import Policy

        required = Policy.read(policy)
        while not self.stay.over:
            try:
                attested = fetch(self.address, required, proxy=self.proxy)
            except (Unreachable, BrokenOff):
                if self._late:
                    raise
                # At random, so that a whole consortium that was turned away does not come back at once.
                time.sleep(random.uniform(0.5, 1.5) * RESTART_PAUSE)
                continue
            found = attested.found
            warning = ", TEST ONLY" if found.test_only else ""
            named = f"{found.kind}, measurement {found.measurement}{warning}"
            self.say(f"the aggregator at {self.address} is attested: {named}")
            path = self.workdir / "attested.crt"
            path.write_bytes(attested.certificate)
            return path
        return None

    def _handle(self, message: Message) -> RecordDict:
        with self.stay.round():
            return self.participant.handle(message)

    @property
    def _done(self) -> bool:
        return self.participant.outcome is not None or bool(self.stay.over)

    @property
    def _late(self) -> bool:
        return time.monotonic() - self._quiet_since > self.join_deadline


def _await_delivery(node: Process, replies: int) -> None:
    """Wait until the SuperNode has dealt with so many replies, or is late with them."""
    deadline = time.monotonic() + DELIVERY
    while node.said(DEALT_WITH) < replies and node.exit_status() is None and time.monotonic() < deadline:
        time.sleep(POLL)


def _result(participant: Participant) -> Model:
    assert participant.outcome is not None
    words = participant.outcome
    if words.status == SiteStatus.QUARANTINED:
        raise Quarantined(
            f"the aggregator quarantined this site: {foreign.words(words.reason)}. "
            "Ask its operator, who can read why in the ledger."
        )
    if words.status != SiteStatus.FINISHED:
        raise FederationError(
            f"the run failed at the aggregator: {foreign.words(words.reason)}. Ask its operator to start it "
            "again."
        )
    return participant.model()
