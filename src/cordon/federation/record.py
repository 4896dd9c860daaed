"""What happened in a run, for people and for the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cordon.federation.plan import Plan


@dataclass
class Record:
    """What happened in a run: the content of federation.json."""

    plan: Plan
    seconds: float = 0.0
    rounds: list[dict[str, Any]] = field(default_factory=list)
    sites: list[dict[str, Any]] = field(default_factory=list)
    model_hash: str = ""
    start: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "run": self.plan.run,
            "plan": self.plan.to_dict(),
            "model_hash": self.model_hash,
            "start": self.start,
            "seconds": round(self.seconds, 2),
            "rounds": self.rounds,
            "sites": self.sites,
        }
