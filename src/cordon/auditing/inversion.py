"""Gradient inversion: rows of a site, reconstructed from one update, against a guess from public marginals.

Two attacks. The closed form: a dense layer's weight gradient over its bias gradient is the layer's input
(Phong et al. 2017; Geiping et al. 2020, arXiv:2003.14053, proposition 3.1), a mixture of the inputs where
rows are many. Gradient matching: rows and labels are moved until their gradient points where the update does
(Zhu et al. 2019, arXiv:1906.08935, with Geiping et al.'s cosine distance). Imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats
from scipy.optimize import linear_sum_assignment

from cordon.arrays import Floats
from cordon.auditing.attack_scores import CONFIDENCE, Estimate
from cordon.auditing.membership import claim
from cordon.auditing.shadows import NO_CLIP, NO_NOISE, Progress, declared_for
from cordon.errors import UserError
from cordon.federation.plan import Plan
from cordon.model.architectures import Parameters, build, load_parameters
from cordon.model.devices import thread_count
from cordon.privacy.events import GAUSSIAN
from cordon.privacy.mechanisms import Randomness
from cordon.training.dpsgd import descend
from cordon.training.units import Units
from cordon.variants.features import LIMIT

if TYPE_CHECKING:
    from torch import Tensor


CLOSED_FORM, MATCHING = "closed_form", "gradient_matching"
METHODS = (CLOSED_FORM, MATCHING)
INVERTIBLE = ("logistic", "mlp")
# The first layer's parameters, and how gradient matching descends (Adam; the rate falls along half a cosine).
WEIGHT, BIAS = "0.weight", "0.bias"
DESCENT_STEPS, DESCENT_RATE, RESTARTS, PRIOR = 1500, 0.05, 2, 1e-4
# Shares of a guess's distance from the public mean that are tried on public rows: how far to trust it.
TRUST_SHARES = np.linspace(0.0, 1.0, 41)


@dataclass(frozen=True)
class Marginals:
    """What anybody knows of a row: mean and standard deviation [F] of each feature in public data."""

    mean: Floats
    deviation: Floats

    @classmethod
    def of(cls, public: Units) -> Marginals:
        rows = np.asarray(public.features, dtype=np.float64)
        return cls(rows.mean(0), rows.std(0))

    def standard(self, rows: Floats) -> Floats:
        """The features that vary, as deviations from the mean, float64 [..., features that vary]."""
        varies = self.deviation > 0
        found: Floats = (rows[..., varies] - self.mean[varies]) / self.deviation[varies]
        return found


@dataclass(frozen=True)
class InversionResult:
    """Root-mean-square errors by feature, in its public standard deviations, over ``repeats`` sites.

    ``ratio`` is the attack's ``error`` over the ``baseline``, that of guesses which did not see the update: 0
    is the row itself, 1 is nothing learnt. ``privacy`` is empty where the update had no noise.
    """

    method: str
    rows: int
    unit: str
    privacy: dict[str, Any]
    error: float
    baseline: float
    ratio: Estimate
    repeats: int
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def invert(
    plan: Plan, private: Units, public: Units, start: Parameters, *,
    rows: int = 1, protected: bool = True, method: str = CLOSED_FORM, repeats: int = 20, seed: int = 0,
    threads: int | None = None, confidence: float = CONFIDENCE, tick: Progress | None = None,
) -> InversionResult:  # fmt: skip
    """Reconstruct sites of ``rows`` rows, drawn from ``private``, each from its update from ``start``.

    A site is as many variants, or one patient, as the plan's unit is. Where ``protected``, its update is that
    of a round of the plan with its clip and noise, else of one step with all rows and neither. Steps are
    SGD's, whose sum is what the attacker wants to know; he knows plan, start and number of rows. He tries
    the attack on sites of ``public`` rows first, and draws what he reconstructs towards the public mean
    as far as was best there. Rows are matched with the true ones in the order that fits best, so even
    noise comes near to some of them. The baseline may match too: it is the public mean, or what came of
    a public site's update, drawn to the mean as is best for sites it knows nothing of; the better one.
    ``seed`` draws rows; the noise is always fresh. UserError for another architecture or too few rows.
    """
    if plan.model not in INVERTIBLE or method not in METHODS:
        raise UserError(
            f"no inversion of {plan.model} by {method}. Use {' or '.join(METHODS)}, and a plan for "
            f"{' or '.join(INVERTIBLE)}, whose first layer is dense."
        )
    random, tries = np.random.default_rng(seed).spawn(2)
    marginals = Marginals.of(public)
    attempts = []
    for number, pool in enumerate((public, private)):
        sites = [_site(plan, pool, random, rows) for _ in range(repeats)]
        with thread_count(threads):
            updates = [_update(plan, site, start, protected=protected) for site in sites]
            if method == CLOSED_FORM:
                found = np.stack([closed_form(update, marginals, rows) for update in updates])
            else:
                found = match_gradients(plan.model, start, updates, marginals, rows, tries)
        truth = np.stack([np.asarray(site.features, dtype=np.float64) for site in sites])
        attempts.append((marginals.standard(found), marginals.standard(truth)))
        if tick:
            tick(number + 1, 2)
    (tried, tried_truth), (guessed, known) = attempts
    trust, blind = (_trust(guess, tried_truth) for guess in (tried, np.roll(tried, 1, axis=0)))
    errors = _errors(trust * guessed, known)
    baselines = min((_errors(share * tried, known) for share in (0.0, blind)), key=np.mean)
    return InversionResult(
        method, rows, plan.unit, claim(plan) if protected else {}, float(errors.mean()),
        float(baselines.mean()), _ratio(errors, baselines, confidence), repeats, confidence,
    )  # fmt: skip


def closed_form(update: Parameters, marginals: Marginals, rows: int) -> Floats:
    """The input that best explains the first layer's update, as each of ``rows`` rows, float64 [rows, F].

    Every unit i of the layer says dW_i = db_i x; x is the least-squares solution. The public mean where the
    update has no bias gradient: at an mlp's own start, whose last layer is zero, no gradient comes back.
    """
    weight, bias = (update[name].astype(np.float64) for name in (WEIGHT, BIAS))
    square = float(bias @ bias)
    row = np.clip(bias @ weight / square, -LIMIT, LIMIT) if square > 0 else marginals.mean
    return np.tile(row, (rows, 1))


def match_gradients(
    architecture: str, start: Parameters, updates: Sequence[Parameters], marginals: Marginals, rows: int,
    random: np.random.Generator,
) -> Floats:  # fmt: skip
    """Rows whose gradients at ``start`` point away from each of B ``updates``, float64 [B, rows, F].

    Labels are not known: a row's part of the gradient, its label's residual, is sought with it. Features that
    do not vary in public stay as they are, and the others are held near to the public mean, less and less.
    All updates, and RESTARTS tries of each, descend together; the try that fits best is taken.
    """
    import torch
    from torch.nn.functional import cosine_similarity

    mean, deviation = torch.from_numpy(marginals.mean), torch.from_numpy(marginals.deviation)
    module = build(architecture, len(mean))
    load_parameters(module, start)
    values = {name: value.detach().double() for name, value in module.named_parameters()}
    flat = np.stack([np.concatenate([-update[name].ravel() for name in values]) for update in updates])
    wanted = torch.from_numpy(flat.astype(np.float64)).repeat(RESTARTS, 1)
    low, high = (torch.nan_to_num((side - mean) / deviation, 0.0, 0.0, 0.0) for side in (-LIMIT, LIMIT))
    standard = torch.from_numpy(random.normal(size=(len(wanted), rows, len(mean)))).clamp(low, high)
    # The last parameter is the output's bias, whose gradient is the sum of the residuals.
    residuals = wanted[:, -1:].sign().repeat(1, rows)
    residuals = residuals * torch.from_numpy(random.uniform(0.5, 1.5, size=(len(wanted), rows)))
    sought = [standard.requires_grad_(), residuals.requires_grad_()]
    optimiser = torch.optim.Adam(sought, lr=DESCENT_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, DESCENT_STEPS)
    distance = torch.zeros(len(wanted))
    for _ in range(DESCENT_STEPS):
        optimiser.zero_grad()
        gradients = dense_gradients(values, mean + deviation * standard, residuals)
        distance = 1.0 - cosine_similarity(torch.cat([part.flatten(1) for part in gradients], dim=1), wanted)
        near = PRIOR * schedule.get_last_lr()[0] / DESCENT_RATE * (standard**2).sum((1, 2))
        torch.autograd.backward((distance + near).sum())
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            standard.copy_(standard.clamp(low, high))
    tries = (RESTARTS, len(updates), rows, len(mean))
    found = (mean + deviation * standard.detach()).view(tries).numpy()
    best = distance.detach().view(tries[:2]).numpy().argmin(0)
    chosen: Floats = found[best, np.arange(len(updates))]
    return chosen


def dense_gradients(values: Mapping[str, Tensor], inputs: Tensor, residuals: Tensor) -> tuple[Tensor, ...]:
    """The gradients of B sums of scores of ``inputs`` [B, rows, F], each score times its residual [B, rows].

    ``values`` are the parameters of a logistic model or of an mlp (tanh, one hidden layer), by name; the
    gradients come in their order, each with B in front. Written out, since those that torch finds take
    ten times as long to descend on.
    """
    if len(values) == 2:
        return (residuals[:, None] @ inputs), residuals.sum(1, keepdim=True)
    weight, bias, output, _ = values.values()
    hidden = (inputs @ weight.T + bias).tanh()
    back = residuals[..., None] * output[0] * (1.0 - hidden**2)
    first = back.transpose(1, 2) @ inputs, back.sum(1)
    return *first, residuals[:, None] @ hidden, residuals.sum(1, keepdim=True)


def _site(plan: Plan, pool: Units, random: np.random.Generator, rows: int) -> Units:
    """A site of so many rows of the pool: variants, or one patient."""
    if len(pool.labels) < rows:
        raise UserError(f"{len(pool.labels)} rows are no site of {rows}. Give more rows, or ask for fewer.")
    chosen = random.choice(len(pool.labels), rows, replace=False)
    return Units.group(pool.features.take(chosen, 0), pool.labels[chosen], ["patient"] * rows, unit=plan.unit)


def _update(plan: Plan, site: Units, start: Parameters, *, protected: bool) -> Parameters:
    """What the site sends: a round under the plan's clip and noise, or one plain step with all rows."""
    settings = replace(plan.settings_for(declared_for(plan, len(site))), optimiser="sgd", momentum=0.0)
    if not protected:
        settings = replace(
            settings, noise_multiplier=NO_NOISE, clip_norm=NO_CLIP, clipping="fixed", mechanism=GAUSSIAN,
            per_layer=False, sampling_rate=1.0, steps=1, expected_batch=float(len(site)),
            max_variants=len(site.labels), learning_rate=1.0,
        )  # fmt: skip
    return descend(plan.model, start, site, settings, Randomness()).update


def _trust(guessed: Floats, known: Floats) -> float:
    """The share of TRUST_SHARES by which guesses [B, rows, F] are nearest to the known rows."""
    return float(min(TRUST_SHARES, key=lambda share: float(_errors(share * guessed, known).mean())))


def _errors(guessed: Floats, known: Floats) -> Floats:
    """The errors [B] of guessed rows [B, rows, F], matched with the known ones by assignment."""
    squares = np.empty(len(known))
    for site, (own, true) in enumerate(zip(guessed, known, strict=True)):
        distances = ((own[:, None] - true[None]) ** 2).mean(-1)
        squares[site] = distances[linear_sum_assignment(distances)].mean()
    found: Floats = np.sqrt(squares)
    return found


def _ratio(errors: Floats, baselines: Floats, confidence: float) -> Estimate:
    """The ratio of the means, with Student's interval of its linearisation over the repeats."""
    value = float(errors.mean() / baselines.mean())
    if len(errors) < 2:
        return Estimate(value, 0.0, float("inf"))
    deviation = (errors - value * baselines).std(ddof=1) / baselines.mean() / np.sqrt(len(errors))
    reach = float(stats.t.isf((1.0 - confidence) / 2, len(errors) - 1) * deviation)
    return Estimate(value, max(0.0, value - reach), value + reach)
