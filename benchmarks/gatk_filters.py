#!/usr/bin/env python3
"""False calls that GATK's own filters and Cordon keep, on the same calls against the same truth.

    python benchmarks/gatk_filters.py demo results/demo
    python benchmarks/gatk_filters.py calls HC.vcf.gz --control UG.vcf.gz --truth TRUTH.vcf.gz --sample S

The hard filters are those that GATK's documentation recommends where VQSR cannot be trained. ``--vets`` is
GATK's trained filter (Extract-, Train- and ScoreVariantAnnotations with its isolation forest), whose
labelled resource is the truth outside the tested blocks; it needs a Python with scikit-learn, h5py and dill.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pysam

import utility
from cordon.calls.normalise import normalise_variants
from cordon.model.released import Model
from cordon.privacy.events import GAUSSIAN
from cordon.privacy.guarantee import Guarantee
from cordon.training.pretrain import fit
from cordon.variants.features import FEATURES
from cordon.variants.table import LABELLED, read_table

GATK = shutil.which("gatk") or Path(__file__).resolve().parents[1] / "tools" / "bin" / "gatk"
SNPS = ("QD < 2.0", "FS > 60.0", "MQ < 40.0", "SOR > 3.0", "MQRankSum < -12.5", "ReadPosRankSum < -8.0")
INDELS = ("QD < 2.0", "FS > 200.0", "SOR > 10.0", "ReadPosRankSum < -20.0")
ANNOTATIONS = ("QD", "FS", "SOR", "MQ", "MQRankSum", "ReadPosRankSum")
SENSITIVITY = 0.99
Allele = tuple[str, int, str, str]


def gatk(*words: str | Path, path: str = "") -> None:
    """Run GATK; what it says is shown where it fails."""
    environment = os.environ | {"PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]}
    run = subprocess.run([str(GATK), *map(str, words)], capture_output=True, text=True, env=environment)
    if run.returncode:
        raise click.ClickException(f"gatk {words[0]} failed:\n{run.stderr[-2000:]}")


def hard_filtered(vcf: Path, output: Path) -> Path:
    """``vcf`` with the hard filters in FILTER; a mixed record counts as an indel."""
    words: list[str | Path] = ["VariantFiltration", "-V", vcf, "-O", output]
    for kind, expressions in (("vc.isSNP()", SNPS), ("!vc.isSNP()", INDELS)):
        for number, expression in enumerate(expressions):
            words += ["--filter-name", f"{'snp' if kind[0] == 'v' else 'indel'}{number}"]
            words += ["--filter-expression", f"{kind} && {expression}"]
    gatk(*words)
    return output


def alleles(vcf: Path, read: Callable[[pysam.VariantRecord], Any]) -> dict[Allele, Any]:
    """What ``read`` makes of each record of a normalised VCF, by allele."""
    with pysam.VariantFile(str(vcf)) as records:
        return {(r.contig, r.pos, r.ref, (r.alts or (".",))[0]): read(r) for r in records}


def row(name: str, real: np.ndarray, kept: np.ndarray, **more: Any) -> dict[str, Any]:
    """What a filter keeps of the real and of the false alleles."""
    counts = {"real": int(real.sum()), "false": int((~real).sum())}
    kinds = {"real_kept": int((real & kept).sum()), "false_kept": int((~real & kept).sum())}
    return {"filter": name, **counts, **kinds, **more}


def keeping(score: np.ndarray, real: np.ndarray, most_lost: int) -> np.ndarray:
    """The rows [n] whose score is at least the threshold that loses so many real ones, at most."""
    kept: np.ndarray = score >= np.sort(score[real])[min(most_lost, real.sum() - 1)]
    return kept


def compared(real: np.ndarray, hard: np.ndarray, scores: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """No filter, the hard filters, and each score where it loses as many real alleles, or 1 in 100."""
    yield row("none", real, np.ones_like(real))
    yield row("GATK hard filters", real, hard)
    lost = int((real & ~hard).sum())
    for name, score in scores.items():
        yield row(f"{name}, as sensitive as the hard filters", real, keeping(score, real, lost))
        few = int((1 - SENSITIVITY) * real.sum())
        yield row(f"{name}, {SENSITIVITY:.0%} sensitive", real, keeping(score, real, few))


def sample_calls(table: Path, vcf: Path, scored: Path, folder: Path) -> dict[str, list[Any]]:
    """HaplotypeCaller's labelled alleles of a sample: real, kept by hard filters, by Cordon, its score."""
    with pysam.VariantFile(str(vcf)) as file:
        sample = file.header.samples[0]
    normal = folder / "normal.vcf.gz"
    filtered = hard_filtered(vcf, folder / "filtered.vcf.gz")
    normalise_variants(vcf=filtered, reference=utility.scaffold([vcf], folder), sample=sample, output=normal)
    hard = alleles(normal, lambda record: set(record.filter) <= {"PASS"})
    cordon = alleles(scored, lambda r: ("CORDONLowScore" not in r.filter, r.info["CORDON"]))
    known = read_table(table, LABELLED).to_pylist()
    rows = [r for r in known if r["label"] is not None and "haplotypecaller" in r["callers"].split(";")]
    places = [(r["contig"], r["position"], r["ref"], r["alt"]) for r in rows]
    missing = [place for place in places if place not in hard or place not in cordon]
    if missing:
        raise click.ClickException(
            f"{table}: {len(missing)} alleles are not in {vcf} or {scored}: {missing[:3]}"
        )
    return {
        "real": [r["label"] == 1 for r in rows], "hard": [hard[place] for place in places],
        "passed": [cordon[place][0] for place in places], "score": [cordon[place][1] for place in places],
    }  # fmt: skip


def demo_rows(results: Path, samples: Sequence[str]) -> list[dict[str, Any]]:
    """The filters on HaplotypeCaller's calls of held-out samples of a run."""
    found: dict[str, list[Any]] = {"real": [], "hard": [], "passed": [], "score": []}
    for name in samples:
        with tempfile.TemporaryDirectory() as folder:
            own = sample_calls(
                results / "variants" / f"{name}.labelled.parquet",
                results / "calls" / f"{name}.haplotypecaller.vcf.gz",
                results / "scored" / f"{name}.scored.vcf.gz", Path(folder),
            )  # fmt: skip
        for key, values in own.items():
            found[key] += values
    real, hard, passed, score = (np.array(found[key]) for key in ("real", "hard", "passed", "score"))
    # A caller that the score sees too is an advantage of Cordon's own.
    return [*compared(real, hard, {"Cordon": score}), row("Cordon, PASS", real, passed)]


def fold_scores(data: utility.Data, of_fold: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A score [n] of every row by what was trained without the row's fold; ``of_fold`` takes its rows."""
    score = np.zeros(len(data.real))
    for fold in range(utility.FOLDS):
        tested = data.fold == fold
        score[tested] = of_fold(tested)
    return score


def cordon_scores(data: utility.Data, setting: utility.Setting, public: utility.Data | None) -> np.ndarray:
    """Cordon's scores, as `utility.evaluate` makes them."""

    def scored(tested: np.ndarray) -> np.ndarray:
        warm = None
        if public is not None:
            elsewhere = ~np.isin(public.block, np.unique(data.block[tested]))
            warm = fit(setting.model, public.features[elsewhere], public.real[elsewhere].astype(np.float32))
        parameters = utility.trained(data, ~tested, setting, warm)
        return Model(setting.model, FEATURES, parameters).score(data.features[tested])

    return fold_scores(data, scored)


def vets_scores(
    vcf: Path,
    data: utility.Data,
    read: Callable[[Path], utility.Data],
    truth: Path,
    python: Path,
    folder: Path,
) -> np.ndarray:
    """The scores of GATK's trained filter; its resource is the truth outside the tested blocks."""

    def scored(tested: np.ndarray) -> np.ndarray:
        resource = outside(truth, set(np.unique(data.block[tested])), folder / "resource.vcf.gz")
        use = [word for name in ANNOTATIONS for word in ("-A", name)]
        name, path = folder / "vets", str(python.parent)
        labelled = ("--resource:truth,training=true,calibration=true", resource)
        gatk("ExtractVariantAnnotations", "-V", vcf, "-O", name, *use, *labelled)
        gatk(
            "TrainVariantAnnotationsModel", "--annotations-hdf5", f"{name}.annot.hdf5", "-O", name, path=path
        )
        gatk("ScoreVariantAnnotations", "-V", vcf, "-O", folder / "vets.scored", "--model-prefix", name, *use,
             path=path)  # fmt: skip
        return read(score_as_quality(folder / "vets.scored.vcf.gz", folder / "vets.qual.vcf")).scores["QUAL"][
            tested
        ]

    return fold_scores(data, scored)


def outside(vcf: Path, blocks: Iterable[str], output: Path) -> Path:
    """The records of ``vcf`` in no block of ``blocks``, indexed."""
    with (
        pysam.VariantFile(str(vcf)) as records,
        pysam.VariantFile(str(output), "wz", header=records.header) as out,
    ):
        for record in records:
            if f"{record.contig}:{record.pos // utility.BLOCK}" not in blocks:
                out.write(record)
    pysam.tabix_index(str(output), preset="vcf", force=True)
    return output


def score_as_quality(vcf: Path, output: Path) -> Path:
    """``vcf`` with 1000 + 1000 SCORE for QUAL, so that it is read where QUAL is; 0 where there is none."""
    with (
        pysam.VariantFile(str(vcf)) as records,
        pysam.VariantFile(str(output), "w", header=records.header) as out,
    ):
        for record in records:
            record.qual = max(0.0, 1000 + 1000 * record.info.get("SCORE", -1.0))
            out.write(record)
    return output


@click.group()
def main() -> None:
    """GATK's filters beside Cordon's score."""


@main.command()
@click.argument("results", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--samples", default="north-p07,north-p08,south-p07,south-p08,west-p07,west-p08", show_default=True
)
@click.option("--json", "as_json", is_flag=True, help="One JSON list of rows.")
def demo(results: Path, samples: str, as_json: bool) -> None:
    """On HaplotypeCaller's calls of a run's held-out SAMPLES, in its RESULTS."""
    show(demo_rows(results, samples.split(",")), as_json)


@main.command()
@click.argument("vcf", type=click.Path(exists=True, path_type=Path))
@click.option("--control", type=click.Path(exists=True, path_type=Path), help="Public calls to start from.")
@click.option("--truth", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--sample", required=True)
@click.option("--epsilon", default=3.0, show_default=True)
@click.option(
    "--vets", type=click.Path(exists=True, path_type=Path), help="A Python for GATK's trained filter."
)
@click.option("--set", "changes", multiple=True, help="name=value of a setting of utility.py.")
@click.option("--json", "as_json", is_flag=True, help="One JSON list of rows.")
def calls(
    vcf: Path, control: Path | None, truth: Path, sample: str, epsilon: float, vets: Path | None,
    changes: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """On HaplotypeCaller's calls with a truth set, by five folds of the genome (`utility.py`)."""
    setting = replace(utility.Setting(epsilon=epsilon, sites=4), **dict(map(utility.changed, changes)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = [path for path in (vcf, control, truth) if path]

        def read(path: Path, caller: str = "haplotypecaller") -> utility.Data:
            return utility.read(caller, path, truth, None, sample, None, folder, given)

        data, filtered = read(vcf), read(hard_filtered(vcf, folder / "hard.vcf.gz"))
        scores = {"QD": data.scores["QD"]}
        if vets:
            scores["GATK's trained filter"] = vets_scores(vcf, data, read, truth, vets, folder)
        scores["Cordon, from nothing"] = cordon_scores(data, setting, None)
        if control:
            public = read(control, "other")
            warm = replace(setting, learning_rate=setting.warm_rate)
            scores["Cordon, from the control"] = cordon_scores(data, warm, public)
        rows = list(compared(data.real, filtered.passed, scores))
    means = Guarantee(setting.unit, utility.DELTA, GAUSSIAN)
    if not as_json:
        click.echo(f"Cordon's scores: {means.statement(epsilon)}")
    cost = {"epsilon": epsilon, **means.to_dict()}
    show([item | (cost if "Cordon" in item["filter"] else {}) for item in rows], as_json)


def show(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for item in rows:
        click.echo(
            f"{item['filter']:56s} real kept {item['real_kept']:5d} of {item['real']} "
            f"({item['real_kept'] / item['real']:.2%}), false kept {item['false_kept']} of {item['false']}"
        )


if __name__ == "__main__":
    main()
