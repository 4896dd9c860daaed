"""The aggregator's judgement on each reply, before anything is averaged; and the average.

An audit never raises on what a site sent: every fault of a site is a decision with a reason, signed
and chained in the aggregator's ledger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cordon.accountants import Event, epsilon_pld, epsilon_rdp
from cordon.federation.messages import STOPPED, TRAINED, Reply
from cordon.federation.plan import Plan, Site
from cordon.ledger import ChainedLog
from cordon.model import Parameters, check_parameters

ACCEPTED, QUARANTINED, MISSING = "accepted", "quarantined", "missing"


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
    """Judges replies against the plan and against what each identity has spent before."""

    def __init__(self, plan: Plan, ledger: ChainedLog, *, expected: Parameters) -> None:
        self._plan = plan
        self._ledger = ledger
        self._expected = expected

    def spent(self, site: Site) -> tuple[float, float | None]:
        """Epsilon of all that ``site`` has declared so far, by RDP and by PLD."""
        return self._epsilons(self._events(site))

    def judge(self, site: Site, round_number: int, reply: Reply | None, fault: str = "") -> Decision:
        """Decide on ``site``'s reply to ``round_number`` (None: no reply, or one refused for ``fault``)."""
        declared = [reply.event] if reply is not None and reply.event is not None else []
        events = [*self._events(site), *declared]
        rdp, pld = self._epsilons(events)
        verdict, reason = self._verdict(round_number, reply, rdp, fault)
        norm, size = None, 0
        if reply is not None and reply.update is not None:
            size = sum(array.nbytes for array in reply.update.values())
            norm = float(
                np.sqrt(sum(float(np.square(a, dtype=np.float64).sum()) for a in reply.update.values()))
            )
            norm = norm if np.isfinite(norm) else None
        decision = Decision(site.name, verdict, reason, rdp, pld, norm, size)
        self._ledger.append(
            {
                "kind": "decision",
                "run": self._plan.run,
                "round": round_number,
                "identity": identity(site),
                "delta": self._plan.delta,
                "unit": self._plan.unit,
                "events": [event.to_dict() for event in declared],
                **asdict(decision),
            }
        )
        return decision

    def _verdict(self, round_number: int, reply: Reply | None, epsilon: float, fault: str) -> tuple[str, str]:
        plan = self._plan
        if reply is None:
            return (QUARANTINED, fault) if fault else (MISSING, "no reply before the round's deadline")
        if (reply.run, reply.round) != (plan.run, round_number):
            return QUARANTINED, f"a reply to round {reply.round} of run {reply.run}: stale or replayed"
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

    def _epsilons(self, events: Sequence[Event]) -> tuple[float, float | None]:
        rdp = epsilon_rdp(events, self._plan.delta)
        return rdp, epsilon_pld(events, self._plan.delta) if rdp <= self._plan.epsilon else None


def identity(site: Site) -> str:
    """The name under which a site's spending is kept: SHA-256 of its public key, stable across runs."""
    return hashlib.sha256(site.public_key.encode()).hexdigest()


def average(start: Parameters, updates: Mapping[str, Parameters], weights: Mapping[str, float]) -> Parameters:
    """``start`` moved by the mean of ``updates``, by declared weights of the sites that are in it."""
    total = sum(weights[site] for site in updates)
    moved: dict[str, Any] = {}
    for name, value in start.items():
        change = sum(
            (weights[site] / total) * update[name].astype(np.float64) for site, update in updates.items()
        )
        moved[name] = (value.astype(np.float64) + change).astype(np.float32)
    return moved
