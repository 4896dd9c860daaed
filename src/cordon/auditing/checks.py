"""What one part of an audit found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cordon.ledger.provenance import Verdict


@dataclass(frozen=True)
class Check:
    """The answer to one ``question`` about a model: a verdict, and why in one sentence.

    ``most`` says what would have failed it: the most that it could have shown. Where that is less than what
    is claimed, nothing could have failed it, and it is UNABLE to refute, which is no pass. ``figures`` are
    the numbers behind it, as JSON has them. Where they are ``private``, they come from rows of patients and
    are no release of any mechanism: they and the reason stay with the rows; ``most`` tells nothing of rows.
    """

    name: str
    question: str
    verdict: Verdict
    reason: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    private: bool = False
    most: str = ""

    @classmethod
    def of(
        cls, name: str, question: str, faults: Iterable[str], otherwise: str,
        figures: Mapping[str, Any] | None = None, *, most: str, able: bool = True, private: bool = False,
    ) -> Check:  # fmt: skip
        """FAILED for the ``faults``; without any, PASSED if it was ``able`` to fail, for ``otherwise``."""
        found = list(faults)
        verdict = Verdict.FAILED if found else Verdict.PASSED if able else Verdict.UNABLE
        return cls(name, question, verdict, "; ".join(found) or otherwise, figures or {}, private, most)

    @classmethod
    def untried(cls, name: str, question: str, why: str, *, private: bool = False) -> Check:
        """``private`` where the reason counts the rows' units: exact counts do not leave either."""
        return cls(name, question, Verdict.UNTRIED, why, private=private)

    @property
    def passed(self) -> bool:
        return self.verdict == Verdict.PASSED

    @property
    def failed(self) -> bool:
        return self.verdict == Verdict.FAILED

    def to_dict(self, *, shareable: bool = False) -> dict[str, Any]:
        """All of it, or what may leave the site."""
        about = {"name": self.name, "question": self.question, "verdict": self.verdict, "most": self.most}
        if shareable and self.private:
            return about | {"reason": "figures are of patients' rows and stay at the site", "private": True}
        return about | {"reason": self.reason, "figures": dict(self.figures), "private": self.private}


def confirmed(check: Callable[[], Check]) -> Check:
    """What ``check`` finds; where it fails, it is made once more, on new draws, and fails if both do.

    So right code fails it by chance as often as two independent checks both do, and a fault is found as
    often as in both.
    """
    found = check()
    return check() if found.failed else found


def counted(checks: Iterable[Check]) -> str:
    """How many checks came to each verdict: ``5 passed, 1 not able to refute``."""
    verdicts = [check.verdict for check in checks]
    return ", ".join(f"{verdicts.count(name)} {name}" for name in Verdict if name in verdicts)
