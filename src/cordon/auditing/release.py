"""The release gate: every check that a model must pass before it leaves, run on the code that trained it.

Claims, what trained, updates of made-up rows, messages and the step bound tell nothing of patients. One run
and attacks train on rows with labels, by replays of the run's plan (`cordon.auditing.replay`), or look at the
model itself: what they find on patients' rows is in no ledger, so it stays where the rows are unless they are
public.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from cordon.auditing import (
    additions,
    canaries,
    carriers,
    inversion,
    membership,
    reserving,
    sampling,
    shadows,
    specified,
    step_bound,
    updates,
)
from cordon.auditing.attack_scores import AttackScore, at_best, best_advantage
from cordon.auditing.checks import Check, confirmed
from cordon.auditing.claims import check_claims
from cordon.auditing.egress import check_egress
from cordon.auditing.shadows import Shadowing
from cordon.auditing.training import check_training
from cordon.federation.plan import Plan
from cordon.ledger.hash_chain import Chain
from cordon.ledger.rows import AuditSettings
from cordon.model.architectures import Parameters
from cordon.model.released import Model
from cordon.privacy.events import at_sites
from cordon.privacy.tradeoff import FPR, Tradeoff, tradeoff
from cordon.steps import Steps, Tick, silent
from cordon.training.units import Units
from cordon.variants.pileup_images import WITH_IMAGES

# Units that attacks look at, and rows of each, drawn where there are more: a whole genome has millions.
MOST_UNITS_ATTACKED, MOST_ROWS_ATTACKED = 2000, 2048
ONE_RUN_CANARIES = 256
INVERTED_ROWS = (1, 4)
RARE_ROWS = 8
# All attacks of one audit share 5 % of error, so that an honest model rarely fails by chance.
ATTACKS_CONFIDENCE = 0.998
MEMBERSHIP = "Can an attacker tell who took part, from the model or from the updates?"
CARRIERS = "Can an attacker tell that a site has a carrier of a rare allele?"
INVERSION = "Can rows be reconstructed from an update?"
PERFECT = {
    True: "an attack that is always right would have failed it",
    False: "not even an attack that is always right would have failed it",
}
MADE_UP = (
    updates.check_noise, additions.check_neighbours, sampling.check_sampling, specified.check_specified,
    reserving.check_reserving,
)  # fmt: skip


@dataclass(frozen=True)
class AttackLimits:
    """The most that attacks may achieve, at the lower end of their intervals, whatever the plan allows.

    ``auc`` of membership inference, ``tpr`` at 1 % false positives, ``advantage`` at telling a carrier, and
    ``closeness``, by which a reconstruction may be better than a guess from public marginals.
    """

    auc: float = 0.75
    tpr: float = 0.25
    advantage: float = 0.5
    closeness: float = 0.25


def settings_of(limits: AttackLimits, trainings: int) -> AuditSettings:
    """What an audit was held against and how often it tried, for its record."""
    confidence = {
        "attacks": ATTACKS_CONFIDENCE, "step bound": step_bound.STEP_CONFIDENCE,
        "made-up rows": 1.0 - updates.ERROR,
    }  # fmt: skip
    return {
        "limits": asdict(limits), "trainings": trainings, "canaries": ONE_RUN_CANARIES,
        "confidence": confidence,
    }  # fmt: skip


@dataclass(frozen=True)
class Audited:
    """What is audited: the ``model``, its ``plan`` and ``start``, and the ``chain`` of what was spent.

    ``trained`` are units that it was trained on and ``held_out`` others like them, or None; ``public`` says
    that the figures of these rows may be told. ``model_hash`` is what the run's record says, ``beside`` are
    the other site ledgers in the folder of ``chain``.
    """

    model: Model
    plan: Plan
    start: Parameters
    chain: Chain
    trained: Units
    held_out: Units | None = None
    public: bool = False
    model_hash: str | None = None
    beside: Sequence[Chain] = ()

    @property
    def private(self) -> bool:
        """Whether what attacks find stays with the rows."""
        return not self.public


@dataclass(frozen=True)
class _Attacks:
    """How an audit attacks: what it allows, how often it trains anew, and what ``seed`` its draws come of."""

    limits: AttackLimits
    trainings: int
    seed: int
    threads: int | None
    steps: Steps

    def shadowing(self, tick: Tick) -> Shadowing:
        """As many shadows as there are trainings, each told by ``tick``."""
        return Shadowing(
            shadows=self.trainings, threads=self.threads, seed=self.seed, confidence=ATTACKS_CONFIDENCE,
            tick=lambda done, of: tick(),
        )  # fmt: skip


def examine(
    audited: Audited, *, limits: AttackLimits | None = None, trainings: int = 64, seed: int | None = None,
    threads: int | None = None, steps: Steps = silent,
) -> Iterator[Check]:  # fmt: skip
    """Each check as it is done, the quick and the exact ones first.

    ``trainings`` are replayed for LiRA and again for carriers; ``seed`` chooses rows and canaries, and None
    draws it: who knows it could train against it.
    """
    limits = limits or AttackLimits()
    plan, own = audited.plan, audited.trained
    source = np.random.default_rng(seed)
    yield check_claims(
        audited.model, plan, audited.chain, beside=audited.beside, model_hash=audited.model_hash
    )
    yield check_training(audited.chain, plan.run)
    # First what forks: before this process has threads, or a GPU's context, of its own.
    with steps("updates: whole rounds of made-up rows", len(MADE_UP), "checks") as tick:
        for check in MADE_UP:
            yield confirmed(partial(check, plan))
            tick()
    yield check_egress(plan, audited.start, some(own, 8, source), shadows.declared_for(plan, len(own)))
    with steps("step bound: many single steps on worst-case units", None, ""):
        bound = confirmed(partial(step_bound.check_step, plan))
    yield bound
    private = audited.private
    yield _one_run(audited, source, threads, steps)
    pool = own
    # Images of other tables lie in another file: with them, the rows trained on must do.
    if audited.held_out is not None and plan.model not in WITH_IMAGES:
        pool = canaries.together(own, audited.held_out)
    units = some(pool, MOST_UNITS_ATTACKED, source)
    attacks = _Attacks(limits, trainings, int(source.integers(2**31)), threads, steps)
    few = f"{len(units)} units are fewer than {membership.LEAST_UNITS}"
    images = f"it is not made for {plan.model}" if plan.model in WITH_IMAGES else ""
    too_few = few if len(units) < membership.LEAST_UNITS else ""
    if not too_few:
        yield _membership(audited, units, attacks)
    else:
        yield Check.untried("membership", MEMBERSHIP, too_few, private=private)
    if not (too_few or images):
        yield _carriers(audited, units, attacks)
    else:
        yield Check.untried("carriers", CARRIERS, images or too_few, private=private and not images)
    if not images:
        yield _inversion(audited, units, attacks)
    else:
        yield Check.untried("inversion", INVERSION, images)


def some(units: Units, most: int, source: np.random.Generator) -> Units:
    """At most so many of the units, and MOST_ROWS_ATTACKED of each one's rows, drawn at random."""
    sizes = np.diff(units.offsets)
    if len(units) <= most and sizes.max() <= MOST_ROWS_ATTACKED:
        return units
    rows = np.zeros(len(units.labels), dtype=bool)
    for unit in source.choice(len(units), min(most, len(units)), replace=False):
        drawn = source.choice(sizes[unit], min(sizes[unit], MOST_ROWS_ATTACKED), replace=False)
        rows[units.offsets[unit] + drawn] = True
    return shadows.kept(units, rows)


def _one_run(audited: Audited, source: np.random.Generator, threads: int | None, steps: Steps) -> Check:
    """Private as attacks are: its replays train on the rows once more, and no ledger accounts for that."""
    question = "Do canaries in a whole run betray more than epsilon allows?"
    plan, own = audited.plan, some(audited.trained, MOST_UNITS_ATTACKED, source)
    views = ("black-box",) if plan.model in WITH_IMAGES else ("white-box", "updates", "black-box")
    declared = shadows.declared_for(plan, len(own) + ONE_RUN_CANARIES / 2)
    bounds = []
    with steps("one run: the plan again, with canaries", len(views), "trainings") as tick:
        for view in views:
            bound = canaries.audit_one_run(
                plan, own, declared, audited.start, canaries=ONE_RUN_CANARIES, view=view,
                seed=int(source.integers(2**31)), confidence=ATTACKS_CONFIDENCE, threads=threads,
            )  # fmt: skip
            bounds.append(bound)
            tick()
    worst = max(bounds, key=lambda bound: bound.epsilon_lower)
    found = f"{worst.view}: {worst.statement()}"
    most = max(bounds, key=lambda bound: bound.most)
    return Check.of(
        "one run", question, [found] if any(bound.exceeds for bound in bounds) else [], found,
        {"bounds": [bound.to_dict() for bound in bounds]}, private=audited.private,
        most=f"had every guess been right it would have shown {most.statement(most.most)}; the plan's budget "
        f"for one site is {plan.epsilon_at_site:.4g}",
        able=most.most > plan.epsilon_at_site,
    )  # fmt: skip


def _membership(audited: Audited, units: Units, attacks: _Attacks) -> Check:
    plan, limits = audited.plan, attacks.limits
    with attacks.steps("membership", attacks.trainings, "trainings") as tick:
        results = membership.attack(plan, units, None, audited.start, attacks.shadowing(tick))
    if audited.held_out is not None:
        against = membership.threshold_attack(
            audited.model, audited.trained, audited.held_out, unit=plan.unit, confidence=ATTACKS_CONFIDENCE
        )
        results.append(against)
    curve = at_one_site(plan)
    faults = [
        f"{result.attack} on the {result.view}: {fault}"
        for result in results for fault in _score_faults(result.score, curve, limits)
    ]  # fmt: skip
    best = max(results, key=lambda result: result.score.auc.low)
    found = f"the best attack, {best.attack} on the {best.view}, reaches an AUC of {best.score.auc}"
    figures = {
        "results": [result.to_dict() for result in results], "limits": asdict(limits),
        "most": {"auc": curve.area, "tpr": curve.most(FPR), "fpr": FPR, **membership.claim(plan)},
    }  # fmt: skip
    able = any(
        True
        for result in results
        for score in at_best(result.score) for _ in _score_faults(score, curve, limits)
    )  # fmt: skip
    return Check.of(
        "membership",
        MEMBERSHIP,
        faults,
        found,
        figures,
        private=audited.private,
        most=PERFECT[able],
        able=able,
    )


def at_one_site(plan: Plan) -> Tradeoff:
    """The curve of one site's part in all rounds: it alone is attacked."""
    return tradeoff(at_sites([plan.event] * plan.rounds, 1), plan.delta)


def _score_faults(score: AttackScore, curve: Tradeoff, limits: AttackLimits) -> Iterator[str]:
    """No attack on a training lies above its ``curve``; the mean over units does not, for it is concave."""
    beyond = "more than the plan's trade-off curve allows"
    if score.auc.low > curve.area:
        yield f"an AUC of {score.auc}, {beyond} ({curve.area:.3f})"
    elif score.auc.low > limits.auc:
        yield f"an AUC of {score.auc}, above {limits.auc:g}"
    for rate in score.rates:
        if rate.tpr is None or rate.reached is None:
            continue
        allowed = curve.most(rate.reached.high)
        if rate.tpr.low > allowed:
            yield f"{rate.tpr} of members at {rate.fpr:g} false positives, {beyond} ({allowed:.3f})"
        elif rate.fpr <= 0.01 and rate.tpr.low > limits.tpr:
            yield f"{rate.tpr} of members at {rate.fpr:g} false positives, above {limits.tpr:g}"


def _carriers(audited: Audited, units: Units, attacks: _Attacks) -> Check:
    plan, limits = audited.plan, attacks.limits
    rare = carriers.rarest(units, min(RARE_ROWS, len(units) // 3))
    with attacks.steps("carriers", attacks.trainings, "trainings") as tick:
        found = carriers.probe(plan, units, rare, None, audited.start, attacks.shadowing(tick))
    told = [result.advantage for result in found if result.advantage is not None]
    worst = max(told, key=lambda advantage: advantage.value)
    exceeds = max(advantage.low for advantage in told) > limits.advantage
    reason = f"the largest advantage over a guess is {worst}; {limits.advantage:g} is allowed"
    figures = {"results": [result.to_dict() for result in found], "limits": asdict(limits)}
    able = max(best_advantage(result.score) for result in found) > limits.advantage
    return Check.of(
        "carriers", CARRIERS, [reason] if exceeds else [], reason, figures, private=audited.private,
        most=PERFECT[able], able=able,
    )  # fmt: skip


def _inversion(audited: Audited, units: Units, attacks: _Attacks) -> Check:
    plan, limits = audited.plan, attacks.limits
    half = np.arange(len(units)) % 2 == 0
    known, secret = shadows.members_of(units, half), shadows.members_of(units, ~half)
    tries = [(rows, method) for rows in INVERTED_ROWS for method in inversion.METHODS]
    results = []
    with attacks.steps("inversion: rows from one update", len(tries), "attacks") as tick:
        for rows, method in tries:
            found = inversion.invert(
                plan, secret, known, audited.start, rows=rows, method=method, seed=attacks.seed,
                threads=attacks.threads, confidence=ATTACKS_CONFIDENCE,
            )  # fmt: skip
            results.append(found)
            tick()
    best = min(results, key=lambda result: result.ratio.high)
    close = best.ratio.high < 1.0 - limits.closeness
    reason = f"the best reconstruction errs {best.ratio} times as much as a guess from public marginals"
    figures = {"results": [result.to_dict() for result in results], "limits": asdict(limits)}
    return Check.of(
        "inversion", INVERSION, [reason] if close else [], reason, figures, private=audited.private,
        most=f"errors of less than {1.0 - limits.closeness:g} of a guess's would have failed it",
    )  # fmt: skip
