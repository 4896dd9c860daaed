"""The aggregator's judgement on each reply, before anything is averaged; and the average.

An audit never raises on what a site sent: every fault of a site is a decision with a reason, signed
and chained in the aggregator's ledger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cordon.accountants import Event, epsilon_pld, epsilon_rdp
from cordon.errors import UserError
from cordon.federation.messages import STOPPED, TRAINED, Reply
from cordon.federation.plan import Plan, Site
from cordon.ledger import ChainedLog
from cordon.model import Parameters, check_parameters

ACCEPTED, QUARANTINED, MISSING = "accepted", "quarantined", "missing"
# A reason may quote what a site sent, and a site may send anything.
LONGEST_REASON = 400


@dataclass(frozen=True)
class Decision:
    """What became of one site's part in one round.

    The epsilons compose every event that the site's identity has declared, over rounds and runs;
    PLD is left out (None) above the budget, where its distributions can grow without bound.
    ``update_norm`` is the L2 norm of the update, which is private already.
    """

    site: str
    decision: str
    reason: str
    epsilon_rdp: float
    epsilon_pld: float | None
    update_norm: float | None = None
    bytes: int = 0


class Auditor:
    """Judges replies against the plan and against what each identity has spent before.

    UserError where the ledger holds spending for another privacy unit: the two do not compose.
    """

    def __init__(self, plan: Plan, ledger: ChainedLog, *, expected: Parameters) -> None:
        others = {row["unit"] for row in ledger if row["kind"] == "decision"} - {plan.unit}
        if others:
            raise UserError(
                f"{ledger.path} accounts for one {' and one '.join(sorted(others))}, the plan for one "
                f"{plan.unit}. Keep a ledger (--state) for each privacy unit."
            )
        self._plan = plan
        self._ledger = ledger
        self._expected = expected

    def spent(self, site: Site) -> tuple[float, float | None]:
        """Epsilon of all that ``site`` has declared so far, by RDP and by PLD."""
        return self._epsilons(self._events(site))

    def judge(self, site: Site, round_number: int, reply: Reply | None, fault: str = "") -> Decision:
        """Decide on ``site``'s reply to ``round_number`` (None: no reply, or one refused for ``fault``)."""
        with self._ledger.locked():  # what counts as spent cannot change before the decision stands
            return self._judge(site, round_number, reply, fault)

    def _judge(self, site: Site, round_number: int, reply: Reply | None, fault: str) -> Decision:
        declared = [reply.event] if reply is not None and reply.event is not None else []
        events = [*self._events(site), *declared]
        rdp, pld = self._epsilons(events)
        verdict, reason = self._verdict(site, round_number, reply, rdp, fault)
        update = reply.update if reply is not None and reply.update is not None else {}
        size = sum(array.nbytes for array in update.values())
        decision = Decision(site.name, verdict, reason[:LONGEST_REASON], rdp, pld, _norm(update), size)
        self._ledger.append(
            {
                "kind": "decision",
                "run": self._plan.run,
                "round": round_number,
                "identity": identity(site),
                "budget": self._plan.epsilon,
                "delta": self._plan.delta,
                "unit": self._plan.unit,
                "events": [event.to_dict() for event in declared],
                **asdict(decision),
            }
        )
        return decision

    def _verdict(
        self, site: Site, round_number: int, reply: Reply | None, epsilon: float, fault: str
    ) -> tuple[str, str]:
        plan = self._plan
        if reply is None:
            return (QUARANTINED, fault) if fault else (MISSING, "no reply before the round's deadline")
        if (reply.run, reply.round) != (plan.run, round_number):
            return QUARANTINED, f"a reply to round {reply.round} of run {reply.run!r}: stale or replayed"
        if self._accepted(site, round_number):
            return QUARANTINED, f"a second reply to round {round_number} of run {plan.run}: replayed"
        if reply.status == STOPPED:
            return MISSING, "the site stopped by itself: its own budget allows no further round"
        if reply.status != TRAINED or reply.update is None or reply.event is None:
            return QUARANTINED, f"a reply of kind {reply.status!r} to a training task"
        if epsilon > plan.epsilon:
            return QUARANTINED, f"over budget: {plan.statement(epsilon)} is above {plan.epsilon:g}"
        if reply.event != plan.event:
            return QUARANTINED, "declared events that are not the plan's"
        try:
            check_parameters(reply.update, expected=self._expected)
        except ValueError as error:
            return QUARANTINED, f"not an update of this model: {error}"
        return ACCEPTED, ""

    def _events(self, site: Site) -> list[Event]:
        """All that the site's identity declared, accepted or not: what arrived was released."""
        key = identity(site)
        return [
            Event(**event)
            for row in self._ledger
            if row["kind"] == "decision" and row["identity"] == key
            for event in row["events"]
        ]

    def _accepted(self, site: Site, round_number: int) -> bool:
        key = (ACCEPTED, identity(site), self._plan.run, round_number)
        return any(
            (row["decision"], row["identity"], row["run"], row["round"]) == key
            for row in self._ledger
            if row["kind"] == "decision"
        )

    def _epsilons(self, events: Sequence[Event]) -> tuple[float, float | None]:
        rdp = epsilon_rdp(events, self._plan.delta)
        return rdp, epsilon_pld(events, self._plan.delta) if rdp <= self._plan.epsilon else None


def identity(site: Site) -> str:
    """The name under which a site's spending is kept: SHA-256 of its public key, stable across runs.

    However its PEM is wrapped, it is one key.
    """
    return hashlib.sha256("".join(site.public_key.split()).encode()).hexdigest()


def _norm(update: Parameters) -> float | None:
    """The L2 norm of ``update``; None where there is none, or where it is not finite."""
    norm = float(np.sqrt(sum(float(np.square(a, dtype=np.float64).sum()) for a in update.values())))
    return norm if update and np.isfinite(norm) else None


def average(start: Parameters, updates: Mapping[str, Parameters], weights: Mapping[str, float]) -> Parameters:
    """``start`` moved by the mean of ``updates``, by declared weights of the sites that are in it.

    The order of ``updates`` changes nothing, to the last bit.
    """
    sites = sorted(updates)
    total = sum(weights[site] for site in sites)
    moved: dict[str, Any] = {}
    for name, value in start.items():
        change = sum((weights[site] / total) * updates[site][name].astype(np.float64) for site in sites)
        moved[name] = (value.astype(np.float64) + change).astype(np.float32)
    return moved


def mean_of(models: Collection[Parameters]) -> Parameters:
    """The plain mean of the models after a run's last rounds (Polyak and Juditsky 1992, on rounds).

    It is made of what was released anyway, so it costs no privacy, and evens out the last rounds' noise.
    """
    means: Parameters = {}
    for name in next(iter(models)):
        stacked = np.stack([model[name] for model in models])
        means[name] = np.asarray(stacked.mean(axis=0, dtype=np.float64), dtype=np.float32)
    return means
