"""What one part of an audit found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Check:
    """The answer to one ``question`` about a model: whether it ``passed``, and why in one sentence.

    ``figures`` are the numbers behind it, as JSON has them. Where they are ``private``, they come from rows
    of patients and are no release of any mechanism: they stay with the rows, and only ``passed`` travels.
    What was not ``tried``, for the ``reason`` given, did not fail, and is told as that.
    """

    name: str
    question: str
    passed: bool
    reason: str
    figures: dict[str, Any] = field(default_factory=dict)
    private: bool = False
    tried: bool = True

    @property
    def verdict(self) -> str:
        return ("passed" if self.passed else "FAILED") if self.tried else "not tried"

    def to_dict(self, *, shareable: bool = False) -> dict[str, Any]:
        """All of it, or what may leave the site."""
        about = {"name": self.name, "question": self.question, "passed": self.passed, "tried": self.tried}
        if shareable and self.private:
            return about | {"reason": "figures are of patients' rows and stay at the site", "private": True}
        return about | {"reason": self.reason, "figures": self.figures, "private": self.private}
