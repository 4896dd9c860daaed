"""The aggregator's run: gather the sites, train round by round, judge, average, tell everyone the end."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cordon.console.progress import Say
from cordon.errors import FederationError, Unreachable, UserError
from cordon.federation.aggregator.attendance import Attendance, RoundLimits
from cordon.federation.aggregator.checkpoint import Checkpoint, Checkpoints
from cordon.federation.aggregator.ending import ended_parts, stated
from cordon.federation.aggregator.exchange import Exchange
from cordon.federation.aggregator.judge import Answer, Auditor, Decision
from cordon.federation.aggregator.record import Record
from cordon.federation.aggregator.registry import Registry
from cordon.federation.averaging import RULES, check_rule, combine, mean_of
from cordon.federation.flower.tasks import LinkLost
from cordon.federation.messages import Outcome, Reply, ReplyStatus, SiteStatus, Task
from cordon.federation.plan import Plan, Site, identity
from cordon.ledger.log import ChainedLog
from cordon.ledger.rows import Judgement
from cordon.model.architectures import Parameters
from cordon.model.initial_weights import initial_parameters
from cordon.model.released import Model
from cordon.privacy.guarantee import LIFETIME
from cordon.steps import duration
from cordon.training.pretrain import PublicStart, chosen

FAREWELL_DEADLINE = 20.0


@dataclass(frozen=True)
class RunSetup:
    """What a run is made of.

    That is its public ``plan``, the ``sites`` that are asked, the names of the ``features`` that a row has,
    when to stop waiting (``limits``), and the public model that the plan starts from (``start``), if any.
    """

    plan: Plan
    sites: Sequence[Site]
    features: tuple[str, ...]
    limits: RoundLimits
    start: PublicStart | None = None


class Aggregation:
    """One run, as far as it is; ``record`` and ``parameters`` hold what came of it.

    It begins where ``checkpoints`` has an unfinished run of the setup's plan, else anew. UserError where
    the plan, the sites and the start do not go together, or where the checkpoint is an older copy.
    """

    def __init__(self, setup: RunSetup, *, ledger: ChainedLog, checkpoints: Checkpoints, say: Say) -> None:
        plan, sites, features, start = setup.plan, setup.sites, setup.features, setup.start
        if plan.start != (start.model.hash if start else ""):
            raise UserError(
                "the plan starts from another model than the one that the aggregator was given. Give it the "
                "--pretrained that the plan was made with."
            )
        if len({identity(site) for site in sites}) < len(sites):
            raise UserError("two sites are enrolled with one key. Enrol each site with a key of its own.")
        check_rule(plan.aggregation, plan.malicious_sites, len(sites))
        self._start, self._sites, self._features = start, sites, features
        self._ledger, self._checkpoints, self._say = ledger, checkpoints, say
        self._limits, self._attendance = setup.limits, Attendance(setup.limits, say)
        self._registry = Registry(ledger)
        fresh = start.model.parameters if start else initial_parameters(plan.model, len(features))
        held = checkpoints.resume(plan) or Checkpoint(plan, 0, fresh)
        self.plan, self._rounds_over, self.parameters = held.plan, held.round, held.parameters
        self._late: deque[Parameters] = deque(held.late, maxlen=plan.averaged_rounds)
        self._ended = {site: Decision.from_dict(decision) for site, decision in held.ended.items()}
        self.record = Record(held.plan, rounds=held.rounds)
        self._auditor = Auditor(held.plan, ledger, expected=fresh)
        self._charges = self._auditor.charges
        if held.head:
            say(f"run {held.plan.run} goes on after round {held.round}")
        else:
            # From its first task on the run has its name, so that no site answers a round twice.
            checkpoints.prepare(self._checkpoint(0))
            checkpoints.settle()

    def run(self, exchange: Exchange) -> Model:
        """Train the rounds that are left and return the model; Unreachable where a round lacks its quorum.

        LinkLost where the exchange ends; the run can then go on over another one. The checkpoint stays, for
        the caller to discard when the model is where it shall be. It stays, too, where anything else than a
        FederationError ends the run (a full disk, Ctrl-C): sites have spent on it, and it can go on.
        """
        began = time.monotonic()
        try:
            self._refuse_banned()
            left = 0 if self._spent_out else self.plan.rounds - self._rounds_over
            self._attendance.gather(exchange, self._active, left)
            while self._rounds_over < self.plan.rounds and not self._spent_out:
                self._round(exchange, self._rounds_over + 1)
            final = mean_of(self._late)
            refined = Model(
                self.plan.model, self._features, final, stated(self.record, self._charges, self._ledger)
            )
            model, self.record.start = chosen(self._start, refined, self._say)
            self.record.model_hash = model.hash
            self.record.sites += ended_parts(self.record, self._sites, self._ended, self._charges)
            self._farewell(exchange, SiteStatus.FINISHED, "", model)
        except LinkLost:
            raise
        except FederationError as error:
            self._tell_failure(exchange, str(error))
            self._checkpoints.discard()
            raise
        finally:
            self.record.seconds += time.monotonic() - began
        return model

    def _round(self, exchange: Exchange, number: int) -> None:
        began = time.monotonic()
        self._refuse_banned()
        active, patience = self._active, self._attendance.patience
        if not self._attendance.has_quorum(exchange, active, self._quorum):
            raise Unreachable(
                f"round {number}: too few sites came back within {patience:g} s, and {self._quorum} "
                "are needed. See their own logs; raise --round_deadline where their jobs wait longer."
            )
        answers = self._ask(exchange, number, active)

        def keep(decisions: list[Decision]) -> None:
            self._take(number, answers, decisions, time.monotonic() - began)
            self._checkpoints.prepare(self._checkpoint(number))

        decisions = self._auditor.judge(number, answers, keep=keep)
        self._checkpoints.settle()
        self._rounds_over = number
        self._sentence(decisions)
        self._tell_round(number, decisions, time.monotonic() - began)
        accepted = sum(d.decision == Judgement.ACCEPTED for d in decisions)
        lost = sum(
            reply is not None and reply.status == ReplyStatus.ANSWERED for reply, _ in answers.values()
        )
        if accepted >= self._quorum or accepted + lost >= self._limits.min_sites:
            return
        if self._spent_out:
            self._say(
                f"the run ends after round {number} of {self.plan.rounds}: so many sites stopped at their "
                "own budgets that too few are left for a round"
            )
            return
        # A site that was cut off may be on its way back: what the others gave in this round is spent, but the
        # run is not lost.
        away = sum(reply is None and not fault for reply, fault in answers.values())
        here = accepted + away >= self._quorum
        if here and self._attendance.has_quorum(exchange, self._active, self._quorum):
            self._say(
                f"round {number}: {accepted} usable updates, which move nothing; the next round is tried"
            )
            return
        raise Unreachable(
            f"round {number}: {accepted} usable updates, and {self._quorum} are needed. "
            + " ".join(f"{d.site}: {d.decision}, {d.reason}." for d in decisions if d.reason)
        )

    def _ask(self, exchange: Exchange, number: int, active: Sequence[Site]) -> dict[Site, Answer]:
        """Ask those of ``active`` that are connected to train round ``number``; what came of each.

        It is on record before it is sent: what leaves a site after that may have been released.
        """
        online = exchange.online()
        answers: dict[Site, Answer] = dict.fromkeys(active, (None, ""))
        for site in active:
            if not self._charges.has_room(site):
                answers[site] = (Reply(ReplyStatus.STOPPED, self.plan.run, number), "")
        asked = [site for site in active if site in online and answers[site][0] is None]
        self._charges.ask(number, asked)
        tip = self._ledger.tip
        tasks = {
            site: Task(self.plan, number, site.declared_patients, self.parameters, tip).to_records()
            for site in asked
        }
        return answers | exchange.ask(tasks, "train", self._limits.round_deadline, group=str(number))

    @property
    def _active(self) -> list[Site]:
        """The sites whose part has not ended."""
        return [site for site in self._sites if site.name not in self._ended]

    def _refuse_banned(self) -> None:
        """End the part of sites that are banned, also of those that an operator banned just now."""
        for site, reason in self._registry.bans(self._active).items():
            words = f"banned ({reason}). Ask the operator, who can release the site with a reason."
            self._ended[site.name] = Decision(
                site.name, Judgement.QUARANTINED, words, *self._charges.spent(site),
                mechanism=self._charges.mechanism(site),
            )  # fmt: skip
            self._say(f"{site.name} takes no part: {words}")

    def _sentence(self, decisions: list[Decision]) -> None:
        """Ban who was quarantined too often."""
        quarantined = {decision.site for decision in decisions if decision.decision == Judgement.QUARANTINED}
        for site in self._sites:
            if site.name in quarantined and self._registry.sentence(site, ban_after=self._limits.ban_after):
                self._say(f"{site.name} is banned: {self._registry.banned(site)}")

    @property
    def _spent_out(self) -> bool:
        """Whether too few sites are left for a round because others stopped at their own budgets."""
        stopped = sum(decision.decision == Judgement.MISSING for decision in self._ended.values())
        left = len(self._sites) - len(self._ended)
        moved = any(
            d["decision"] == Judgement.ACCEPTED for entry in self.record.rounds for d in entry["sites"]
        )
        return moved and left < self._quorum <= left + stopped

    @property
    def _quorum(self) -> int:
        """The fewest updates that a round's average is made of."""
        return max(
            self._limits.min_sites, RULES[self.plan.aggregation].least_sites(self.plan.malicious_sites)
        )

    def _take(
        self, number: int, answers: Mapping[Site, Answer], decisions: list[Decision], seconds: float
    ) -> None:
        """Let a round's accepted updates move the parameters, where they are enough, and note the round."""
        updates: dict[str, Parameters] = {}
        for (site, (reply, _)), decision in zip(answers.items(), decisions, strict=True):
            if decision.decision == Judgement.ACCEPTED:
                assert reply is not None
                assert reply.update is not None
                updates[site.name] = reply.update
            elif decision.decision == Judgement.QUARANTINED or (
                reply is not None and reply.status == ReplyStatus.STOPPED
            ):
                self._ended[site.name] = decision
        if len(updates) >= self._quorum:
            weights = {site.name: site.weight for site in self._sites}
            self.parameters = combine(
                self.plan.aggregation, self.parameters, updates, weights, malicious=self.plan.malicious_sites
            )
        self._late.append(self.parameters)
        self.record.rounds.append(
            {"round": number, "seconds": round(seconds, 2), "sites": [d.to_dict() for d in decisions]}
        )

    def _checkpoint(self, number: int) -> Checkpoint:
        ended = {site: decision.to_dict() for site, decision in self._ended.items()}
        return Checkpoint(
            self.plan, number, self.parameters, list(self._late), ended, self.record.rounds,
            self._ledger.head,
        )  # fmt: skip

    def _tell_round(self, number: int, decisions: list[Decision], seconds: float) -> None:
        accepted = [d for d in decisions if d.decision == Judgement.ACCEPTED]
        mean = sum(row["seconds"] for row in self.record.rounds) / len(self.record.rounds)
        more = self.plan.rounds - number
        self._say(
            f"round {number} of {self.plan.rounds}: {len(accepted)} of {len(self._sites)} updates accepted "
            f"in {seconds:.1f} s{self._most(decisions)}"
            + (f"; about {duration(mean * more)} left" if more else "")
        )
        for decision in decisions:
            if decision.decision != Judgement.ACCEPTED:
                self._say(f"round {number}: {decision.site} {decision.decision}: {decision.reason}")

    def _most(self, decisions: Sequence[Decision]) -> str:
        """The most that any site is charged with: who was asked is, whether or not the update came."""
        if not decisions:
            return ""
        most = max(decisions, key=lambda decision: decision.epsilon_rdp)
        means = self.plan.guarantee(LIFETIME, most.mechanism)
        spent = means.by_both(most.epsilon_rdp, most.epsilon_pld)
        return f"; at most {spent}, spent of a lifetime's {self.plan.budget:g}"

    def _tell_failure(self, exchange: Exchange, reason: str) -> None:
        """Let the sites end; whatever fails in that must not hide the reason."""
        try:
            self._farewell(exchange, SiteStatus.FAILED, reason, None)
        except Exception as error:
            self._say(f"the sites could not be told: {error}")

    def _farewell(self, exchange: Exchange, status: SiteStatus, reason: str, model: Model | None) -> None:
        """Tell every site how its part ended; a site that is gone hears nothing, and that is all."""
        tip = self._ledger.tip
        words = {}
        for site in self._sites:
            ended = self._ended.get(site.name)
            quarantined = ended is not None and ended.decision == Judgement.QUARANTINED
            sent = model if model is not None and not quarantined else None
            words[site] = Outcome(
                run=self.plan.run,
                status=SiteStatus.QUARANTINED if quarantined else status,
                reason=ended.reason if ended is not None else reason,
                privacy=json.dumps(sent.privacy if sent else {}),
                architecture=self.plan.model,
                plan=self.plan,
                parameters=sent.parameters if sent else {},
                tip=tip,
            ).to_records()
        exchange.ask(words, "query", FAREWELL_DEADLINE, group="end")
