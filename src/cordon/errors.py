"""Every error that Cordon raises on purpose.

CordonError                 exit status 1: our own fault unless a subclass says otherwise
├── UserError               exit status 2: the input or the call is wrong; the message says what to do
│   ├── InputProblems       several problems found in one pass, each with file, row and remedy
│   └── BudgetExceeded      exit status 3: the next step would spend more epsilon than allowed
├── KeptBack                any exit status: an error told without what the user's files hold
├── NotReleased             exit status 8: an audit found that a model must not leave
├── Unsound                 exit status 9: a site's check found that its own code must not train
└── FederationError         exit status 4: the federation could not go on
    ├── Quarantined         exit status 5: the aggregator refused this site's updates
    ├── Unreachable         exit status 6: no aggregator, or no quorum, within the deadline
    ├── AttestationError    exit status 7: the aggregator did not prove that it is the measured one
    └── Leaving             exit status 75: the site left between rounds; started again, it goes on
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class CordonError(Exception):
    """Anything that stops a command on purpose; ``exit_code`` is the command's exit status."""

    exit_code = 1


class UserError(CordonError):
    """The input or the call is wrong; the message says what, why and what to do instead."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an input.

    ``where`` names file, and row and column where there are any; ``what`` says what is wrong;
    ``remedy`` says what to do about it. Only ``what`` may say what a sample, a patient or a file of theirs
    is called, or what such a file holds: the others are told to Seqera Platform too.
    """

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} {self.remedy}"


class InputProblems(UserError):
    """All problems found in one pass over the inputs."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self._listed(str(problem) for problem in self.problems))

    def without_contents(self) -> str:
        """The message without what is wrong: where, and what to do."""
        return self._listed(f"{problem.where}: {problem.remedy}" for problem in self.problems)

    def _listed(self, lines: Iterable[str]) -> str:
        count = len(self.problems)
        head = f"{count} problem{'s' if count != 1 else ''} in the input:"
        return "\n".join([head, *(f"  - {line}" for line in lines)])


class BudgetExceeded(UserError):
    """The next step would spend more epsilon than the budget allows; nothing was spent."""

    exit_code = 3


class KeptBack(CordonError):
    """Another error, told without what the user's files hold; its ``exit_code`` is the other's."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class NotReleased(CordonError):
    """An audit found that a model must not leave, or its certificate does not hold; nothing was published."""

    exit_code = 8


class Unsound(CordonError):
    """A check on made-up rows found that the code here must not train; nothing was reserved or sent."""

    exit_code = 9


class FederationError(CordonError):
    """The federation could not go on."""

    exit_code = 4


class Quarantined(FederationError):
    """The aggregator refused this site's updates; the message gives its reason."""

    exit_code = 5


class Unreachable(FederationError):
    """No aggregator, or no quorum of sites, within the deadline."""

    exit_code = 6


class AttestationError(FederationError):
    """The aggregator did not prove that it is the measured one; nothing was sent to it."""

    exit_code = 7


class Leaving(FederationError):
    """The site left between two rounds, its time being over; nothing is lost, and it may be started again."""

    exit_code = 75
