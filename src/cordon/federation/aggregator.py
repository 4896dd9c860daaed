"""The aggregator's run: gather the sites, train round by round, judge, average, tell everyone the end."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cordon.errors import Unreachable, UserError
from cordon.federation import processes, tasks
from cordon.federation.audit import ACCEPTED, QUARANTINED, Auditor, Decision, average, mean_of
from cordon.federation.messages import MalformedMessage, Outcome, Reply, Task
from cordon.federation.plan import Plan, Site
from cordon.federation.record import Record
from cordon.ledger import ChainedLog
from cordon.model import Model, Parameters, initial_parameters
from cordon.pretraining import REFINE, PublicStart, refine_or_keep

if TYPE_CHECKING:
    from flwr.app import Message, RecordDict
    from flwr.serverapp import Grid

POLL = 0.1
FAREWELL_DEADLINE = 20.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Limits:
    """When to stop waiting (seconds), and the fewest sites that a round may average."""

    min_sites: int
    join_deadline: float
    round_deadline: float


class Aggregation:
    """One run over a Grid; ``record`` and ``parameters`` hold what came of it."""

    def __init__(
        self, grid: Grid, plan: Plan, sites: list[Site], features: tuple[str, ...], *,
        ledger: ChainedLog, limits: Limits, say: Say, start: PublicStart | None = None,
    ) -> None:  # fmt: skip
        if plan.start != (start.model.hash if start else ""):
            raise UserError(
                "the plan starts from another model than the one that the aggregator was given. Give it the "
                "--pretrained that the plan was made with."
            )
        self._grid = grid
        self._start = start
        self._plan = plan
        self._sites = sites
        self._features = features
        self._limits = limits
        self._say = say
        self.parameters = start.model.parameters if start else initial_parameters(plan.model, len(features))
        self._late: deque[Parameters] = deque(maxlen=plan.averaged_rounds)
        self._auditor = Auditor(plan, ledger, expected=self.parameters)
        self._ended: dict[str, Decision] = {}
        self.record = Record(plan)

    def run(self) -> Model:
        """Train all rounds and return the model; Unreachable where a round lacks its quorum."""
        began = time.monotonic()
        try:
            self._gather()
            for number in range(1, self._plan.rounds + 1):
                self._round(number)
            final = mean_of(self._late)
            model = self._chosen(Model(self._plan.model, self._features, final, self._privacy()))
            self.record.model_hash = model.hash
            self._close(model)
        except BaseException as error:
            self._tell_failure(str(error) or type(error).__name__)
            raise
        finally:
            self.record.seconds = time.monotonic() - began
        return model

    def _chosen(self, refined: Model) -> Model:
        """The refined model, or the public start where that does better on held-out public rows.

        Either way the sites have spent what the model says: the choice looked at the refined one.
        """
        if self._start is None:
            return refined
        self.record.start = {"model_hash": self._start.model.hash}
        if self._start.rows is None:
            return refined
        compared = refine_or_keep(self._start.model, refined, *self._start.rows)
        self.record.start |= compared.to_dict()
        self._say(
            f"on {compared.rows} held-out public alleles: AUROC {compared.pretrained_auroc:.4f} at the "
            f"start, {compared.refined_auroc:.4f} now: {compared.decision}"
        )
        if compared.decision == REFINE:
            return refined
        return replace(self._start.model, privacy=refined.privacy)

    def _gather(self) -> None:
        """Wait for all enrolled sites; after the deadline, go on with a quorum or give up."""
        deadline = time.monotonic() + self._limits.join_deadline
        shown = -1
        while (online := len(self._online())) < len(self._sites):
            if online != shown:
                self._say(f"waiting for sites: {online} of {len(self._sites)} are here")
                shown = online
            if time.monotonic() > deadline:
                break
            time.sleep(POLL)
        if online < self._limits.min_sites:
            raise Unreachable(
                f"{online} of {len(self._sites)} sites joined within {self._limits.join_deadline:g} s, and "
                f"{self._limits.min_sites} are needed. Start the missing sites, or lower --min_sites."
            )
        self._say(f"{online} of {len(self._sites)} sites are here; {self._plan.rounds} rounds to go")

    def _round(self, number: int) -> None:
        began = time.monotonic()
        nodes = self._online()
        active = [site for site in self._sites if site.name not in self._ended]
        replies = self._exchange(
            {
                nodes[site.name]: Task(
                    self._plan, number, site.declared_patients, self.parameters
                ).to_records()
                for site in active
                if site.name in nodes
            },
            "train",
            self._limits.round_deadline,
            group=str(number),
        )
        decisions, updates = [], {}
        for site in active:
            reply, fault = _read(replies.get(nodes.get(site.name, -1)))
            decision = self._auditor.judge(site, number, reply, fault)
            decisions.append(decision)
            if decision.decision == ACCEPTED:
                assert reply is not None
                assert reply.update is not None
                updates[site.name] = reply.update
            elif decision.decision == QUARANTINED or (reply is not None and reply.update is None):
                self._ended[site.name] = decision
        seconds = time.monotonic() - began
        self._note_round(number, decisions, seconds)
        if len(updates) < self._limits.min_sites:
            raise Unreachable(
                f"round {number}: {len(updates)} usable updates, and {self._limits.min_sites} are needed. "
                + " ".join(f"{d.site}: {d.decision}, {d.reason}." for d in decisions if d.reason)
            )
        self.parameters = average(self.parameters, updates, {site.name: site.weight for site in self._sites})
        self._late.append(self.parameters)

    def _note_round(self, number: int, decisions: list[Decision], seconds: float) -> None:
        self.record.rounds.append(
            {"round": number, "seconds": round(seconds, 2), "sites": [asdict(d) for d in decisions]}
        )
        accepted = [d for d in decisions if d.decision == ACCEPTED]
        spent = max((d.epsilon_rdp for d in accepted), default=0.0)
        self._say(
            f"round {number} of {self._plan.rounds}: {len(accepted)} of {len(self._sites)} updates accepted "
            f"in {seconds:.1f} s; at most {self._plan.statement(spent)} of {self._plan.epsilon:g} spent"
        )
        for decision in decisions:
            if decision.decision != ACCEPTED:
                self._say(f"round {number}: {decision.site} {decision.decision}: {decision.reason}")

    def _close(self, model: Model) -> None:
        last = {row["site"]: row for entry in self.record.rounds for row in entry["sites"]}
        for site in self._sites:
            ended = self._ended.get(site.name)
            if ended is not None:
                status, reason = ("quarantined" if ended.decision == QUARANTINED else "stopped"), ended.reason
            elif last.get(site.name, {}).get("decision") == ACCEPTED:
                status, reason = "finished", ""
            else:
                status, reason = "missing", last.get(site.name, {}).get("reason", "it never joined")
            rdp, pld = self._auditor.spent(site)
            self.record.sites.append(
                {
                    "site": site.name, "weight": site.weight, "declared_patients": site.declared_patients,
                    "status": status, "reason": reason, "epsilon_rdp": rdp, "epsilon_pld": pld,
                    "delta": self._plan.delta,
                }
            )  # fmt: skip
        self._farewell("finished", "", model)

    def _tell_failure(self, reason: str) -> None:
        """Let the sites end; whatever fails in that must not hide the reason."""
        try:
            self._farewell("failed", reason, None)
        except Exception as error:
            self._say(f"the sites could not be told: {error}")

    def _farewell(self, status: str, reason: str, model: Model | None) -> None:
        """Tell every site how its part ended; a site that is gone hears nothing, and that is all."""
        nodes = self._online()
        words = {}
        for site in self._sites:
            ended = self._ended.get(site.name)
            quarantined = ended is not None and ended.decision == QUARANTINED
            sent = model if model is not None and not quarantined else None
            if site.name in nodes:
                words[nodes[site.name]] = Outcome(
                    run=self._plan.run,
                    status="quarantined" if quarantined else status,
                    reason=ended.reason if ended is not None else reason,
                    privacy=json.dumps(sent.privacy if sent else {}),
                    architecture=self._plan.model,
                    parameters=sent.parameters if sent else {},
                ).to_records()
        self._exchange(words, "query", FAREWELL_DEADLINE, group="end")

    def _exchange(
        self, contents: dict[int, RecordDict], kind: str, deadline: float, *, group: str
    ) -> dict[int, Message]:
        """Send each node its content and gather what comes back within ``deadline`` seconds, by node."""
        from flwr.app import Message

        if not contents:
            return {}
        # Messages die with the round, so a late update is never taken for another round's.
        messages = [
            Message(content, node, kind, ttl=deadline, group_id=group) for node, content in contents.items()
        ]
        # The SuperLink gives no id to a message that it did not take, for a node that has just gone.
        pushed = zip(self._grid.push_messages(messages), contents, strict=True)
        ids = {key: node for key, node in pushed if key}
        replies: dict[int, Message] = {}
        until = time.monotonic() + deadline
        while len(replies) < len(ids) and time.monotonic() < until:
            open_ids = [key for key, node in ids.items() if node not in replies]
            for message in self._grid.pull_messages(open_ids):
                # An error made by the SuperLink names another sender: what it answers is what counts.
                replies[ids[message.metadata.reply_to_message_id]] = message
            time.sleep(POLL)
        return replies

    def _online(self) -> dict[str, int]:
        """Node ids of the enrolled sites that are connected now, by site; keys decide, not names."""
        by_key = {site.public_key: site.name for site in self._sites}
        return {
            by_key[node.public_key.decode()]: node.node_id
            for node in self._nodes()
            if node.public_key.decode() in by_key
        }

    def _nodes(self) -> Iterable[Any]:
        return self._grid.get_nodes()

    def _privacy(self) -> dict[str, Any]:
        """What every copy of the model says of its privacy."""
        plan = self._plan
        rows = [row for entry in self.record.rounds for row in entry["sites"]]
        taken = {row["site"] for row in rows if row["decision"] == ACCEPTED}
        spent = [self._auditor.spent(site) for site in self._sites if site.name in taken]
        return {
            "unit": plan.unit, "epsilon": max(rdp for rdp, _ in spent), "delta": plan.delta,
            "mechanism": plan.mechanism, "adjacency": plan.adjacency, "accountant": "RDP",
            "rounds": plan.rounds, "sites": len(taken), "run": plan.run,
        }  # fmt: skip


def _read(message: Message | None) -> tuple[Reply | None, str]:
    """A message as a reply, or the fault for which it is none; missing and unreachable are no fault."""
    if message is None:
        return None, ""
    if message.has_error():
        from flwr.common.constant import ErrorCode

        failed = message.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
        return None, "the site refused the task or failed at it; its own log says why" if failed else ""
    try:
        return Reply.from_records(message.content), ""
    except MalformedMessage as error:
        return None, str(error)


def serve(
    plan: Plan, sites: list[Site], features: tuple[str, ...], *,
    credentials: Path, host: str, port: int, state: Path, workdir: Path, limits: Limits, say: Say,
    start: PublicStart | None = None,
) -> tuple[Model, Record]:  # fmt: skip
    """Run a SuperLink at ``host:port`` and one aggregation on it, from start to end.

    ``state`` outlives runs and holds the aggregator's ledger; ``workdir`` holds this run's logs.
    """
    for site in sites:
        plan.check_delta(site.name, site.declared_patients)
    workdir.mkdir(parents=True, exist_ok=True)
    ledger = ChainedLog(state / "ledger.sqlite")
    with processes.superlink(credentials, host, port, workdir) as link:
        say(f"the aggregator listens on {host}:{port}")
        tasks.register(link, [site.public_key for site in sites])
        tasks.start_run(link)
        with tasks.server_task(link) as grid:
            aggregation = Aggregation(
                grid, plan, sites, features, ledger=ledger, limits=limits, say=say, start=start
            )
            model = aggregation.run()
    return model, aggregation.record
