#!/usr/bin/env python3
"""What privacy costs on real calls with a truth set: no noise, noise in one place, noise at several sites.

    python benchmarks/utility.py --calls haplotypecaller=HC.vcf.gz --truth TRUTH.vcf.gz --sample NA12878

Every model is trained as a run trains it (the same DP-SGD, accounting and averaging, without the network)
on four fifths of the genome and scores the fifth that it has not seen, five times over. Blocks of 50 kb stand
for patients where the unit is a patient, and are what sites hold; no block is cut by a fold. Where several
callers' calls are given, the other's are the public control of a warm start, without the tested blocks.
Without ``--reference``, one with the files' REF bases and N elsewhere serves, and its features are left out.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pysam

from cordon.auditing.replay import replay
from cordon.calls.normalise import normalise_variants
from cordon.calls.read import parse_calls
from cordon.federation.plan import Plan
from cordon.model.architectures import Parameters
from cordon.model.initial_weights import initial_parameters
from cordon.model.released import Model
from cordon.privacy.events import GAUSSIAN, LAPLACE
from cordon.privacy.guarantee import ADJACENCY, Guarantee
from cordon.training.pretrain import WELL, fit
from cordon.training.units import Units
from cordon.variants.encode import SampleIdentity, encode
from cordon.variants.features import FEATURES
from cordon.variants.labels import label_variants
from cordon.variants.table import LABELLED, VARIANTS, matrix, read_table, write_batches

OF_REFERENCE = ("f_homopolymer", "f_repeat_unit", "f_repeat_length", "f_gc")
FOLDS, BLOCK, DELTA = 5, 50_000, 1e-5
IDENTITY = SampleIdentity("site", "patient", "sample")


@dataclass(frozen=True)
class Data:
    """Labelled rows in the genome's order: features [n, F], real [n], and the 50 kb block's name [n].

    ``strata`` holds rows (bool [n]) and ``scores`` a caller's own scores (float [n]) by name; ``passed`` [n]
    is the caller's own FILTER.
    """

    features: np.ndarray
    real: np.ndarray
    block: np.ndarray
    strata: dict[str, np.ndarray]
    scores: dict[str, np.ndarray]
    passed: np.ndarray

    @property
    def fold(self) -> np.ndarray:
        """The fold [n] of each row: stretches of about equal numbers of rows, cut between blocks."""
        _, first, codes = np.unique(self.block, return_index=True, return_inverse=True)
        return (first * FOLDS // len(self.real))[codes]


@dataclass(frozen=True)
class Setting:
    """One way to train; ``epsilon`` None is without noise and clipping, ``start`` public without training.

    ``warm_rate`` is the learning rate from a warm start, which has less to learn. The result is the mean of
    the models after the last ``averaged_rounds``, as in a run.
    """

    epsilon: float | None
    unit: str = "variant"
    sites: int = 1
    mechanism: str = GAUSSIAN
    clipping: str = "fixed"
    start: str = "cold"
    model: str = "mlp"
    rounds: int = 20
    local_steps: int = 10
    sampling_rate: float = 0.5
    clip_norm: float = 2.0
    learning_rate: float = 0.02
    warm_rate: float = 0.01
    optimiser: str = "adam"
    momentum: float = 0.0
    clip_quantile: float = 0.9
    max_variants: int = 256
    averaged_rounds: int = 10

    def name(self) -> str:
        """What tells it from the others, in words."""
        if self.start == "public":
            return "the public start alone"
        if self.epsilon is None:
            return f"no noise, pooled, {self.start}"
        place = "central" if self.sites == 1 else f"{self.sites} sites"
        noise = "Laplace" if self.mechanism == LAPLACE else "Gaussian"
        return f"{place}, {noise}, {self.clipping} clip, {self.start}, {self.model}"


def scaffold(paths: list[Path], folder: Path) -> Path:
    """A reference with the VCFs' REF bases at their places and N everywhere else."""
    contigs: dict[str, bytearray] = {}
    for path in paths:
        with pysam.VariantFile(str(path)) as records:
            for record in records:
                bases, ref = contigs.setdefault(record.contig, bytearray()), record.ref.upper()
                bases.extend(b"N" * (record.stop + 1000 - len(bases)))
                if "N" not in ref:  # `N <DEL>` says nothing, and is as long as what is deleted
                    bases[record.start : record.start + len(ref)] = ref.encode()
    path = folder / "reference.fasta"
    path.write_text("".join(f">{name}\n{bases.decode()}\n" for name, bases in contigs.items()))
    pysam.faidx(str(path))
    return path


def read(
    caller: str, vcf: Path, truth: Path, confident: Path | None, sample: str, reference: Path | None,
    folder: Path, scaffolded: list[Path],
) -> Data:  # fmt: skip
    """Normalise, encode and label one caller's calls."""
    fasta = reference or scaffold(scaffolded, folder)
    normal, table, labelled = (folder / f"{caller}.{name}" for name in ("vcf.gz", "parquet", "l.parquet"))
    normalise_variants(vcf=vcf, reference=fasta, sample=sample, output=normal)
    rows = encode(identity=IDENTITY, sample=sample, reference=fasta, calls={caller: normal})
    write_batches(table, VARIANTS, rows)
    if confident is None:
        confident = folder / "everywhere.bed"
        with pysam.FastaFile(str(fasta)) as file:
            regions = zip(file.references, file.lengths, strict=True)
            confident.write_text("".join(f"{name}\t0\t{length}\n" for name, length in regions))
    about = {"sample": sample, "reference": fasta, "truth": truth, "confident": confident}
    # FILTER names the truth set's lesser classes, all of which count.
    label_variants(table, labelled, passing=False, **about)
    known = read_table(labelled, LABELLED)
    known = known.filter(known["label"].is_valid())
    features = matrix(known)
    if reference is None:
        features[:, [FEATURES.index(name) for name in OF_REFERENCE]] = 0.0
    places = zip(known["contig"].to_pylist(), known["position"].to_pylist(), strict=True)
    kind, zygosity = (np.array(known[name].to_pylist()) for name in ("variant_type", "zygosity"))
    fraction = features[:, FEATURES.index("f_alt_fraction")] * 0.25 + 0.5
    return Data(
        features, known["label"].to_numpy() == 1,
        np.array([f"{contig}:{position // BLOCK}" for contig, position in places]),
        {
            "SNV": kind == "SNV", "indel": kind != "SNV",
            "insertion": kind == "insertion", "deletion": kind == "deletion",
            "het, balance < 0.25": (zygosity == "heterozygous") & (fraction < 0.25),
        },
        {name: known[f"{caller}_{name.lower()}"].to_numpy() for name in ("QUAL", "QD")},
        np.array(known[f"{caller}_pass"].to_pylist()),
    )  # fmt: skip


def trained(data: Data, rows: np.ndarray, setting: Setting, warm: Parameters | None) -> Parameters:
    """The parameters after training on ``rows`` of the data as ``setting`` says."""
    features, real = data.features[rows], data.real[rows].astype(np.float32)
    if setting.start == "public" and warm:
        return warm
    if setting.epsilon is None:
        return fit(setting.model, features, real, start=warm, length=WELL)
    blocks, codes = np.unique(data.block, return_inverse=True)
    site = np.random.default_rng(0).permutation(blocks.size)[codes[rows]] % setting.sites
    units = [
        Units.group(features[at], real[at], data.block[rows][at].tolist(), unit=setting.unit)
        for at in (site == number for number in range(setting.sites))
    ]
    plan = Plan.calibrated(
        model=setting.model, unit=setting.unit, epsilon=setting.epsilon, delta=DELTA, rounds=setting.rounds,
        local_steps=setting.local_steps, sampling_rate=setting.sampling_rate, clip_norm=setting.clip_norm,
        learning_rate=setting.learning_rate, mechanism=setting.mechanism, clipping=setting.clipping,
        clip_quantile=setting.clip_quantile, optimiser=setting.optimiser, momentum=setting.momentum,
        max_variants_per_patient=setting.max_variants if setting.unit == "patient" else 1,
        averaged_rounds=setting.averaged_rounds,
    )  # fmt: skip
    sites = {str(number): own for number, own in enumerate(units)}
    declared = {name: len(own) for name, own in sites.items()}
    return replay(plan, sites, declared, warm or initial_parameters(plan.model, len(FEATURES))).model


def measure(data: Data, score: np.ndarray) -> dict[str, float]:
    """AUROC, average precision of the false, false calls removed at 99 % truth sensitivity; by stratum."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    threshold = np.quantile(score[data.real], 0.01)
    found = {
        "auroc": float(roc_auc_score(data.real, score)),
        "ap_false": float(average_precision_score(~data.real, -score)),
        "removed_at_99": float((score[~data.real] < threshold).mean()),
    }
    for name, rows in data.strata.items():
        if 0 < data.real[rows].sum() < rows.sum():
            found[name] = float(roc_auc_score(data.real[rows], score[rows]))
    return found


def evaluate(data: Data, setting: Setting, public: Data | None) -> dict[str, float]:
    """`measure` of the scores that models give to the fold that they have not seen."""
    score = np.zeros(len(data.real))
    for fold in range(FOLDS):
        rows = data.fold != fold
        warm = None
        if setting.start != "cold" and public is not None:
            # The control is the same genome: blocks of the fold that is tested are left out.
            elsewhere = ~np.isin(public.block, np.unique(data.block[~rows]))
            warm = fit(setting.model, public.features[elsewhere], public.real[elsewhere].astype(np.float32))
        parameters = trained(data, rows, setting, warm)
        score[~rows] = Model(setting.model, FEATURES, parameters).score(data.features[~rows])
    return measure(data, score)


def grid(base: Setting, epsilons: list[float], sites: list[int], units: list[str]) -> Iterator[Setting]:
    """The settings that are compared: the base, then one thing changed at a time."""
    yield replace(base, epsilon=None)
    yield replace(base, epsilon=None, start="warm")
    yield replace(base, epsilon=None, start="public")
    for unit in units:
        own = replace(base, unit=unit)
        for epsilon in epsilons:
            yield from (replace(own, epsilon=epsilon, sites=number) for number in (1, *sites))
            yield replace(own, epsilon=epsilon, sites=sites[0], start="warm", learning_rate=base.warm_rate)
        middle = replace(own, epsilon=3.0 if 3.0 in epsilons else epsilons[0], sites=sites[0])
        yield replace(middle, clipping="adaptive" if base.clipping == "fixed" else "fixed")
        yield replace(middle, mechanism=LAPLACE)


@click.command()
@click.option("--calls", multiple=True, required=True, help="caller=VCF; repeated, each is a benchmark.")
@click.option("--truth", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--confident", type=click.Path(exists=True, path_type=Path), help="BED; without it everywhere.")
@click.option("--sample", required=True)
@click.option("--reference", type=click.Path(exists=True, path_type=Path))
@click.option("--epsilons", default="0.5,1,3,8", show_default=True)
@click.option("--sites", default="4,10", show_default=True)
@click.option("--units", default="variant,patient", show_default=True)
@click.option("--repeats", default=1, show_default=True, help="Trainings with new noise; medians are shown.")
@click.option("--set", "changes", multiple=True, help="name=value of a setting, e.g. --set clip_norm=4.")
@click.option("--json", "as_json", is_flag=True, help="One JSON list of rows.")
def main(
    calls: tuple[str, ...], truth: Path, confident: Path | None, sample: str, reference: Path | None,
    epsilons: str, sites: str, units: str, repeats: int, changes: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Print what each way of training is worth on held-out blocks of the genome."""
    base = Setting(epsilon=None)
    base = replace(base, **dict(map(changed, changes)))
    given = parse_calls(calls)
    with tempfile.TemporaryDirectory() as scratch:
        common = (truth, confident, sample, reference, Path(scratch), [*given.values(), truth])
        data = {caller: read(caller, vcf, *common) for caller, vcf in given.items()}
    table: list[dict[str, Any]] = []
    for caller, own in data.items():
        public = next((other for name, other in data.items() if name != caller), None)
        for name, score in own.scores.items():
            table.append({"calls": caller, "way": f"{name} alone", "epsilon": None, **measure(own, score)})
        numbers = [float(e) for e in epsilons.split(",")], [int(s) for s in sites.split(",")]
        for setting in grid(base, *numbers, units.split(",")):
            if setting.start != "cold" and public is None:
                continue
            began = time.monotonic()
            runs = [evaluate(own, setting, public) for _ in range(1 if setting.epsilon is None else repeats)]
            median = {name: float(np.median([run[name] for run in runs])) for name in runs[0]}
            row = {"calls": caller, "way": setting.name(), **cost(setting), "setting": asdict(setting)}
            spread = {"auroc_range": float(np.ptp([run["auroc"] for run in runs])), "runs": len(runs)}
            table.append(row | median | spread | {"seconds": time.monotonic() - began})
            if not as_json:
                show(caller, setting, median)
    if as_json:
        click.echo(json.dumps(table, indent=1))


def changed(change: str) -> tuple[str, Any]:
    """A setting's name and value from ``name=value``."""
    name, _, value = change.partition("=")
    if name == "epsilon" or name not in Setting.__dataclass_fields__:
        raise click.BadParameter(f"no setting is called {name!r}", param_hint="--set")
    return name, type(getattr(Setting(epsilon=None), name))(value)


def cost(setting: Setting) -> dict[str, Any]:
    """Epsilon and all that must stand beside it, where there is one."""
    beside = {"unit": setting.unit, "delta": DELTA, "mechanism": setting.mechanism, "adjacency": ADJACENCY}
    return {"epsilon": setting.epsilon} | (beside if setting.epsilon is not None else {})


def show(caller: str, setting: Setting, found: dict[str, float]) -> None:
    """One line; every epsilon with its unit, delta, mechanism and adjacency."""
    spent = "not private"
    if setting.epsilon is not None:
        spent = Guarantee(setting.unit, DELTA, setting.mechanism).statement(setting.epsilon)
    figures = "  ".join(f"{name} {value:.4f}" for name, value in found.items())
    click.echo(f"{caller}: {setting.name()}; {spent}\n    {figures}")


if __name__ == "__main__":
    main()
