"""A caller's calls of the parts of a genome, put together into one file."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pysam import bcftools

from cordon.files import StrPath, written_beside
from cordon.genome.samtools import index, samtools
from cordon.steps import Steps, silent


def gather_calls(vcfs: Sequence[StrPath], output: StrPath, *, steps: Steps = silent) -> int:
    """Concatenate bgzip VCFs or gVCFs of one sample (bcftools concat); returns the number of records.

    ``vcfs`` come in the order of the genome; the output gets its tbi. Raises UserError naming the first of
    them where one cannot be read, their samples differ, or the records together are not in order.
    """
    with written_beside(output) as temporary, steps("gathering", 2, "steps") as tick:
        arguments = ["--no-version", "-Oz", "-o", str(temporary), *(os.fspath(vcf) for vcf in vcfs)]
        samtools(bcftools.concat, *arguments, about=vcfs[0])
        tick()
        records = index(temporary)
        tick()
        return records
