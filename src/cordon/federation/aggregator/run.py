"""The aggregator's run: gather the sites, train round by round, judge, average, tell everyone the end."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cordon.console.progress import Say
from cordon.errors import FederationError, Unreachable, UserError
from cordon.federation.aggregator.checkpoint import Checkpoint, Checkpoints
from cordon.federation.aggregator.exchange import Exchange
from cordon.federation.aggregator.judge import Answer, Auditor, Decision
from cordon.federation.aggregator.record import Record
from cordon.federation.aggregator.registry import BAN_AFTER, Registry
from cordon.federation.averaging import RULES, check_rule, combine, mean_of
from cordon.federation.flower.tasks import LinkLost
from cordon.federation.messages import Outcome, Reply, ReplyStatus, SiteStatus, Task
from cordon.federation.pace import brisk
from cordon.federation.plan import Plan, Site, identity
from cordon.ledger.log import ChainedLog
from cordon.ledger.rows import Judgement
from cordon.ledger.spending import behind, charged
from cordon.model.architectures import Parameters
from cordon.model.initial_weights import initial_parameters
from cordon.model.released import Model
from cordon.privacy.events import mechanism_of
from cordon.privacy.guarantee import LIFETIME
from cordon.steps import duration
from cordon.training.pretrain import PublicStart, chosen

FAREWELL_DEADLINE = 20.0
# A SuperNode that was cut off is let in again when its last heartbeat, of one minute, has lapsed. A round
# that lacks its quorum waits for sites for so long, or for --round_deadline where that is longer.
RETURN_DEADLINE = 90.0


@dataclass(frozen=True)
class RoundLimits:
    """When to stop waiting (seconds), the fewest sites that a round may average, and when a site is banned.

    That is after it was quarantined in ``ban_after`` runs.
    """

    min_sites: int
    join_deadline: float
    round_deadline: float
    ban_after: int = BAN_AFTER


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
        self._limits = setup.limits
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
            self._gather(exchange)
            while self._rounds_over < self.plan.rounds and not self._spent_out:
                self._round(exchange, self._rounds_over + 1)
            final = mean_of(self._late)
            refined = Model(self.plan.model, self._features, final, self._privacy())
            model, self.record.start = chosen(self._start, refined, self._say)
            self.record.model_hash = model.hash
            self._close(exchange, model)
        except LinkLost:
            raise
        except FederationError as error:
            self._tell_failure(exchange, str(error))
            self._checkpoints.discard()
            raise
        finally:
            self.record.seconds += time.monotonic() - began
        return model

    def _gather(self, exchange: Exchange) -> None:
        """Wait for all sites that take part; after the deadline, go on with a quorum or give up."""
        self._refuse_banned()
        active = [site for site in self._sites if site.name not in self._ended]
        left = 0 if self._spent_out else self.plan.rounds - self._rounds_over
        # A run that only lacks its end waits no longer than sites take to come back: some may have heard it.
        patience = self._limits.join_deadline if left else min(RETURN_DEADLINE, self._limits.join_deadline)
        deadline, pace = time.monotonic() + patience, brisk()
        shown = -1
        while (online := len(exchange.online().keys() & set(active))) < len(active):
            if online != shown:
                self._say(f"waiting for sites: {online} of {len(active)} are here")
                shown = online
            if time.monotonic() > deadline:
                break
            pace.wait()
        if left and online < self._limits.min_sites:
            raise Unreachable(
                f"{online} of {len(active)} sites joined within {self._limits.join_deadline:g} s, and "
                f"{self._limits.min_sites} are needed. Start the missing sites, or lower --min_sites."
            )
        self._say(f"{online} of {len(active)} sites are here; {left} rounds to go")

    def _round(self, exchange: Exchange, number: int) -> None:
        began = time.monotonic()
        self._refuse_banned()
        active = [site for site in self._sites if site.name not in self._ended]
        if not self._quorum_is_here(exchange):
            raise Unreachable(
                f"round {number}: too few sites came back within {self._patience:g} s, and {self._quorum} "
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
        if accepted + away >= self._quorum and self._quorum_is_here(exchange):
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
    def _patience(self) -> float:
        """Seconds in which a site that was cut off may come back."""
        return max(RETURN_DEADLINE, self._limits.round_deadline)

    def _quorum_is_here(self, exchange: Exchange) -> bool:
        """Whether as many sites as a round needs are connected, at the latest when patience ends."""
        active = {site for site in self._sites if site.name not in self._ended}
        needed = min(self._quorum, len(active))
        deadline, pace = time.monotonic() + self._patience, brisk()
        told = False
        while (online := len(exchange.online().keys() & active)) < needed:
            if not told:
                self._say(f"{online} of the {needed} sites that a round needs are here; others may return")
                told = True
            if time.monotonic() > deadline:
                return False
            pace.wait()
        return True

    def _refuse_banned(self) -> None:
        """End the part of sites that are banned, also of those that an operator banned just now."""
        active = [site for site in self._sites if site.name not in self._ended]
        for site, reason in self._registry.bans(active).items():
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

    def _close(self, exchange: Exchange, model: Model) -> None:
        last = {row["site"]: row for entry in self.record.rounds for row in entry["sites"]}
        for site in self._sites:
            ended = self._ended.get(site.name)
            if ended is not None:
                status, reason = (
                    (
                        SiteStatus.QUARANTINED
                        if ended.decision == Judgement.QUARANTINED
                        else SiteStatus.STOPPED
                    ),
                    ended.reason,
                )
            elif site.name in last and last[site.name]["decision"] == Judgement.ACCEPTED:
                status, reason = SiteStatus.FINISHED, ""
            else:
                status = SiteStatus.MISSING
                reason = last[site.name]["reason"] if site.name in last else "it never joined"
            rdp, pld = self._charges.spent(site)
            in_run = self._charges.spent_in_run(site)
            self.record.sites.append(
                {
                    "site": site.name, "weight": site.weight, "declared_patients": site.declared_patients,
                    "status": status, "reason": reason, "epsilon_rdp": rdp, "epsilon_pld": pld,
                    "run_epsilon_rdp": in_run[0], "run_epsilon_pld": in_run[1], "delta": self.plan.delta,
                    "mechanism": self._charges.mechanism(site),
                }
            )  # fmt: skip
        self._farewell(exchange, SiteStatus.FINISHED, "", model)

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

    def _privacy(self) -> dict[str, Any]:
        """What every copy of the model says of its privacy: over all runs, and of this one (``run_``)."""
        plan, tip = self.plan, self._ledger.tip
        lifetime, in_run = self._charges.of_model()
        keys = behind(self._ledger, plan.run)
        mechanism = mechanism_of(
            event for row, events in charged(self._ledger) if row["identity"] in keys for event in events
        )
        pld = plan.accountant == "pld" and lifetime[1] is not None
        rows = [row for entry in self.record.rounds for row in entry["sites"]]
        taken = {row["site"] for row in rows if row["decision"] == Judgement.ACCEPTED}
        return {
            "unit": plan.unit, "epsilon": lifetime[pld], "scope": LIFETIME, "delta": plan.delta,
            "mechanism": mechanism, "run_mechanism": plan.mechanism,
            "adjacency": plan.adjacency, "accountant": plan.accountant.upper(),
            "epsilon_rdp": lifetime[0], "epsilon_pld": lifetime[1],
            "run_epsilon_rdp": in_run[0], "run_epsilon_pld": in_run[1], "budget": plan.budget,
            "rounds": len(self.record.rounds), "sites": len(taken), "run": plan.run,
            "plan": plan.digest, "ledger": asdict(tip), "sites_per_patient": plan.sites_per_patient,
        }  # fmt: skip
