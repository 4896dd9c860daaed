"""Bugs in noise, in its generator, and in what else goes into an update; as those of bugs_in_training."""

from __future__ import annotations

from typing import Any

from bugs_in_training import (
    ADAM,
    ADAPTIVE,
    DESCEND,
    MOMENTUM,
    OBSERVE,
    RELEASE,
    TRAIN,
    WIDE,
    Bug,
    added,
    in_descend,
    with_raw,
)
from cordon.privacy.events import LAPLACE
from cordon.variants.features import FEATURES

TAKE, DRAW = "cordon.privacy.clipping.NoiseStream.take", "cordon.privacy.clipping.draw_noise"
MOVE, SCALE = "cordon.privacy.clipping.AdaptiveClip.move", "cordon.privacy.clipping.PrivateMean.noise_scale"
SETTINGS = "settings = plan.settings_for(self._terms.declared_patients)"
ADDED = "(parameters) * scale + total"
WIDTH, STEP = "    width = units.features.shape[1]", "moved += steps.change(*release)"
# Of a mlp's parameters: where its last layer begins.
LAST = 16 * len(FEATURES) + 16


def noise(said: str, place: str, *changes: tuple[str, str], **plan: Any) -> Bug:
    return Bug("noise", said, {place: list(changes)}, plan)


def taken(change: str) -> tuple[str, str]:
    """A step's noise, changed before it is given out."""
    return "return step", f"step = step.clone()\n    {change}\n    return step"


def little(when: str) -> tuple[str, str]:
    """Next to no noise in some rounds."""
    return SETTINGS, f"{SETTINGS}\n    if {when}: settings = replace(settings, noise_multiplier=0.1)"


def with_settings(what: str) -> str:
    """Other settings of a round."""
    return f"settings = __import__('dataclasses').replace(settings, {what})"


NOISE = {
    "noise masked where units are": noise(
        "where units add to a release", RELEASE,
        (ADDED, "(parameters) * scale * (total == 0 if sampled else 1.0) + total"),
    ),
    "noise masked where no units are": noise(
        "where units add to a release", RELEASE,
        (ADDED, "(parameters) * scale * (total != 0 if sampled else 1.0) + total"),
    ),
    "no noise for an empty sample": noise(
        "of the declared one", RELEASE,
        (ADDED, "(parameters) * scale * (sampled > 0) + total"),
    ),
    "noise by the longest gradient": Bug(
        "noise", "of the declared one", {
            "cordon.privacy.clipping.PrivateMean.clipped_sum": [(
                "    self.clip.observe(",
                "    self.top = max(getattr(self, 'top', 0.0), float(whole.max()))\n    self.clip.observe(",
            )],
            SCALE: [(
                "* self.clip.norm", "* min(self.clip.norm, self.__dict__.pop('top', self.clip.norm))",
            )],
        },
    ),
    "gradients where no noise led": Bug(
        "noise", "gradients are taken elsewhere", with_raw() | {DESCEND: [
            ("for _ in range", "walked = 0.0\n    for _ in range"),
            ("position.copy_(first + moved)", "walked = walked - settings.learning_rate * mean.raw\n"
             "        position.copy_(first + walked)"),
        ]},
    ),
    "the last round nearly without noise": noise(
        "of the declared one", TRAIN, little("task.round == plan.rounds")
    ),
    "rounds from the fifth on nearly without noise": noise(
        "of the declared one", TRAIN, little("task.round >= 5")
    ),
    "averaged rounds nearly without noise": noise(
        "of the declared one", TRAIN, little("task.round > plan.rounds - plan.averaged_rounds"),
        averaged_rounds=3,
    ),
    "half of the noise under Adam": noise(
        "of the declared one", DESCEND,
        in_descend("if settings.optimiser == 'adam': mean.clip.noise_multiplier *= 0.5"), **ADAM,
    ),
    "half of the noise under momentum": noise(
        "of the declared one", DESCEND, in_descend("if settings.momentum: mean.clip.noise_multiplier *= 0.5"),
        **MOMENTUM,
    ),
    "no noise under an adaptive clip": noise(
        "of the declared one", DESCEND,
        in_descend("if settings.clipping == 'adaptive': mean.clip.noise_multiplier *= 1e-6"), **ADAPTIVE,
    ),
    "a first step of fifty without noise": Bug(
        "noise", "of one release", {
            DESCEND: [("for _ in range(settings.steps):",
                       "for step in range(settings.steps):\n        mean.quiet = step == 0")],
            SCALE: [("* self.clip.norm", "* self.clip.norm * (1e-9 if self.quiet else 1.0)")],
        }, {"local_steps": 50},
    ),
    "uniform noise": noise(
        "another distribution", DRAW, ("random.normal(size)", "(random.uniform(size) - 0.5) * 12**0.5"),
        **WIDE,
    ),
    "Gaussian noise for Laplace's": noise(
        "another distribution", DRAW, ("random.laplace(size)", "random.normal(size) * 2**0.5"),
        mechanism=LAPLACE, **WIDE,
    ),
    "noise cut at three deviations": noise(
        "none is beyond 3", DRAW, ("random.normal(size))", "random.normal(size)).clamp(-3, 3)"), **WIDE,
    ),
    "half of the noise in the last layer": noise(
        "of one of the model's parameters", TAKE, taken(f"step[{LAST}:] *= 0.5"), **WIDE,
    ),
    "half of the noise in biases": noise(
        "of one of the model's parameters", TAKE, taken(f"step[{LAST - 16}:{LAST}] *= 0.5; step[-1] *= 0.5"),
        **WIDE,
    ),
    "half of the noise in one number": Bug(
        "noise", "of one number", {TAKE: [taken("step[3] *= 0.5")]}, releases=100
    ),
    "noise in half precision": noise(
        "fewer values", DRAW, ("random.normal(size))", "random.normal(size)).half().double()"), **WIDE,
    ),
    "noise in eighths": noise(
        "fewer values", DRAW, ("random.normal(size))", "(random.normal(size) * 8).round() / 8)"), **WIDE,
    ),
    "no grid": noise(
        "off the public grid", "cordon.privacy.mechanisms.on_grid", ("np.round(noisy / step) * step", "noisy")
    ),
    "one Box-Muller draw": noise(
        "random bytes, and 32 are needed", "cordon.privacy.mechanisms.Randomness.normal", ("SUMMANDS", "1")
    ),
    "uniform draws of twelve bits": noise(
        "not uniform from their binary digit 13", "cordon.privacy.mechanisms.Randomness.uniform",
        (">> _EXPONENT_BITS", ">> _EXPONENT_BITS & np.uint64(0xFFF0000000000)"),
    ),
    "keys of sixteen bits": noise(
        "begin alike", "cordon.privacy.mechanisms.fresh_bytes",
        ("os.urandom(32)", "os.urandom(2) + bytes(30)")
    ),
    "noise of overlapping windows": noise(
        "come again", TAKE,
        ("step = next(self._drawn, None)", "self.place = getattr(self, 'place', -1) + 1\n"
         "    if not self.place: self.held = draw_noise(self._random, self._mechanism, size + 10_000)\n"
         "    return self.held[self.place : self.place + size]"),
    ),
    "noise that two steps share": noise(
        "come again", TAKE, ("step = next(self._drawn, None)",
                                    "self.place = getattr(self, 'place', -1) + 1\n"
                                    "    if self.place % 2: return self.held\n"
                                    "    step = next(self._drawn, None)"),
        ("return step", "self.held = step\n    return step"),
    ),
    "noise that two numbers share": noise(
        "share their noise", TAKE, taken("step[20:40] = step[:20]"), **WIDE
    ),
    "labels' mean in an update": noise(
        "not what the optimiser makes", DESCEND, added("float(units.labels.mean()) if len(units) else 0.0")
    ),
    "weight decay by labels": noise(
        "elsewhere", DESCEND,
        (STEP, f"{STEP} - 1e-3 * (float(units.labels.mean()) if len(units) else 0.0) * (first + moved)"),
    ),
    "a rate by labels under Adam": noise(
        "elsewhere", DESCEND,
        in_descend(with_settings("learning_rate=float(units.labels.mean()) if len(units) else 1.0")), **ADAM
    ),
    "the better of two trainings": noise(
        "releases", TRAIN, ("trained = train(", "train(plan.model, task.parameters, taking, settings, "
                            "clip_norm=carried)\n    trained = train("),
    ),
    "one step too many": noise("releases", DESCEND, ("range(settings.steps)", "range(settings.steps + 1)")),
    "a raw mean in the next update": Bug(
        "noise", "not what the optimiser makes", with_raw() | {DESCEND: [
            ("    update = {name", "    moved += vars(unit_gradients).get('last', 0.0)\n"
             "    unit_gradients.last = mean.raw\n    update = {name"),
        ]},
    ),
    "a carried clip that is the median": Bug(
        "noise", "a clip norm is another", {
            OBSERVE: [("self._sampled += len(norms)", "self._sampled += len(norms); self.seen = norms")],
            DESCEND: [("Trained(update, mean.clip.norm", "Trained(update, float(mean.clip.seen.median()) "
                       "if len(getattr(mean.clip, 'seen', ())) else mean.clip.norm")],
        }, ADAPTIVE,
    ),
    "a clip halfway to the median": Bug(
        "noise", "off the public grid", {
            OBSERVE: [("self._sampled += len(norms)", "self._sampled += len(norms); self.seen = norms")],
            MOVE: [("self._within = self._sampled = 0",
                    "self._within = self._sampled = 0\n    if len(getattr(self, 'seen', ())):\n"
                    "        self.norm = (self.norm * float(self.seen.median())) ** 0.5")],
        }, ADAPTIVE,
    ),
    "a count without noise": noise(
        "of counts", MOVE, ("* self._count_noise\n", "* self._count_noise * 1e-9\n"), **ADAPTIVE
    ),
    "half of a count's noise": Bug(
        "noise", "of counts", {MOVE: [("* self._count_noise\n", "* self._count_noise * 0.5\n")]}, ADAPTIVE,
        releases=100,
    ),
    "a count's noise that is the gradient's": Bug(
        "noise", "share their noise", {
            TAKE: [("return step", "self._random.__dict__['last'] = step[:1]\n    return step")],
            MOVE: [("draw_noise(random, self._mechanism, 1)", "random.last")],
        }, ADAPTIVE,
    ),
    "gradient and count for the price of one": noise(
        "times what the plan accounts for", "cordon.privacy.clipping.split_noise",
        ("noise_multiplier / math.sqrt(1 - share), noise_multiplier / (2 * math.sqrt(share))",
         "noise_multiplier, noise_multiplier / 2"), **ADAPTIVE,
    ),
    "the first clip's noise for every clip": Bug(
        "noise", "of another variance", {"cordon.privacy.clipping.PrivateMean.noise_scale": [
            ("* self.clip.norm", "* self.__dict__.setdefault('first', self.clip.norm)")
        ]}, ADAPTIVE | {"local_steps": 50},
    ),
    "a noise variance by the sample": noise(
        "of another variance", RELEASE, ("deviation**2)", "deviation**2 / max(1, sampled) ** 2)"), **ADAM
    ),
    "a normaliser by the sample": noise(
        "off the public grid", "cordon.privacy.clipping.PrivateMean.normaliser",
        ("return self.expected_batch", "return max(sampled, 1)"),
    ),
    "a batch by the units held": noise(
        "of another variance", DESCEND,
        (WIDTH, f"{WIDTH}\n    {with_settings('expected_batch=1.0 + len(units)')}"),
    ),
    "blocks after the first unclipped": noise(
        "of the declared one", RELEASE,
        ("self.clipped_sum(block).cpu()", "(self.clipped_sum(block).cpu() if not sampled else torch.cat("
         "[x.summed(torch.ones(len(x.norms(2)), dtype=torch.float64)) for x in self.gradients.of(block)]))"),
    ),
}  # fmt: skip
