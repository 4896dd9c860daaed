#!/usr/bin/env python3
"""Speed and memory of the pass over the reads, side by side in one run with a plain way and a floor.

For simulated 30x reads, sparse and dense candidates, and for a real BAM with its calls where they are
given: rows a second of `cordon.variants.pileup.gather`; how many times faster it is than `plain_pileup`
(a pysam pileup at each allele); its time over that of `samtools view` decoding the whole file. The three
take turns and the ratios are medians of the turns. Then the peak memory of the pass for BAMs of growing
size.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pysam

import plain_pileup
from cordon.calls.read import CallSet
from cordon.variants import pileup
from cordon.variants.candidates import union
from cordon.variants.context import Alleles

READ, DEPTH = 150, 30
BASES = np.frombuffer(b"ACGT", dtype=np.uint8)


def simulate(folder: Path, length: int) -> tuple[Path, bytes]:
    """A BAM of 30x reads with 0.5 % errors on one contig of ``length`` bp, and the contig."""
    rng = np.random.default_rng(length)
    sequence = rng.choice(BASES, length)
    starts = np.sort(rng.integers(0, length - READ, length * DEPTH // READ))
    header = pysam.AlignmentHeader.from_dict(
        {
            "HD": {"VN": "1.6", "SO": "coordinate"},
            "SQ": [{"SN": "z", "LN": length}],
            "RG": [{"ID": "1", "SM": "s"}],
        }
    )
    path = folder / f"{length}.bam"
    with pysam.AlignmentFile(str(path), "wb", header=header) as out:
        for number, start in enumerate(starts.tolist()):
            bases = sequence[start : start + READ].copy()
            wrong = rng.random(READ) < 0.005
            bases[wrong] = rng.choice(BASES, int(wrong.sum()))
            segment = pysam.AlignedSegment(header)
            segment.query_name, segment.flag = f"read{number}", 99 if number % 2 else 147
            segment.reference_id, segment.reference_start, segment.mapping_quality = 0, start, 60
            segment.cigarstring, segment.query_sequence = f"{READ}M", bases.tobytes().decode()
            segment.query_qualities = pysam.qualitystring_to_array(
                (rng.integers(20, 41, READ) + 33).astype(np.uint8).tobytes().decode()
            )
            segment.set_tags([("RG", "1"), ("NM", int(wrong.sum())), ("MC", f"{READ}M"), ("AS", READ)])
            out.write(segment)
    pysam.index(str(path))
    return path, sequence.tobytes()


def substitutions(sequence: bytes, every: int) -> Alleles:
    """A SNV at every so many bp."""
    starts = np.arange(300, len(sequence) - 300, every)
    refs = [chr(sequence[start]) for start in starts]
    return Alleles(starts, refs, ["ACGT"["CGTA".index(ref)] for ref in refs])


def timed(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def compare(name: str, bam: Path, contig: str, sequence: bytes, alleles: Alleles, repeats: int) -> None:
    """One line: rows a second, times faster than the plain way, times the floor's time."""
    with pysam.AlignmentFile(str(bam)) as reads:
        given = (reads, contig, sequence, alleles)
        ways = {
            "fast": lambda: pileup.gather(*given),
            "plain": lambda: plain_pileup.gather(*given),
            "floor": lambda: pysam.view("-o", os.devnull, str(bam), catch_stdout=False),
        }
        ways["fast"]()  # the file is in memory from here on
        turns = [{way: timed(run) for way, run in ways.items()} for _ in range(repeats)]
    rows, fast = len(alleles.refs), statistics.median(turn["fast"] for turn in turns)
    plain = statistics.median(turn["plain"] / turn["fast"] for turn in turns)
    floor = statistics.median(turn["fast"] / turn["floor"] for turn in turns)
    click.echo(f"{name:28} {rows:7} {rows / fast:11,.0f} {plain:14.1f} {floor:14.2f}")


def peak_memory(bam: Path, length: int) -> float:
    """Peak memory (MB) of a process that makes the pass over a simulated BAM."""
    code = (
        "import resource, sys, features, pysam; from pathlib import Path; import numpy as np;"
        f"sequence = np.random.default_rng({length}).choice(features.BASES, {length}).tobytes();"
        "alleles = features.substitutions(sequence, 600);"
        f"file = pysam.AlignmentFile({str(bam)!r}); features.pileup.gather(file, 'z', sequence, alleles);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return float(
        subprocess.run([sys.executable, "-c", code], env=here, check=True, capture_output=True).stdout
    )


@click.command()
@click.option("--length", default=500_000, show_default=True, help="Simulated contig, bp.")
@click.option("--repeats", default=5, show_default=True)
@click.option("--bam", type=click.Path(exists=True, path_type=Path), help="Real normalised BAM.")
@click.option("--calls", type=click.Path(exists=True, path_type=Path), help="Its normalised VCF.")
@click.option("--sample", help="Its sample.")
@click.option("--reference", type=click.Path(exists=True, path_type=Path), help="Its reference.")
def main(
    length: int,
    repeats: int,
    bam: Path | None,
    calls: Path | None,
    sample: str | None,
    reference: Path | None,
) -> None:
    """Speed and memory of the pass over the reads."""
    click.echo(f"{'':28} {'rows':>7} {'rows/s':>11} {'x plain pileup':>14} {'x samtools view':>15}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        simulated, sequence = simulate(folder, length)
        for every in (1200, 600, 150):
            compare(
                f"30x, a row each {every} bp",
                simulated,
                "z",
                sequence,
                substitutions(sequence, every),
                repeats,
            )
        if bam and calls and sample and reference:
            with pysam.FastaFile(str(reference)) as fasta:
                for contig in CallSet("other", calls, sample).contigs():
                    real = fasta.fetch(contig).upper().encode()
                    for candidates in union([CallSet("other", calls, sample)], contig):
                        if candidates.keys.num_rows > 100:
                            compare(f"{bam.name} {contig}", bam, contig, real, candidates.alleles, repeats)
        click.echo(f"\n{'BAM, MB':>10} {'reads':>10} {'peak memory, MB':>16}")
        for times in (1, 4, 16):
            grown, _ = simulate(folder, length // 4 * times)
            with pysam.AlignmentFile(str(grown)) as reads:
                count = reads.mapped
            size = grown.stat().st_size / 1e6
            click.echo(f"{size:10.1f} {count:10,} {peak_memory(grown, length // 4 * times):16.0f}")


if __name__ == "__main__":
    main()
