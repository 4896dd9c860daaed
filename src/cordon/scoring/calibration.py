"""What a site's calibration is: from raw score to log-odds, and thresholds by sensitivity; as a file, too.

Its figures stand in every scored VCF. By the mode ``site`` they are exact functions of the site's labelled
samples and not private; by ``private`` they come of one noisy release
(`cordon.scoring.private_calibration`); by ``none`` they come of no patient.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cordon.arrays import Bools, Floats
from cordon.errors import UserError
from cordon.files import StrPath, parse_json, written_beside
from cordon.privacy.guarantee import LIFETIME, Guarantee
from cordon.variants.caller_scores import SILENT, caller_scores
from cordon.variants.features import FEATURES
from cordon.variants.strata import GUARDED, INDEL, KINDS, SNV
from cordon.variants.table import inputs

SENSITIVITIES = ("0.9", "0.95", "0.99", "0.995")
# At which a caller's score is compared with the model.
COMPARED = "0.99"
MODES = SITE, PRIVATE, NONE = "site", "private", "none"
# Labelled real alleles from which on a stratum has a threshold of its own.
LEAST_REAL = 20
# The scope of what one private calibration costs.
ONE_CALIBRATION = "this calibration"


class Scorer(Protocol):
    """A released model. Its scores are log-odds of the training mix, not calibrated for any site."""

    @property
    def architecture(self) -> str:
        """What decides which of a table's columns it takes (`cordon.variants.table.inputs`)."""

    @property
    def hash(self) -> str:
        """What identifies the model's weights."""

    @property
    def features(self) -> tuple[str, ...]:
        """The names of its inputs, in order."""

    @property
    def privacy(self) -> Mapping[str, object]:
        """The privacy statement: unit, epsilon, delta, mechanism, adjacency and more."""

    def score(self, features: NDArray[np.float32]) -> Floats:
        """Natural-log odds [n] that alleles with inputs [n, F] are real."""


def raw_scores(model: Scorer, features: NDArray[np.float32]) -> Floats:
    """The model's scores [n] of inputs [n, F] (`cordon.variants.table.inputs`), features in the order of
    FEATURES.

    Raises UserError where the model was trained on other features, or a score is not finite.
    """
    if tuple(model.features) != FEATURES:
        odd = sorted(set(model.features) ^ set(FEATURES)) or ["their order"]
        raise UserError(
            f"Model {model.hash} was trained on other features ({', '.join(odd[:3])} differ). "
            "Encode the variants with the version of Cordon that trained the model."
        )
    scores = np.asarray(model.score(features), dtype=np.float64)
    if not np.isfinite(scores).all():
        raise UserError(f"Model {model.hash} gives scores that are not finite. Use another model.")
    return scores


def as_odds(caller_score: Floats) -> Floats:
    """A caller's score [n] as a raw score: it rises with it, and far slower than Phred-scaled QUALs do."""
    odds: Floats = np.log1p(caller_score - SILENT)
    return odds


@dataclass(frozen=True)
class Curve:
    """Calibrated log-odds = a ln(p) - b ln(1 - p) + c, of the raw score's p; with a = b, a score + b's line.

    "Beta calibration" (Kull, Silva Filho and Flach 2017, AISTATS, section 3): where a model is surer of one
    class than it may be, a and b differ. With a and b of at least 0 it rises with the score.
    """

    a: float
    b: float
    c: float

    @classmethod
    def line(cls, slope: float, intercept: float) -> Curve:
        """Platt's: slope * score + intercept."""
        return cls(slope, slope, intercept)

    def __call__(self, scores: Floats) -> Floats:
        """Calibrated log-odds [n], in nats, of raw scores [n]."""
        curved: Floats = self.b * np.logaddexp(0.0, scores) - self.a * np.logaddexp(0.0, -scores) + self.c
        return curved

    def __str__(self) -> str:
        return f"a {self.a:.6g}, b {self.b:.6g}, c {self.c:.6g}"

    @property
    def short(self) -> str:
        """To three digits."""
        return f"a {self.a:.3g}, b {self.b:.3g}, c {self.c:.3g}"


@dataclass(frozen=True)
class Calibration:
    """What makes log-odds in nats of raw scores, by kind of allele, and thresholds on them by sensitivity.

    ``curves`` are of SNVs and of indels. ``thresholds`` are by kind, and by the strata of GUARDED of which
    enough real alleles are known, and there by sensitivity. ``let_through`` are the labelled false alleles
    that a stratum's threshold lets through and its kind's would not. ``mode`` is one of MODES. ``reason``
    says why no threshold was fitted, and is empty where one was, or none was to be. ``rows`` is the number of
    labelled alleles that an exact calibration rests on. A private one has ``cost``, what its release cost
    (`cordon.privacy.guarantee.Guarantee`'s parts and more), and ``margin``: two standard deviations of its
    noise, as a share of the real alleles.

    ``instead`` is that of a caller's score, its ``caller_score``, where the model's filter is surely worse;
    ``removed`` then says what share of the false alleles each removes where COMPARED of the real ones are
    kept: "model", and the caller's score.
    """

    curves: Mapping[str, Curve]
    thresholds: Mapping[str, Mapping[str, float]]
    mode: str
    site: str
    reason: str = ""
    rows: int | None = None
    margin: float | None = None
    cost: Mapping[str, Any] = field(default_factory=dict)
    let_through: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    caller_score: str = ""
    instead: Calibration | None = None
    removed: Mapping[str, float] = field(default_factory=dict)

    def of_sample(self, callers: Collection[str]) -> Calibration:
        """What a sample of these callers is scored by; ``instead`` only where it has that caller's calls."""
        stands = self.instead
        if stands is None or stands.caller_score.split(" ")[0] not in callers:
            return replace(self, instead=None)
        return stands

    def raw(self, model: Scorer, table: pa.Table) -> Floats:
        """The raw scores [n] of a variant table's rows: the model's, or the caller's that stands for them."""
        if not self.caller_score:
            return raw_scores(model, inputs(table, model.architecture))
        silent = np.full(table.num_rows, SILENT)
        return as_odds(caller_scores(table).get(self.caller_score, silent))

    def apply(self, scores: Floats, indels: Bools) -> Floats:
        """Calibrated log-odds [n] of raw scores [n]; ``indels`` [n] says which alleles are."""
        return np.where(indels, self.curves[INDEL](scores), self.curves[SNV](scores))

    def threshold(self, sensitivity: str, group: str = SNV) -> float:
        """The log-odds from which on an allele of the kind or stratum ``group`` passes.

        UserError where ``sensitivity`` has none.
        """
        if sensitivity not in self.thresholds[group]:
            raise UserError(
                f"the calibration has no threshold for a truth sensitivity of {sensitivity}. "
                f"Choose one of {', '.join(self.thresholds[group])}, or calibrate for it."
            )
        return self.thresholds[group][sensitivity]

    def decide(
        self, values: Floats, indels: Bools, guarded: Mapping[str, Bools], sensitivity: str,
        protected: Sequence[str] = (),
    ) -> tuple[Bools, Bools]:  # fmt: skip
        """Which alleles [n] of calibrated ``values`` pass, and which of the others are for review.

        An allele passes from its kind's threshold on, or from that of a stratum among ``protected`` that it
        is in. It is for review from the threshold of any stratum that it is in.
        """
        snv, indel = (self.threshold(sensitivity, kind) for kind in KINDS)
        passes = values >= np.where(indels, indel, snv)
        review = np.zeros(len(values), dtype=np.bool_)
        for name, rows in guarded.items():
            if name in self.thresholds:
                kept = rows & (values >= self.threshold(sensitivity, name))
                review |= kept
                if name in protected:
                    passes |= kept
        return passes, review & ~passes

    @property
    def stands_for_the_model(self) -> str:
        """Why this, of a caller's score, stands for the model's, with both figures; empty where it is the
        model's."""
        if not self.caller_score:
            return ""
        model, own = (f"{100 * self.removed[name]:.0f} %" for name in ("model", self.caller_score))
        return (
            f"where {COMPARED} of the real alleles are kept, {self.caller_score} removes {own} of the false "
            f"ones at site {self.site}, and the model {model}, of its labelled samples"
        )

    @property
    def strata(self) -> list[str]:
        """The strata that have a threshold of their own."""
        return [name for name in GUARDED if name in self.thresholds]

    @property
    def fitted(self) -> bool:
        """Whether the thresholds were fitted to labelled alleles."""
        return self.mode != NONE and not self.reason

    @property
    def calibrated(self) -> bool:
        """Whether slope and intercept were."""
        return self.fitted or bool(self.cost)

    @property
    def stated(self) -> str:
        """The epsilon of a private calibration, with all that must stand beside it."""
        return stated_cost(self.cost)

    @property
    def reserved(self) -> str:
        """What the site's ledger held after it, likewise."""
        spent = {"epsilon": self.cost["spent_by_site"], "mechanism": self.cost["spent_mechanism"]}
        return stated_cost({**self.cost, **spent, "accountant": "RDP"}, LIFETIME)

    @property
    def origin(self) -> str:
        """Whose figures these are, and whether they are private."""
        if self.cost:
            return f"private figures of site {self.site}'s labelled samples, at {self.stated}"
        if self.fitted:
            return f"exact figures of site {self.site}'s labelled samples, not private"
        return f"none (the model's own scores){f': {self.reason}' if self.reason else ''}"

    def rule(self, sensitivity: str) -> str:
        """What the filter's thresholds are, and what they promise of the real alleles."""
        snv, indel = (f"{self.threshold(sensitivity, kind):.6g}" for kind in KINDS)
        apart = snv != indel
        given = f"{snv} (SNVs) or {indel} (indels)" if apart else snv
        if self.fitted:
            margin = f", give or take {self.margin:.2g} by its noise" if self.margin is not None else ""
            what, each = ("thresholds that keep", " of each") if apart else ("threshold that keeps", "")
            return (
                f"{given}, the {what} {sensitivity} of the real alleles{each}{margin}, among "
                f"those of site {self.site}'s labelled samples"
            )
        share = 1 - float(sensitivity)
        return (
            f"{given}, odds of {share:.3g} to {float(sensitivity):g}: a fixed number, fitted to no "
            "sample, which promises no share of the real alleles"
        )

    def price(self, sensitivity: str, protected: Sequence[str]) -> list[str]:
        """What strata that are ``protected`` cost, in false alleles, and which cannot be; a sentence each."""
        told = []
        for name in protected:
            if name in self.let_through:
                more = self.let_through[name][sensitivity]
                told.append(
                    f"{name} keeps {sensitivity} of its real alleles at site {self.site}: of the labelled "
                    f"false alleles, {more} more pass"
                )
            elif name not in KINDS:
                why = self.reason or f"it takes {LEAST_REAL} labelled real ones, and --calibration site"
                told.append(
                    f"{name} is not protected at site {self.site}: it has no threshold there, for {why}"
                )
        return told


def stated_cost(cost: Mapping[str, Any], scope: str = ONE_CALIBRATION) -> str:
    """The epsilon of a private calibration's ``cost``, with all that must stand beside it."""
    means = Guarantee(cost["unit"], cost["delta"], cost["mechanism"], scope)
    said = means.statement(cost["epsilon"])
    sites = cost.get("sites_per_patient", 1)
    at = "" if sites == 1 else f", of a person at up to {sites} sites"
    return f"{said}, by {cost['accountant']}{at}"


def uncalibrated(mode: str, site: str, reason: str = "", rows: int | None = None) -> Calibration:
    """Scores as they are, and fixed thresholds: the model taken at its word."""
    thresholds = {share: fixed_threshold(share) for share in SENSITIVITIES}
    return for_both(Curve.line(1.0, 0.0), thresholds, mode, site, reason=reason, rows=rows)


def for_both(curve: Curve, thresholds: Mapping[str, float], mode: str, site: str, **more: Any) -> Calibration:
    """A calibration that is the same for SNVs and indels."""
    same = {kind: dict(thresholds) for kind in KINDS}
    return Calibration({SNV: curve, INDEL: curve}, same, mode, site, **more)


def fixed_threshold(sensitivity: str) -> float:
    """Log-odds (nats) of 1 - s to s, for a target sensitivity s: a number that comes of no data."""
    return math.log((1 - float(sensitivity)) / float(sensitivity))


def write_calibration(calibration: Calibration, path: StrPath) -> None:
    """Write as JSON; the file appears whole or not at all."""
    with written_beside(path) as temporary:
        temporary.write_text(json.dumps(asdict(calibration), indent=2) + "\n")


def read_calibration(path: StrPath) -> Calibration:
    """Read a calibration. Raises UserError naming the file where it is none."""
    try:
        read = parse_json(Path(path).read_text())
        return _checked(read)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: not a calibration ({error}). Make it with calibrate_scores.") from error


def _checked(read: Any) -> Calibration:
    """What a file holds, with numbers where numbers belong; ValueError, TypeError or KeyError where not."""
    curves = {kind: Curve(**read["curves"][kind]) for kind in KINDS}
    numbers = [value for curve in curves.values() for value in (curve.a, curve.b, curve.c)]
    if not {*KINDS} <= set(read["thresholds"]) <= {*KINDS, *GUARDED}:
        raise ValueError("its thresholds are of other kinds or strata")
    numbers += [at for group in read["thresholds"].values() for at in group.values()]
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        raise ValueError("what should be a number is none")
    if read["mode"] not in MODES or not isinstance(read["site"], str):
        raise ValueError("its mode or site is none")
    instead = None if read.get("instead") is None else _checked(read["instead"])
    found = Calibration(**read | {"curves": curves, "instead": instead})
    told = instead is None or {"model", instead.caller_score} <= {*instead.removed}
    if not told or (instead is not None and found.mode != SITE):
        raise ValueError("what stands for the model is not told")
    return found
