#!/usr/bin/env python3
"""Time and memory of very many candidates at a site: from a caller's VCF to scored variants.

    python benchmarks/scale.py --rows 5000000

Makes up a caller's VCF of ``--rows`` records (SNVs, one in seven an indel, HaplotypeCaller's annotations)
on one contig and a truth set of every second one, then runs the commands of a site on them, each in a process
of its own, and prints the time, the rows a second and the peak memory of each. Training is a round of the
default plan, as TRAIN_SITE does it, without an aggregator.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import pysam

from cordon.variants.features import FEATURES

BIN = Path(__file__).parents[1] / "bin"
BASES = np.frombuffer(b"ACGT", dtype=np.uint8)
HEADER = [
    "##fileformat=VCFv4.2",
    *(
        f'##INFO=<ID={name},Number=1,Type=Float,Description="made up">'
        for name in ("QD", "FS", "SOR", "MQ", "MQRankSum", "ReadPosRankSum", "BaseQRankSum")
    ),
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">',
    '##FORMAT=<ID=AD,Number=R,Type=Integer,Description="made up">',
    '##FORMAT=<ID=DP,Number=1,Type=Integer,Description="made up">',
    '##FORMAT=<ID=GQ,Number=1,Type=Integer,Description="made up">',
]
EVERY = 40  # bp from one candidate to the next


def make(folder: Path, rows: int) -> tuple[Path, Path]:
    """A reference and a VCF on it."""
    rng = np.random.default_rng(rows)
    length = (rows + 2) * EVERY
    contig = rng.choice(BASES, length).tobytes().decode()
    reference = folder / "reference.fasta"
    with reference.open("w") as out:
        out.write(">z\n")
        out.writelines(contig[at : at + 60] + "\n" for at in range(0, length, 60))
    pysam.faidx(str(reference))
    vcf = folder / "calls.vcf.gz"
    with pysam.BGZFile(str(vcf), "w") as out:
        columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts"
        out.write(("\n".join([*HEADER, f"##contig=<ID=z,length={length}>", columns]) + "\n").encode())
        lines = []
        for row in range(rows):
            at = (row + 1) * EVERY
            base = contig[at]
            kind = row % 14
            ref, alt = (base, "ACGT"["CGTA".index(base)])
            if kind == 0:
                ref, alt = base, base + "GT"
            elif kind == 7:
                ref, alt = contig[at : at + 3], base
            info = f"QD={row % 35};FS={row % 9};SOR=0.{row % 10};MQ=60;MQRankSum=0.{row % 7}"
            lines.append(
                f"z\t{at + 1}\t.\t{ref}\t{alt}\t{30 + row % 900}\t.\t{info}\tGT:AD:DP:GQ\t"
                f"0/1:{row % 30},{row % 17}:{row % 30 + row % 17}:{row % 99}\n"
            )
            if len(lines) == 100_000:
                out.write("".join(lines).encode())
                lines = []
        out.write("".join(lines).encode())
    return reference, vcf


def halved(vcf: Path, truth: Path) -> None:
    """Every second record."""
    with (
        pysam.VariantFile(str(vcf)) as given,
        pysam.VariantFile(str(truth), "wz", header=given.header) as out,
    ):
        for number, record in enumerate(given):
            if number % 2:
                out.write(record)
    pysam.tabix_index(str(truth), preset="vcf", force=True)


def trained(table: Path) -> None:
    """A round of the default plan on the rows of ``table``."""
    from cordon.federation.plan import Plan
    from cordon.model.initial_weights import initial_parameters
    from cordon.training.dpsgd import train
    from cordon.training.units import Units

    plan = Plan.calibrated(
        run="scale", model="mlp", unit="variant", epsilon=3.0, delta=1e-9, rounds=1, local_steps=10,
        sampling_rate=0.05, clip_norm=0.05, learning_rate=0.05, max_variants_per_patient=256,
        averaged_rounds=1,
    )  # fmt: skip
    units = Units.read([table], unit=plan.unit)
    train(plan.model, initial_parameters(plan.model, len(FEATURES)), units, plan.settings_for(100_000))


def initial(path: Path) -> None:
    """A model that nobody trained."""
    from cordon.model.initial_weights import initial_parameters
    from cordon.model.released import Model

    Model("mlp", FEATURES, initial_parameters("mlp", len(FEATURES))).save(path)


def run(name: str, rows: int, *arguments: object) -> None:
    """Run a command of ``bin/``, or this file's training, and print its time and peak memory."""
    script = BIN / f"{name}.py" if name != TRAINING else Path(__file__)
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, str(script), *map(str, arguments)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{name} failed")
    took = time.perf_counter() - begin
    click.echo(f"{name:20} {took:8.1f} s {rows / took:10,.0f} rows/s {usage.ru_maxrss / 1024:8.0f} MB peak")


@click.command()
@click.option("--rows", default=5_000_000, show_default=True)
@click.option("--train", type=click.Path(path_type=Path), hidden=True)
def main(rows: int, train: Path | None) -> None:
    """Time and memory of very many candidates at a site."""
    if train is not None:
        trained(train)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        truth, confident = folder / "truth.vcf.gz", folder / "confident.bed"
        # In a process of its own: what a child measures as its peak begins with its parent's size.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            reference, vcf = pool.apply(make, (folder, rows))
            pool.apply(halved, (vcf, truth))
            pool.apply(initial, (folder / "model.safetensors",))
        confident.write_text(f"z\t0\t{(rows + 2) * EVERY}\n")
        (folder / "who.json").write_text('{"patient": "patient", "sample": "sample"}')
        (folder / "samples.csv").write_text(
            f"sample,variants,calls\ns,{folder}/labelled.parquet,haplotypecaller={folder}/normal.vcf.gz\n"
        )
        click.echo(f"{rows:,} records, {vcf.stat().st_size / 1e6:.0f} MB")
        for line in COMMANDS.strip().splitlines():
            name, *words = line.format(folder=folder, vcf=vcf, reference=reference).split()
            run(name, rows, *words)
        click.echo(f"{(folder / 'labelled.parquet').stat().st_size / 1e6:.0f} MB of Parquet")


TRAINING = "a_training_round"
COMMANDS = f"""
normalise_variants --vcf {{vcf}} --sample s --reference {{reference}} --output {{folder}}/normal.vcf.gz
encode_variants --site site --pseudonyms {{folder}}/who.json --sample s --reference {{reference}} --calls haplotypecaller={{folder}}/normal.vcf.gz --output {{folder}}/rows.parquet
label_variants --variants {{folder}}/rows.parquet --sample s --reference {{reference}} --truth {{folder}}/truth.vcf.gz --confident {{folder}}/confident.bed --output {{folder}}/labelled.parquet
{TRAINING} --train {{folder}}/labelled.parquet
calibrate_scores --model {{folder}}/model.safetensors --variants {{folder}}/labelled.parquet --site site --output {{folder}}/calibration.json
score_variants --model {{folder}}/model.safetensors --calibration {{folder}}/calibration.json --samples {{folder}}/samples.csv --reference {{reference}} --truth_sensitivity 0.99 --outdir {{folder}}
evaluate_scores --scores {{folder}}/s.scored.parquet --output {{folder}}/evaluation.json
describe_calls --scores {{folder}}/s.scored.parquet --output {{folder}}/callset.json
"""  # noqa: E501


if __name__ == "__main__":
    main()
