"""What a run's participants agree on: public settings, and the sites' public declarations."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
import reprlib
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from cordon.errors import InputProblems, Problem, UserError
from cordon.federation.averaging import MEAN, RULES
from cordon.files import parse_json
from cordon.model.architectures import ARCHITECTURES, MOST_NUMBERS, width
from cordon.privacy.accountants import ACCOUNTANTS, epsilon_by
from cordon.privacy.events import (
    GAUSSIAN,
    LEAST_NOISE,
    MECHANISMS,
    MOST_NOISE,
    MOST_SITES,
    MOST_STEPS,
    Event,
    at_sites,
)
from cordon.privacy.grouping import MOST_DELTA, UNITS, Grouping, check_delta, declared_units
from cordon.privacy.guarantee import ADJACENCY, LIFETIME, RUN, Guarantee, composed_statement
from cordon.privacy.noise_calibration import calibrate_noise
from cordon.training.dpsgd import LANES, least_block
from cordon.training.settings import CLIPPINGS, DPSGD, OPTIMISERS
from cordon.variants.features import FEATURES

SITE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# What a site takes from an aggregator that it does not trust: wide enough for every use, and narrow enough
# that no product of them leaves what float32 holds, no run takes for ever, and all epsilons can be computed.
RANGES: dict[str, tuple[float, float]] = {
    "epsilon": (1e-9, 1e3), "delta": (1e-30, MOST_DELTA), "rounds": (1, 10_000), "local_steps": (1, 10_000),
    "sampling_rate": (1e-6, 1.0), "noise_multiplier": (LEAST_NOISE, MOST_NOISE), "clip_norm": (1e-9, 1e6),
    "learning_rate": (1e-9, 1e6), "max_variants_per_patient": (1, 100_000), "clip_quantile": (1e-3, 0.999),
    "clip_rate": (1e-6, 1.0), "quantile_share": (1e-3, 0.999), "momentum": (0.0, 0.999),
    "averaged_rounds": (1, 10_000), "malicious_sites": (0, 10_000), "sites_per_patient": (1, MOST_SITES),
    "lifetime_epsilon": (0, 1e3),
}  # fmt: skip
CHOICES: dict[str, tuple[str, ...]] = {
    "model": ARCHITECTURES, "unit": UNITS, "mechanism": MECHANISMS, "adjacency": (ADJACENCY,),
    "clipping": CLIPPINGS, "optimiser": OPTIMISERS, "aggregation": tuple(RULES),
    "accountant": ACCOUNTANTS,
}  # fmt: skip
# They stand in ledgers and logs.
HASH = re.compile(r"([0-9a-f]{64})?")
PATTERNS = {
    "run": re.compile(r"[A-Za-z0-9_.-]{0,100}"), "start": HASH, "study": HASH,
    "expires": re.compile(r"(\d{4}-\d{2}-\d{2})?"),
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """The public settings of a run, the same for every site; ``run`` is empty until it starts.

    ``noise_multiplier`` follows from the others: all rounds together cost at most ``epsilon`` at
    ``delta`` (by ``accountant``, for one ``unit`` added or removed at up to ``sites_per_patient`` sites).
    That is of this run; over all runs a site may be charged ``budget``. UserError where a setting is out of
    range: a site takes its plan from the aggregator, whom it does not trust.
    """

    run: str
    model: str
    unit: str
    epsilon: float
    delta: float
    rounds: int
    local_steps: int
    sampling_rate: float
    noise_multiplier: float
    clip_norm: float
    learning_rate: float
    max_variants_per_patient: int
    mechanism: str = GAUSSIAN
    adjacency: str = ADJACENCY
    clipping: str = "fixed"
    clip_quantile: float = 0.9
    clip_rate: float = 0.2
    quantile_share: float = 0.1
    per_layer: bool = False
    optimiser: str = "sgd"
    momentum: float = 0.0
    averaged_rounds: int = 1  # the model is the mean of those after the last rounds, at most so many
    aggregation: str = MEAN
    malicious_sites: int = 0  # so many dishonest ones the aggregation is to bear
    sites_per_patient: int = 1  # one person may take part at so many sites: epsilon counts all of them
    accountant: str = "rdp"  # what budgets are held against; both are told
    lifetime_epsilon: float = 0.0  # what a site may be charged over all runs; 0: ``epsilon``, one run
    start: str = ""  # hash of the public model to start from; empty: the architecture's own start
    study: str = ""  # hash of the study that the run belongs to, where there is one
    expires: str = ""  # the last day (ISO 8601) on which a site trains by it; empty: no day is

    def __post_init__(self) -> None:
        for field in fields(self):  # whoever is told the plan refuses a whole number where a float belongs
            if field.type == "float" and type(value := getattr(self, field.name)) is int:
                object.__setattr__(self, field.name, float(value))
        faults = [
            f"{name} {_shown(getattr(self, name))} (use {use})"
            for name, holds, use in self._conditions()
            if not holds
        ]
        if faults:
            raise UserError(
                f"the plan cannot be run: {'; '.join(faults)}. Set what is named so, and make the plan again."
            )
        numbers = least_block(self.settings_for(1)) * width(self.model, len(FEATURES))
        if numbers > MOST_NUMBERS:
            raise UserError(
                f"the plan cannot be run: a step by {self.model} with max_variants_per_patient "
                f"{self.max_variants_per_patient} takes {4e-9 * numbers:.2g} GB of a site's memory for its "
                f"inputs alone, and {4e-9 * MOST_NUMBERS:.2g} GB are allowed. Use a smaller one, or a "
                f"multiple of {LANES}."
            )

    def _conditions(self) -> Iterator[tuple[str, bool, str]]:
        """Each setting's name, whether it is within bounds, and what it should be."""
        for name, choices in CHOICES.items():
            yield name, getattr(self, name) in choices, " or ".join(map(repr, choices))
        for name, (least, most) in RANGES.items():
            yield name, least <= getattr(self, name) <= most, f"{least:g} to {most:g}"
        for name, pattern in PATTERNS.items():
            yield name, bool(pattern.fullmatch(getattr(self, name))), f"what matches {pattern.pattern}"
        steps = self.rounds * self.local_steps * self.sites_per_patient
        yield "local_steps", steps <= MOST_STEPS, f"at most {MOST_STEPS} in all rounds, at all sites of one"
        yield "lifetime_epsilon", self.budget >= self.epsilon, "epsilon or more"
        yield "momentum", self.optimiser == "sgd" or self.momentum == 0, "0 beside adam"

    @classmethod
    def calibrated(
        cls, *, spent: Sequence[Sequence[Event]] = (), beside: Sequence[Event] = (), **settings: Any
    ) -> Plan:
        """A plan whose noise is the least that keeps all rounds within epsilon.

        With what is to come ``beside`` them they are within it, and with each of ``spent``, what sites were
        charged before, within the budget. The plan's epsilon is then what its rounds by themselves cost.
        """
        sites = settings.get("sites_per_patient", 1)
        noise = calibrate_noise(
            epsilon=settings["epsilon"],
            delta=settings["delta"],
            sampling_rate=settings["sampling_rate"],
            steps=settings["rounds"] * settings["local_steps"],
            mechanism=settings.get("mechanism", GAUSSIAN),
            sites=sites,
            besides=at_sites(beside, sites),
            accountant=settings.get("accountant", "rdp"),
            spent=spent,
            budget=settings.get("lifetime_epsilon") or settings["epsilon"],
            unit=settings["unit"],
        )
        plan = cls(noise_multiplier=noise, **{"run": "", **settings})
        if not (any(spent) or beside):
            return plan
        return replace(plan, epsilon=min(plan.cost(), plan.epsilon), lifetime_epsilon=plan.budget)

    def check_expiry(self) -> None:
        """UserError where the last day of its study is over."""
        if self.expires and self.expires < (today := time.strftime("%Y-%m-%d")):
            raise UserError(
                f"the study of this plan was over on {self.expires}, and today is {today}. Nobody trains by "
                "it any more: ask the operator for a plan of the study's renewal."
            )

    def started(self) -> Plan:
        """This plan under the name of a new run: its date, and enough randomness that no other has it."""
        return replace(self, run=f"{time.strftime('%Y-%m-%d')}-{secrets.token_hex(4)}")

    @property
    def event(self) -> Event:
        """What one round costs each site that takes part in it."""
        step = (self.noise_multiplier, self.sampling_rate)
        return Event(*step, self.local_steps, self.mechanism, self.sites_per_patient)

    @property
    def epsilon_at_site(self) -> float:
        """What of ``epsilon`` one site's part in all rounds costs: attacks on one are held to it."""
        if self.sites_per_patient == 1:
            return self.epsilon
        return min(self.epsilon, epsilon_by(self.accountant, at_sites(self.events(), 1), self.delta))

    @property
    def budget(self) -> float:
        """The epsilon that a site may be charged over all its runs."""
        return self.lifetime_epsilon or self.epsilon

    def events(self) -> list[Event]:
        """What all rounds cost a site that takes part in each."""
        return [self.event] * self.rounds

    def cost(self, delta: float | None = None) -> float:
        """Epsilon of all rounds by the plan's accountant, at its delta or another."""
        return epsilon_by(self.accountant, self.events(), delta or self.delta)

    def declared_units(self, declared_patients: int) -> int:
        """The public number of units at a site that declared ``declared_patients``."""
        return declared_units(self.unit, declared_patients, self.max_variants_per_patient)

    def check_delta(self, site: str, declared_patients: int) -> str:
        """`cordon.training.units.check_delta` of the plan's delta at a site that declared so many
        patients.
        """
        return check_delta(site, self.delta, self.declared_units(declared_patients))

    def settings_for(self, declared_patients: int) -> DPSGD:
        """One round's training at a site; its normaliser is public."""
        return DPSGD(
            noise_multiplier=self.noise_multiplier,
            sampling_rate=self.sampling_rate,
            steps=self.local_steps,
            clip_norm=self.clip_norm,
            learning_rate=self.learning_rate,
            expected_batch=self.sampling_rate * self.declared_units(declared_patients),
            max_variants=self.max_variants_per_patient if self.unit == "patient" else 1,
            mechanism=self.mechanism,
            clipping=self.clipping,
            clip_quantile=self.clip_quantile,
            clip_rate=self.clip_rate,
            quantile_share=self.quantile_share,
            per_layer=self.per_layer,
            optimiser=self.optimiser,
            momentum=self.momentum,
            unit=self.unit,
        )

    def grouping(self, declared_patients: int) -> Grouping:
        """How a site that declared so many patients groups its rows."""
        most = self.settings_for(declared_patients).max_variants
        return Grouping(self.unit, self.model, most, self.declared_units(declared_patients))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def digest(self) -> str:
        """SHA-256 of all settings, the run's name among them, in hexadecimal: what ledger and model carry."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        """The plan in ``values``; UserError where a setting is missing, extra or of another type."""
        types = {field.name: field.type for field in fields(cls)}
        if set(values) != set(types):
            raise UserError(
                f"the plan has settings {_shown(sorted(values))} instead of {sorted(types)}. "
                "Make it with this version of Cordon."
            )
        for name, value in values.items():
            if type(value).__name__ != types[name]:
                raise UserError(
                    f"the plan's {name} is {_shown(value)}, not a {types[name]}. "
                    "Make it with this version of Cordon."
                )
        return cls(**values)

    def guarantee(self, scope: str = "", mechanism: str = "") -> Guarantee:
        """What stands beside an epsilon of the plan's; ``mechanism`` where more than its own was composed."""
        return Guarantee(self.unit, self.delta, mechanism or self.mechanism, scope)

    def statement(self, epsilon: float) -> str:
        """``epsilon`` of the run, or of a part of it, with everything that must stand beside it."""
        return self.guarantee(RUN).statement(epsilon)

    def stated_of(self, events: Iterable[Event], scope: str = LIFETIME) -> str:
        """What ``events`` come to by both accountants, with everything that must stand beside it."""
        return composed_statement(events, unit=self.unit, delta=self.delta, scope=scope)

    def stated(self, delta: float | None = None) -> str:
        """What all rounds cost, by both accountants, at the plan's delta or another."""
        return composed_statement(self.events(), unit=self.unit, delta=delta or self.delta, scope=RUN)


def _shown(value: object) -> str:
    """``value`` for a message, cut where it is long: whoever sent it may have sent anything."""
    short = reprlib.Repr()
    short.maxlist = short.maxstring = short.maxother = 60
    return short.repr(value)


@dataclass(frozen=True)
class Site:
    """A site as its owner declared it and the operator enrolled it.

    ``public_key`` is the SuperNode's key (PEM, P-384): the identity that updates are tied to.
    """

    name: str
    declared_patients: int
    weight: float
    public_key: str = ""


def identity(site: Site) -> str:
    """The name under which a site's spending is kept: SHA-256 of its public key, stable across runs.

    However its PEM is wrapped, it is one key.
    """
    return fingerprint(site.public_key)


def fingerprint(public_key: str) -> str:
    """SHA-256 of a public key (PEM) in hexadecimal, however it is wrapped."""
    return hashlib.sha256("".join(public_key.split()).encode()).hexdigest()


def read_sites(path: Path) -> list[Site]:
    """The sites sheet (CSV: site, declared_patients, weight); InputProblems names every bad row."""
    problems: list[Problem] = []
    sites: list[Site] = []
    reader = csv.DictReader(path.read_text(encoding="utf-8-sig", errors="replace").splitlines())
    for row in reader:
        where = f"{path.name}, row {reader.line_num}"
        site = _declaration(row)
        if site is None:
            problems.append(
                Problem(
                    where,
                    "not a site's declaration.",
                    "Give site (letters, digits, _ . -), declared_patients (a whole number from 1) and "
                    "weight (above 0).",
                )
            )
            continue
        if site.name in {other.name for other in sites}:
            problems.append(Problem(where, f"site {site.name} stands twice.", "Keep one row."))
        sites.append(site)
    if not sites and not problems:
        problems.append(Problem(path.name, "no site.", "Give one row for each site."))
    if problems:
        raise InputProblems(problems)
    return sites


def _declaration(row: dict[str, str]) -> Site | None:
    """One row of the sites sheet; None where it is not a declaration."""
    try:
        return declared_site(row["site"].strip(), int(row["declared_patients"]), float(row["weight"]))
    except (KeyError, TypeError, ValueError, AttributeError, UserError):
        return None


def declared_site(name: str, declared_patients: int, weight: float, public_key: str = "") -> Site:
    """The site; UserError where its name or its declaration is out of range."""
    if not (SITE_NAME.fullmatch(name) and declared_patients >= 1 and 0 < weight < math.inf):
        raise UserError(
            f"site {name!r}, {declared_patients} patients, weight {weight}: not a declaration. Use a name of "
            "letters, digits, _ . -, a whole number of patients from 1 and a weight above 0."
        )
    return Site(name, declared_patients, weight, public_key)


def read_plan(path: Path) -> Plan:
    """The plan in a JSON file; UserError where it is none."""
    try:
        return Plan.from_dict(parse_json(path.read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not a plan ({error}). Make one with plan_run.") from error


def find_site(path: Path, name: str) -> Site:
    """The declaration of site ``name`` in the sites sheet at ``path``."""
    sites = {site.name: site for site in read_sites(path)}
    if name not in sites:
        raise UserError(f"{path.name}: no site {name!r} among {', '.join(sorted(sites))}. Add its row.")
    return sites[name]


def write_enrolment(sites: list[Site], path: Path) -> None:
    path.write_text(json.dumps([asdict(site) for site in sites], indent=2) + "\n")


def read_enrolment(path: Path) -> list[Site]:
    """The enrolled sites, as `write_enrolment` wrote them."""
    try:
        return [Site(**entry) for entry in parse_json(path.read_text())]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not an enrolment ({error}). Enrol the sites again.") from error
