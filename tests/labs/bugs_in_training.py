"""Bugs that an adversary planted into the code that trains, each with the check that has to refuse it.

A bug changes the source of one function or more, as somebody would who means well or does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from planted_bugs import rewritten

ADAPTIVE, ADAM, MOMENTUM = {"clipping": "adaptive"}, {"optimiser": "adam"}, {"momentum": 0.9}
WIDE = {"model": "mlp"}
DESCEND, RELEASE = "cordon.training.dpsgd.descend", "cordon.privacy.clipping.PrivateMean.release"
SAMPLE = "cordon.privacy.mechanisms.Randomness.poisson_sample"
TRAIN, READ = "cordon.federation.site.participate.Participant._train", "cordon.training.rows.read_rows"
OBSERVE, FACTORS = "cordon.privacy.clipping.AdaptiveClip.observe", "cordon.privacy.clipping.clip_factors"


@dataclass(frozen=True)
class Bug:
    """What changes where, as `planted_bugs.rewritten` takes it; ``said`` stands in the check's reason.

    It is found by as many ``releases`` of each site.
    """

    check: str
    said: str
    changes: dict[str, list[tuple[str, str]]]
    plan: dict[str, Any] = field(default_factory=dict)
    releases: int = 20

    def plant(self, monkeypatch: Any) -> None:
        for place, changes in self.changes.items():
            monkeypatch.setattr(*rewritten(place, *changes))


def in_descend(line: str) -> tuple[str, str]:
    """One more line before a round's first step."""
    return "    steps = optimiser(", f"    {line}\n    steps = optimiser("


def with_raw() -> dict[str, list[tuple[str, str]]]:
    """The mean without noise is kept beside the release."""
    return {RELEASE: [("scale = self.noise_scale()", "scale = self.noise_scale(); self.raw = total")]}


def added(what: str) -> tuple[str, str]:
    """Something more in the update."""
    return "    update = {name", f"    moved += {what}\n    update = {{name"


def rows(said: str, place: str, *changes: tuple[str, str], **plan: Any) -> Bug:
    return Bug("neighbours", said, {place: list(changes)}, plan)


def coins(said: str, sampled: str, **plan: Any) -> Bug:
    """Another sample of ``population`` units."""
    return Bug(
        "sampling",
        said,
        {SAMPLE: [("return np.flatnonzero(self.uniform(population) < rate)", sampled)]},
        plan,
    )


def on_rows(features: str) -> tuple[str, str]:
    """Other features f, before a round."""
    return (
        "    width = units.features.shape[1]",
        f"    if len(units):\n        f = units.features\n        f = {features}\n"
        "        units = __import__('dataclasses').replace(units, features=f.astype(np.float32))\n"
        "    width = units.features.shape[1]",
    )


def in_parts(most: str) -> str:
    """Offsets of units of so many rows at most."""
    return (
        f"np.concatenate([*(np.arange(a, b, {most}) for a, b in "
        "zip(units.offsets[:-1], units.offsets[1:])), units.offsets[-1:]])"
    )


def also_by(what: str) -> Bug:
    """Units by patient and something else of each row."""
    return rows("makes", READ, (
        "for batch in _labelled(paths, _WHOSE):",
        "for path, batch in ((path, batch) for path in paths for batch in _labelled([path], LABELLED)):",
    ), (
        'batch["patient"].combine_chunks()',
        f'pa.array([f"{{a}}/{{b}}" for a, b in zip(batch["patient"].to_pylist(), {what})])',
    ))  # fmt: skip


def norms(change: str) -> Bug:
    """Norms of another precision."""
    norm = "whole if order == 1 else whole.sqrt()"
    return Bug("step bound", "moves a step by", {
        "cordon.privacy.clipping._joined": [(f"return {norm}", f"return ({norm}).{change}.double()")]
    })  # fmt: skip


def unclipped(where: str) -> Bug:
    """No clip for some lengths."""
    change = f"torch.where({where}, 1.0, {CLIPPED})"
    return Bug("step bound", "moves a step by", {FACTORS: [(CLIPPED, change)]})


CLIPPED = "within / norms.clamp(min=within)"
RAW_STEP = "moved += steps.change(*release)", "steps.raw = mean.raw; moved += steps.change(*release)"
NEIGHBOURS = {
    "a gradient that overflows is kept": rows(
        "moves a release", "cordon.privacy.clipping.PrivateMean.clipped_sum",
        ("if not math.isfinite(float(whole.sum()))", "if False"),
    ),
    "how many patients have more rows than a step takes": rows(
        "updates differ", DESCEND, added("float((np.diff(units.offsets) > settings.max_variants).sum())")
    ),
    "the most rows of a patient": rows(
        "updates differ", DESCEND, added("float(np.diff(units.offsets).max()) if len(units) else 0.0")
    ),
    "the mean of raw rows": rows(
        "updates differ", DESCEND, added("1e-3 * float(units.features.mean()) if len(units) else 0.0")
    ),
    "rows as units": rows(
        "makes", "cordon.training.units.Units._grouped",
        ('if unit == "patient" else np.arange(len(labels))\n', "if False else np.arange(len(labels))\n"),
        ('np.arange(len(names)) if unit == "patient" else whose', "whose"),
    ),
    "units of sixty-four rows": rows(
        "makes", "cordon.training.units.Units.read", (
            "    return replace(units, ", f"    cuts = {in_parts('64')}\n"
            "    owners = np.searchsorted(units.offsets, cuts[:-1], side='right') - 1\n"
            "    return replace(units, offsets=cuts, owners=owners, "),
    ),
    "a long patient drawn in parts": rows(
        "moves a release", "cordon.training.dpsgd.draw", (
            "    units.require(settings.unit)\n", "    units.require(settings.unit)\n"
            f"    units = Units(units.features, units.labels, {in_parts('shape[1]')}, units.unit)\n"),
    ),
    "units by patient and sample": also_by('batch["sample"].to_pylist()'),
    "units by patient and contig": also_by('batch["contig"].to_pylist()'),
    "units by patient and table": also_by("[path] * batch.num_rows"),
    "one person's ids are two": rows(
        "makes", "cordon.training.units.Units.read", ("ids = one_id or {}", "ids = {}")
    ),
    "missing values filled by the median": rows(
        "that it is not in", DESCEND, on_rows("np.where(f == 0, np.median(f, 0), f)")
    ),
    "features less their own mean": rows("that it is not in", DESCEND, on_rows("f - np.nanmean(f, 0)")),
    "features that hardly vary left out": rows(
        "that it is not in", DESCEND, on_rows("f * (f.std(0) > np.float32(0.9))")
    ),
    "patients without budget take part": rows(
        "no room left", "cordon.federation.site.participate.Participant._taking",
        ("units.owners is None", "True")
    ),
    "momentum of raw gradients": Bug(
        "neighbours", "updates differ", with_raw() | {
            DESCEND: [RAW_STEP],
            "cordon.training.optimisers.SGD.change": [
                ("self._velocity + gradient", "self._velocity + getattr(self, 'raw', 0.0)")
            ],
        }, MOMENTUM,
    ),
    "a second moment of raw gradients": Bug(
        "neighbours", "updates differ", with_raw() | {
            DESCEND: [RAW_STEP],
            "cordon.training.optimisers.Adam.change": [
                ("* gradient * gradient", "* (getattr(self, 'raw', 0.0) + 0.0 * gradient) ** 2")
            ],
        }, ADAM,
    ),
    "a count of rows": rows(
        "moves a count by", OBSERVE, ("self._within += ", "self._within += 4 * "),
        ("self._sampled += ", "self._sampled += 4 * "), **ADAPTIVE,
    ),
    "each layer to the whole clip": rows(
        "moves a release by 1.4", "cordon.privacy.clipping.PrivateMean.summed",
        ("self.clip.norm / len(layers) ** (1 / self.order)", "self.clip.norm"), per_layer=True, **WIDE,
    ),
    "no clip on images": rows(
        "moves a release by", FACTORS, (CLIPPED, "norms * 0.0 + 1.0"), model="pileup_cnn"
    ),
}  # fmt: skip
SAMPLING = {
    "two units on one coin": coins(
        "two units are not sampled apart",
        "return np.flatnonzero(np.repeat(self.uniform((population + 1) // 2), 2)[:population] < rate)",
    ),
    "two rare units on one coin": coins(
        "two units are not sampled apart",
        "return np.flatnonzero(np.repeat(self.uniform((population + 1) // 2), 2)[:population] < rate)",
        sampling_rate=0.02,
    ),
    "one unit twice as often": coins(
        "of one of the units fall",
        "drawn = self.uniform(population); drawn[5:6] /= 2; return np.flatnonzero(drawn < rate)",
        sampling_rate=0.1,
    ),
    "an empty sample drawn again": coins(
        "at a site of 1 patients",
        "drawn = self.uniform(population)\n    while population and not (drawn < rate).any(): "
        "drawn = self.uniform(population)\n    return np.flatnonzero(drawn < rate)",
    ),
    "all units": coins("in all fall", "return np.arange(population)"),
    "all units or none": coins(
        # Of 200 steps some have all units: whether the pairs' own test tells that is chance, and this is not.
        "of one of the rounds fall", "return np.flatnonzero(self.uniform(1).repeat(population) < rate)"
    ),
    "batches of one size": coins(
        "not a binomial's", "return np.argsort(self.uniform(population))[: max(1, round(population * rate))]"
    ),
    "shuffled batches": coins(
        "not a binomial's", "size, held = max(1, round(population * rate)), self.__dict__\n"
        "    if len(held.get('left', ())) < size: held['left'] = np.argsort(self.uniform(population))\n"
        "    batch, held['left'] = held['left'][:size], held['left'][size:]\n    return np.sort(batch)",
    ),
    "one sample for two steps": coins(
        "two steps are not sampled apart", "held = self.__dict__; held['n'] = held.get('n', -1) + 1\n"
        "    if not held['n'] % 2: held['was'] = np.flatnonzero(self.uniform(population) < rate)\n"
        "    return held['was']",
    ),
    "one sample a round under an adaptive clip": Bug(
        "sampling", "two steps are not sampled apart", {DESCEND: [in_descend(
            "random.__dict__['poisson_sample'] = __import__('functools').cache(random.poisson_sample)\n    "
        )]}, ADAPTIVE,
    ),
    "the same samples in every round": coins(
        "two rounds are not sampled apart", "held = self.__dict__; held['n'] = held.get('n', -1) + 1\n"
        "    return np.flatnonzero(np.random.default_rng(held['n']).random(population) < rate)",
    ),
    "no more than one block": Bug(
        "sampling", "of one of the units fall", {"cordon.training.dpsgd.draw": [
            ("range(0, len(sampled), shape[0])", "range(0, min(1, len(sampled)), shape[0])")]},
    ),
}  # fmt: skip
EGRESS = {
    "the number of units in the event's last digits": Bug(
        "egress", "noise_multiplier depends", {TRAIN: [(
            "return Reply(ReplyStatus.TRAINED, plan.run, task.round, plan.event,",
            "more = plan.event.noise_multiplier * (1 + 1e-12 * len(units))\n"
            "    spent = replace(plan.event, noise_multiplier=more)\n"
            "    return Reply(ReplyStatus.TRAINED, plan.run, task.round, spent,",
        )]},
    ),
}  # fmt: skip
STEP_BOUND = {
    "no clip below ten clips": unclipped("norms < 10 * within"),
    "no clip above a hundred thousand clips": unclipped("norms > 1e5 * within"),
    "norms in half precision": norms("half()"),
    "norms in bfloat16": norms("bfloat16()"),
    "of a sample no more than one block": Bug(
        "step bound", "would have been refuted", SAMPLING["no more than one block"].changes, WIDE
    ),
}
