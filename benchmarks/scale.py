#!/usr/bin/env python3
"""Time and memory of preparing very many candidates: normalise, features from annotations, Parquet.

Makes up a caller's VCF of ``--rows`` records (SNVs, one in seven an indel, HaplotypeCaller's annotations)
on one contig, then runs the two commands of a site on it, each in a process of its own, and prints the
time, the rows a second and the peak memory of each.
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


def run(name: str, rows: int, *arguments: object) -> None:
    """Run a command of ``bin/`` and print its time and peak memory."""
    command = [sys.executable, str(BIN / f"{name}.py"), *map(str, arguments)]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{name} failed")
    took = time.perf_counter() - begin
    click.echo(f"{name:20} {took:8.1f} s {rows / took:10,.0f} rows/s {usage.ru_maxrss / 1024:8.0f} MB peak")


@click.command()
@click.option("--rows", default=5_000_000, show_default=True)
def main(rows: int) -> None:
    """Time and memory of preparing very many candidates."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        # In a process of its own: what a child measures as its peak begins with its parent's size.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            reference, vcf = pool.apply(make, (folder, rows))
        click.echo(f"{rows:,} records, {vcf.stat().st_size / 1e6:.0f} MB")
        normal, table = folder / "normal.vcf.gz", folder / "rows.parquet"
        common = ("--sample", "s", "--reference", reference)
        run("normalise_variants", rows, "--vcf", vcf, *common, "--output", normal)
        (folder / "who.json").write_text('{"patient": "patient", "sample": "sample"}')
        names = ("--site", "site", "--pseudonyms", folder / "who.json")
        run(
            "encode_variants",
            rows,
            *names,
            *common,
            "--calls",
            f"haplotypecaller={normal}",
            "--output",
            table,
        )
        click.echo(f"{table.stat().st_size / 1e6:.0f} MB of Parquet")


if __name__ == "__main__":
    main()
