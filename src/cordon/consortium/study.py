"""`study.toml`: what a consortium is for, and on which terms its sites' data are used."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cordon.errors import UserError
from cordon.federation.plan import SITE_NAME
from cordon.privacy.grouping import MOST_DELTA, UNITS
from cordon.privacy.guarantee import LIFETIME, RUN, Guarantee

# Terms of the Data Use Ontology (GA4GH), such as DUO:0000042, general research use.
DUO = re.compile(r"DUO:\d{7}")
LONGEST = 2000

TEMPLATE = """\
# What this consortium is for. Every site sees it before it takes part; its hash is in every plan.
name = "{name}"
purpose = ""                 # in a sentence or two
sites = []                   # who may take part: ["north", "south", "west"]
data_use = ["DUO:0000042"]   # terms that the data are used on (Data Use Ontology)
expires = {expires}         # no site trains after this day
model_receivers = ""         # who may have the model: "the sites", "the public"

# What all runs together may cost one unit at a site, and what one run may.
unit = "patient"
lifetime_epsilon = 8.0
run_epsilon = 4.0
delta = 1e-5
"""


@dataclass(frozen=True)
class Study:
    """A consortium's purpose and terms.

    ``expires`` is the last day (ISO 8601) on which a site trains; ``lifetime_epsilon`` bounds all runs and
    ``run_epsilon`` each, for one ``unit`` at ``delta``. UserError where a term is missing or out of range.
    """

    name: str
    purpose: str
    sites: tuple[str, ...]
    data_use: tuple[str, ...]
    expires: str
    model_receivers: str
    unit: str
    lifetime_epsilon: float
    run_epsilon: float
    delta: float

    @property
    def hash(self) -> str:
        """SHA-256 of all terms, in hexadecimal: what plans carry."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def lines(self) -> list[str]:
        """The study in sentences, for whoever has to agree."""
        means = (Guarantee(self.unit, self.delta, "the plan's mechanism", scope) for scope in (LIFETIME, RUN))
        lifetime, run = (
            one.budget(epsilon)
            for one, epsilon in zip(means, (self.lifetime_epsilon, self.run_epsilon), strict=True)
        )
        return [
            f"study {self.name} ({self.hash[:16]}): {self.purpose}",
            f"sites: {', '.join(self.sites)}; data used on the terms {', '.join(self.data_use)}; until "
            f"{self.expires}",
            f"the model goes to: {self.model_receivers}",
            f"all runs may cost {lifetime}; one run {run}",
        ]

    @property
    def over(self) -> str:
        """Why nobody trains by it any more; empty on its last day and before."""
        if self.expires >= (today := datetime.date.today().isoformat()):
            return ""
        return f"the study {self.name} was over on {self.expires}, and today is {today}"

    @classmethod
    def of(cls, values: Any, where: str) -> Study:
        """The study that ``values`` are; UserError, which names ``where``, for each term that is wrong."""
        faults = [*_faults(values)]
        if faults:
            raise UserError(f"{where}: {'; '.join(faults)}. Mend {'it' if len(faults) == 1 else 'them'}.")
        lists = {name: tuple(values[name]) for name in ("sites", "data_use")}
        numbers = {name: float(values[name]) for name in ("lifetime_epsilon", "run_epsilon", "delta")}
        return cls(**values | lists | numbers | {"expires": str(values["expires"])})


def read_study(path: Path) -> Study:
    """The study in a TOML file; UserError naming each term that is missing or out of range."""
    try:
        return Study.of(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not TOML ({error}). Mend it.") from error


def _faults(values: Any) -> list[str]:
    names = [field.name for field in fields(Study)]
    if not isinstance(values, dict):
        return ["no terms"]
    found = [f"{name} is missing" for name in names if name not in values]
    found += [f"{name!r:.60} is no term of a study" for name in values if name not in names]
    if found:
        return found
    for name in ("name", "purpose", "model_receivers"):
        if not (isinstance(values[name], str) and values[name].strip() and _plain(values[name])):
            found.append(f"{name} says nothing, or is no line of text of at most {LONGEST} characters")
    for name, pattern, what in (
        ("sites", SITE_NAME, "names of letters, digits, _ . and -"),
        ("data_use", DUO, "terms like DUO:0000042"),
    ):
        given = values[name]
        held = isinstance(given, list | tuple) and all(isinstance(x, str) for x in given)
        if not (held and given and len({*given}) == len(given) and all(map(pattern.fullmatch, given))):
            found.append(f"{name} must be a list of {what}, each once")
    if isinstance(values["name"], str) and not SITE_NAME.fullmatch(values["name"]):
        found.append("name must be of letters, digits, _ . and -: files are called by it")
    try:
        day = datetime.date.fromisoformat(str(values["expires"])).isoformat()
    except ValueError:
        day = ""
    if day != str(values["expires"]):
        found.append("expires is no day (use 2027-12-31)")
    if values["unit"] not in UNITS:
        found.append(f"unit must be {' or '.join(UNITS)}")
    numbers = [values[name] for name in ("run_epsilon", "lifetime_epsilon", "delta")]
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        found.append("lifetime_epsilon, run_epsilon and delta must be numbers")
    elif not (0 < numbers[0] <= numbers[1] <= 1e3 and 0 < numbers[2] <= MOST_DELTA):
        found.append(
            f"give 0 < run_epsilon <= lifetime_epsilon <= 1000 and 0 < delta <= {MOST_DELTA:g} (they are "
            f"{numbers[0]:g}, {numbers[1]:g}, {numbers[2]:g})"
        )
    return found


def _plain(text: str) -> bool:
    return len(text) <= LONGEST and text.isprintable()
