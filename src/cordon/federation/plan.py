"""What a run's participants agree on: public settings, and the sites' public declarations."""

from __future__ import annotations

import csv
import json
import secrets
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cordon.accountants import ADJACENCY, MECHANISM, Event, calibrate_noise
from cordon.errors import InputProblems, Problem, UserError
from cordon.training import DPSGD


@dataclass(frozen=True)
class Plan:
    """The public settings of a run, the same for every site.

    ``noise_multiplier`` follows from the others: all rounds together cost at most ``epsilon`` at
    ``delta`` (by RDP, for one ``unit`` added or removed).
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
    mechanism: str = MECHANISM
    adjacency: str = ADJACENCY

    @classmethod
    def calibrated(cls, **settings: Any) -> Plan:
        """A plan whose noise is the least that keeps all rounds within epsilon."""
        noise = calibrate_noise(
            epsilon=settings["epsilon"],
            delta=settings["delta"],
            sampling_rate=settings["sampling_rate"],
            steps=settings["rounds"] * settings["local_steps"],
        )
        return cls(noise_multiplier=noise, **settings)

    @property
    def event(self) -> Event:
        """What one round costs each site that takes part in it."""
        return Event(self.noise_multiplier, self.sampling_rate, self.local_steps, self.mechanism)

    def declared_units(self, declared_patients: int) -> int:
        """The public number of units at a site that declared ``declared_patients``."""
        return declared_patients * (self.max_variants_per_patient if self.unit == "variant" else 1)

    def check_delta(self, site: str, declared_patients: int) -> None:
        """UserError where delta reaches one over the site's declared number of units."""
        units = self.declared_units(declared_patients)
        if self.delta * units >= 1:
            raise UserError(
                f"site {site}: delta {self.delta:g} is not below one over its {units} declared units, so "
                f"releasing one whole unit would be allowed. Use a delta well below {1 / units:.2g}."
            )

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
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        """The plan in ``values``; UserError where a setting is missing, extra or of another type."""
        types = {field.name: field.type for field in fields(cls)}
        if set(values) != set(types):
            raise UserError(f"the plan has settings {sorted(values)} instead of {sorted(types)}.")
        for name, value in values.items():
            if type(value).__name__ != types[name]:
                raise UserError(f"the plan's {name} is {value!r}, not a {types[name]}.")
        return cls(**values)

    def statement(self, epsilon: float) -> str:
        """``epsilon`` with everything that must stand beside it."""
        return (
            f"epsilon {epsilon:.3g} (unit: one {self.unit}; delta {self.delta:g}; {self.mechanism}; "
            f"adjacency: {self.adjacency})"
        )


@dataclass(frozen=True)
class Site:
    """A site as its owner declared it and the operator enrolled it.

    ``public_key`` is the SuperNode's key (PEM, P-384): the identity that updates are tied to.
    """

    name: str
    declared_patients: int
    weight: float
    public_key: str = ""


def read_sites(path: Path) -> list[Site]:
    """The sites sheet (CSV: site, declared_patients, weight); InputProblems names every bad row."""
    problems: list[Problem] = []
    sites: list[Site] = []
    with path.open(newline="", encoding="utf-8-sig") as handle:
        for number, row in enumerate(csv.DictReader(handle), start=2):
            try:
                site = Site(row["site"].strip(), int(row["declared_patients"]), float(row["weight"]))
                if not site.name or site.declared_patients < 1 or not 0 < site.weight < float("inf"):
                    raise ValueError("out of range")
            except (KeyError, TypeError, ValueError, AttributeError):
                problems.append(
                    Problem(
                        f"{path.name}, row {number}",
                        "not a site's declaration.",
                        "Give site, declared_patients (a whole number from 1) and weight (above 0).",
                    )
                )
                continue
            if site.name in {other.name for other in sites}:
                problems.append(
                    Problem(f"{path.name}, row {number}", f"site {site.name} stands twice.", "Keep one row.")
                )
            sites.append(site)
    if not sites and not problems:
        problems.append(Problem(path.name, "no site.", "Give one row for each site."))
    if problems:
        raise InputProblems(problems)
    return sites


def new_run_name() -> str:
    """A name for a run that no other has: its date, and enough randomness."""
    return f"{time.strftime('%Y-%m-%d')}-{secrets.token_hex(4)}"


def find_site(path: Path, name: str) -> Site:
    """The declaration of site ``name`` in the sites sheet at ``path``."""
    sites = {site.name: site for site in read_sites(path)}
    if name not in sites:
        raise UserError(f"{path.name}: no site {name!r} among {', '.join(sorted(sites))}. Add its row.")
    return sites[name]


def write_enrolment(sites: list[Site], path: Path) -> None:
    path.write_text(json.dumps([asdict(site) for site in sites], indent=2) + "\n")


def read_enrolment(path: Path) -> list[Site]:
    return [Site(**entry) for entry in json.loads(path.read_text())]
