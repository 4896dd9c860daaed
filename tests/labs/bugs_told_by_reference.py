"""Bugs that a second adversary planted, which pass whoever does not know what a release should be.

They are told by a round that is written out once more (cordon.auditing.specified), by what stands in the
ledger while rounds train (reserving), or by what a key stream is made of (noise).
"""

from __future__ import annotations

from typing import Any

from bugs_in_training import ADAPTIVE, DESCEND, READ, RELEASE, TRAIN, WIDE, Bug
from cordon.privacy.events import LAPLACE

TAKE, DRAW = "cordon.privacy.clipping.NoiseStream.take", "cordon.privacy.clipping.draw_noise"
COPIED = "cordon.training.rows._copied"
DRAWN, SUM = "cordon.training.dpsgd.draw", "cordon.privacy.clipping.PrivateMean.clipped_sum"
BYTES = "cordon.privacy.mechanisms.fresh_bytes"
SCORES, OF = "cordon.privacy.gradients._score_gradients", "cordon.privacy.gradients.DenseGradients.of"
NORMS = "cordon.privacy.gradients.Whole.norms"
VARIANT, IMAGES = {"unit": "variant"}, {"model": "pileup_cnn", "local_steps": 2}
AWAY = "of the noise's scale away from what its rows"
NOISY = "self._noise.take(parameters) * scale + total"
FORMED = "found.append(Whole(torch.cat(parts, dim=1)))"


def told(place: str, *changes: tuple[str, str], said: str = AWAY, **plan: Any) -> Bug:
    return Bug("specified", said, {place: list(changes)}, plan)


def step_is(what: str, **plan: Any) -> Bug:
    """A step's noise is changed before it is given out."""
    return told(TAKE, ("return step", what), **plan)


def whole_batches(schema: str) -> tuple[str, str]:
    """A table's rows without labels are at hand, too."""
    return (
        f"for batch in _labelled(paths, {schema}):",
        f"for whole in (batch for path in paths for batch in read_batches(path, {schema})):\n"
        "        batch = whole.filter(whole['label'].is_valid())",
    )


def noisy(what: str, **plan: Any) -> Bug:
    """A sum and its noise are joined otherwise."""
    return told(RELEASE, (NOISY, what), **plan)


def scores(what: str, **plan: Any) -> Bug:
    """What comes back from a block's scores is otherwise."""
    return told(SCORES, ("return (scores.reshape(-1, 1).sigmoid() - labels) * weights", what), **plan)


def settings(what: str, said: str = AWAY, **plan: Any) -> Bug:
    """A round is trained by other settings."""
    made = "settings = plan.settings_for(self._terms.declared_patients)"
    return told(TRAIN, (made, f"{made}\n    settings = replace(settings, {what})"), said=said, **plan)


def key_stream(said: str, what: str) -> Bug:
    made = "stream = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(bytes(16))).encryptor()"
    return Bug("noise", said, {BYTES: [(made, what)]})


def reserving(said: str, place: str, *changes: tuple[str, str], **others: Any) -> Bug:
    return Bug("reserving", said, {place: list(changes), **others})


TOLD_BY_REFERENCE = {
    "noise of mean zero": step_is("return step - step.mean()"),
    "standardised noise": step_is("return (step - step.mean()) / step.std()", **WIDE),
    "noise of one length": step_is("return step * (size ** 0.5 / step.norm())"),
    "noise of one length, Laplace's": step_is("return step * (size / step.abs().sum())", mechanism=LAPLACE),
    "noise against the last step's": step_is(
        "last = getattr(self, 'last', step); self.last = step; return (step - 0.1 * last) / 1.01**0.5"
    ),
    "noise by a schedule": step_is(
        "self.n = getattr(self, 'n', -1) + 1\n"
        "    return step * (1.4, 1.2, 1.0, 0.8, 0.6)[self.n % 5] ** 0.5"
    ),
    "noise of one dimension fewer": step_is(
        "step = step.clone(); step[:-1] -= step[:-1].mean(); return step"
    ),
    "each size of noise twice": told(
        DRAW, ("random.normal(size))", "np.resize(random.normal((size + 1) // 2), size) "
               "* np.where(random.uniform(size) < 0.5, -1.0, 1.0))"),
    ),
    "noise that begins again when it is used up": told(
        TAKE, ("self._drawn = iter(", "self._drawn = __import__('itertools').cycle("), local_steps=300,
        sampling_rate=0.05,
    ),
    "noise shared out over blocks": told(
        RELEASE, ("total: Tensor", "blocks = list(blocks)\n    total: Tensor"),
        ("self._noise.take(parameters) * scale", "sum((self._noise.take(parameters) for _ in blocks[1:]), "
         "self._noise.take(parameters)) * (scale / max(1, len(blocks)))"), **VARIANT,
    ),
    "no noise where a sum is large": noisy(
        "self._noise.take(parameters) * scale * (torch.as_tensor(total).abs() < 5 * self.clip.norm) + total"
    ),
    "less noise where a batch is large": noisy(
        "self._noise.take(parameters) * scale * (0.3 if sampled > 2 * self.expected_batch + 20 else 1) "
        "+ total"
    ),
    "less noise for people at two sites": settings(
        "noise_multiplier=settings.noise_multiplier / plan.sites_per_patient**0.5", sites_per_patient=2
    ),
    "steps taken for epochs": told(
        "cordon.federation.plan.Plan.settings_for",
        ("steps=self.local_steps,", "steps=math.ceil(self.local_steps / self.sampling_rate),"),
        said="at another cost than is reserved",
    ),
    "keys of thirty-two bits": key_stream(
        "of the operating system's", "return np.random.default_rng(int.from_bytes(os.urandom(4), 'big'))"
        ".bytes(size)\n    stream = None"
    ),
    "a key stream that begins again": key_stream(
        "come again", "each = min(size, 2**18)\n    cipher = Cipher(algorithms.AES(os.urandom(32)), "
        "modes.CTR(bytes(16)))\n    return b''.join(cipher.encryptor().update(bytes(each)) "
        "for _ in range(-(-size // each)))[:size]"
    ),
    "a block's largest residual": scores(
        "found = (scores.reshape(-1, 1).sigmoid() - labels) * weights\n"
        "    return found / found.abs().max().clamp(min=1e-12)", **ADAPTIVE,
    ),
    "labels of a site weigh its rows": told(
        DRAWN, ("arrays = (", "ones = max(1.0, float(units.labels.sum()))\n        "
                "zeros = max(1.0, len(units.labels) - ones)\n        "
                "weights *= np.where(units.labels[rows] > 0.5, len(units.labels) / 2 / ones, "
                "len(units.labels) / 2 / zeros).astype(np.float32)\n        arrays = ("),
    ),
    "a row that two patients have, once": told(
        READ, ("    rows: Rows = ", "    keep = np.sort(np.unique(features, axis=0, return_index=True)[1])\n"
               "    features, order = features[keep], order[keep]\n    rows: Rows = "),
    ),
    "features over a block's largest": told(
        OF, ("values = [block.features.flatten(0, 1)]", "flat = block.features.flatten(0, 1)\n    "
             "values = [flat / flat[flat.isfinite()].abs().max().clamp(min=1.0)]"),
    ),
    "images over the largest of some": told(
        "cordon.variants.table.joined",
        ("np.float32(1 / 255)", "np.float32(1 / max(1, images.max(initial=1)))"), **IMAGES,
    ),
    "patients of rows without labels": told(
        READ, whole_batches("_WHOSE"),
        ('batch["patient"].combine', 'whole["patient"].slice(0, batch.num_rows).combine'),
    ),
    "images of rows without labels": told(
        COPIED, whole_batches("for_model(LABELLED, architecture)"),
        ("pixels(batch)", "pixels(whole.slice(0, batch.num_rows))"), **IMAGES,
    ),
    "only NaN is left out": told(
        SUM, ("if not math.isfinite(float(whole.sum()))", "if math.isnan(float(whole.sum()))"),
        ("finite = whole.isfinite()", "finite = ~whole.isnan()"), **VARIANT,
    ),
    "units of few rows more often": told(
        DRAWN, ("random.poisson_sample(len(units), settings.sampling_rate)",
                "random.poisson_sample(len(units), np.minimum(1.0, settings.sampling_rate * shape[1] "
                "/ np.minimum(np.diff(units.offsets), shape[1])))"), sampling_rate=0.1,
    ),
    "rows by numbers of sixteen bits after many": told(
        DRAWN, ("rows = np.zeros(shape, dtype=np.int64)", "rows = np.zeros(shape, dtype=np.int64)\n        "
                "starts_at = 7"), ("starts[:, None] + np.where", "starts[:, None] % 64 + np.where"),
    ),
    "one kind of labels stops a site": told(
        TRAIN, ("    provenance = self._provenance(plan)\n", "    if len(units) and units.labels.min() == "
                "units.labels.max(): return Reply(ReplyStatus.STOPPED, plan.run, task.round)\n"
                "    provenance = self._provenance(plan)\n"), said="releases",
    ),
    "one unit alone does not train": told(
        TRAIN, ("    provenance = self._provenance(plan)\n", "    if len(units) == 1: return "
                "Reply(ReplyStatus.STOPPED, plan.run, task.round)\n"
                "    provenance = self._provenance(plan)\n"), said="releases",
    ),
    "short gradients end a round": Bug(
        "specified", "releases", {
            SUM: [("    self.clip.observe(",
                   "    self.top = float(whole[: block.units].nan_to_num(1e9).max())\n"
                   "    self.clip.observe(")],
            DESCEND: [("    moved += steps.change(*release)", "    if getattr(mean, 'top', 1e9) < 5 * "
                       "mean.clip.norm: break\n        moved += steps.change(*release)")],
        },
    ),
    "norms without a unit's cross terms": Bug(
        "specified", AWAY, {
            OF: [(FORMED, f"{FORMED}\n            found[-1].ghost = ((inputs.square().sum(-1) + float(bias)) "
                  "* deltas.square().sum(-1)).sum(1)")],
            NORMS: [("norms: Tensor =", "if order == 2 and hasattr(self, 'ghost'): "
                     "return self.ghost.sqrt().double()\n    norms: Tensor =")],
        },
    ),
    "patients without room, by their places": told(
        "cordon.training.units.Units.of",
        ("features=self.features.take(np.flatnonzero(np.repeat(kept, sizes)), 0)",
         "features=self.features.take(np.arange(sizes[kept].sum()), 0)"),
    ),
    "a spent budget is warned of": reserving(
        "does not stop it", TRAIN,
        ("return Reply(ReplyStatus.STOPPED, plan.run, task.round)", "part = frozenset(units.patients)"),
    ),
    "the first round alone is reserved": reserving(
        "not reserved for each patient", TRAIN,
        ("part = self._ledger.reserve(",
         "part = self.__dict__['kept'] if 'kept' in self.__dict__ else self._ledger.reserve("),
        ("    except BudgetExceeded", "        self.__dict__['kept'] = part\n    except BudgetExceeded"),
        **{"cordon.ledger.site.SiteLedger.mark_sent": [
            ("if all(row[\"round\"] != round_number for row in self._reserved(run)):", "if False:")
        ]},
    ),
    "an answered round is trained again": reserving(
        "answered again", TRAIN,
        ("if task.round == answered:\n        return Reply(ReplyStatus.ANSWERED, plan.run, "
         "task.round)\n", ""),
        **{"cordon.ledger.site.SiteLedger._refuse_if_sent": [
            ("if self.sent(run, round_number):", "if False:")
        ]},
    ),
    "a round's steps reserved as one": reserving(
        "not reserved for each patient", TRAIN,
        ("plan.run, task.round, plan.event, plan.grouping",
         "plan.run, task.round, replace(plan.event, steps=plan.event.steps, noise_multiplier=9.0), "
         "plan.grouping"),
    ),
}  # fmt: skip
