"""What a report is made from, and what of it may leave the site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cordon.privacy.events import Event
from cordon.privacy.guarantee import Guarantee
from cordon.scoring.calibration import Calibration

# Parameters that the consortium agreed on, and in which nothing of a site's data or machines is.
PUBLIC = ("aggregator_evidence", "simulate_sites")


@dataclass(frozen=True)
class SiteRound:
    """One site in one round; epsilons are the site's spend so far, this round included.

    ``ceiling`` bounds the norm, ``most_small`` the ``small`` numbers
    (`cordon.federation.aggregator.noise_checks`); None where the update was refused before it was
    measured.
    """

    site: str
    decision: str
    reason: str
    epsilon_rdp: float | None
    epsilon_pld: float | None
    update_norm: float | None
    bytes: int
    ceiling: float | None = None
    small: int = 0
    most_small: int | None = None


@dataclass(frozen=True)
class Round:
    """One round of the federation; ``seconds`` is its wall time."""

    round: int
    seconds: float
    sites: tuple[SiteRound, ...]


@dataclass(frozen=True)
class SiteOutcome:
    """How a site ended the run and what it spent, over all runs and (``run_``) in this one.

    ``mechanism`` names those of all runs; in this one it is the plan's.
    """

    site: str
    weight: float
    declared_patients: int
    status: str
    reason: str
    epsilon_rdp: float | None
    epsilon_pld: float | None
    mechanism: str
    run_epsilon_rdp: float | None = None
    run_epsilon_pld: float | None = None


@dataclass(frozen=True)
class Federation:
    """federation.json: the plan, every decision of every round, and each site's outcome.

    ``guarantee`` is what an epsilon of the run means, ``lifetime`` one of all runs.
    """

    run: str
    plan: Mapping[str, Any]
    guarantee: Guarantee
    lifetime: Guarantee
    budget: float  # over all runs
    model_hash: str
    seconds: float
    rounds: tuple[Round, ...]
    sites: tuple[SiteOutcome, ...]
    # The public model that the run started from, and how it compared with the refined one; empty without.
    start: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EqualEvents:
    """Equal events of one site in the aggregator's ledger: what a round's mechanism was, and in how many."""

    site: str
    mechanism: str
    noise_multiplier: float
    sampling_rate: float
    steps: int
    sites: int  # at so many, one person is counted
    rounds: int

    @property
    def event(self) -> Event:
        return Event(self.noise_multiplier, self.sampling_rate, self.steps, self.mechanism, self.sites)


@dataclass(frozen=True)
class Ledger:
    """The aggregator's ledger: how many rows it holds, the hash of the last, and the events in them."""

    rows: int
    head: str
    events: tuple[EqualEvents, ...] = ()


@dataclass(frozen=True)
class OwnSpending:
    """SITE.spent.json: what whoever of a site's patients spent most spent over all runs, and this one's plan.

    ``run_`` is of this run alone. Both are at the delta of the site's budget, which may be another than the
    plan's.
    """

    site: str
    epsilon_rdp: float
    epsilon_pld: float | None
    run_epsilon_rdp: float
    run_epsilon_pld: float | None
    budget: float
    lifetime: Guarantee
    guarantee: Guarantee
    plan: Mapping[str, Any]
    at_more_sites: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Usage:
    """What the tasks of one process took: seconds, processors in use, bytes of memory (the largest).

    ``seconds`` is the sum over tasks, ``longest`` the longest of them; ``cached`` of the ``tasks`` were taken
    from an earlier run.
    """

    process: str
    tasks: int
    cached: int
    seconds: float
    longest: float
    processors: float
    memory: int


@dataclass(frozen=True)
class Sources:
    """Everything a report may be made from; None where the run has no such thing.

    ``shareable`` says that nothing is left in it but what may leave the site.
    """

    parameters: Mapping[str, Any]
    federation: Federation | None = None
    evaluation: Mapping[str, Any] | None = None
    callset: Mapping[str, Any] | None = None
    duplicates: Sequence[Mapping[str, Any]] = ()
    versions: Sequence[tuple[str, str, str]] = ()
    resources: Sequence[Usage] = ()
    ledger: Ledger | None = None
    spent: Sequence[OwnSpending] = ()
    calibrations: Sequence[Calibration] = ()
    certificate: Mapping[str, Any] | None = None
    shareable: bool = False

    def to_share(self) -> Sources:
        """What of it may leave the site: the allow-list.

        The aggregator's record and ledger hold nothing but what sites sent through their mechanisms, and the
        certificate is made to be given away. All else is exact, or tells of files and machines.
        """
        return Sources(
            parameters={name: self.parameters[name] for name in PUBLIC if name in self.parameters},
            federation=self.federation,
            ledger=self.ledger,
            certificate=self.certificate,
            shareable=True,
        )

    @property
    def plan(self) -> Mapping[str, Any]:
        """The training plan, as the aggregator held every site to it; empty where none was trained."""
        if self.federation is not None:
            return self.federation.plan
        return self.spent[0].plan if self.spent else {}

    @property
    def calibrated_privately(self) -> bool:
        """Whether a calibration of the run is in a site's ledger."""
        return any(item.cost for item in self.calibrations)

    @property
    def truth_sensitivity(self) -> str:
        """What the filter was asked to keep, as calibrations name it."""
        return f"{float(self.parameters['truth_sensitivity']):g}"

    @property
    def guarantee(self) -> Guarantee | None:
        """What every epsilon of the run means, as it was planned; None where none was trained."""
        plan = self.plan or (self.certificate or {}).get("plan", {})
        return Guarantee.of(plan) if plan else None
