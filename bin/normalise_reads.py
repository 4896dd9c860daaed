#!/usr/bin/env python3
"""Check a sample's reads, sort them, mark duplicates, index them."""

import click

from cordon.console.commands import (
    EXISTING,
    GIVEN,
    OUTPUT,
    PRIVATE_ERRORS,
    Facts,
    command,
    each,
    facts,
    name_in_files,
)
from cordon.console.progress import shown
from cordon.reads.duplicates import LIBRARIES, MARKING
from cordon.reads.normalise import normalise_reads


@command()
@click.option("--bam", type=EXISTING, required=True, help="BAM or CRAM.")
@click.option("--sample", required=True, help="The sample, as the BAM to write names it.")
@GIVEN
@click.option("--reference", type=EXISTING, required=True, help="FASTA with its .fai.")
@click.option("--aliases", type=EXISTING, help="Table of contig names: one contig a line, tabs between.")
@click.option(
    "--mark_duplicates",
    type=click.Choice(MARKING),
    default=MARKING[0],
    show_default=True,
    help="auto: unless that was done before, or the library is of amplicons or UMI consensus reads.",
)
@click.option(
    "--library",
    type=click.Choice(LIBRARIES),
    default=LIBRARIES[0],
    show_default=True,
    help="What the reads are of.",
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="For samtools.")
@click.option("--output", type=OUTPUT, required=True, help="BAM to write; its .bai comes beside it.")
@click.option("--summary", type=OUTPUT, help="JSON to write: how many reads are duplicates.")
@PRIVATE_ERRORS
def main(
    bam: str,
    sample: str,
    given: str | None,
    reference: str,
    aliases: str | None,
    mark_duplicates: str,
    library: str,
    threads: int,
    output: str,
    summary: str | None,
) -> Facts:
    """Check a sample's reads, sort them, mark duplicates, index them."""
    done, duplicates = normalise_reads(
        bam=bam,
        sample=sample,
        named=name_in_files(given, sample, bam=bam),
        reference=reference,
        output=output,
        threads=threads,
        aliases=aliases,
        mark_duplicates=mark_duplicates,
        library=library,
        steps=shown,
    )
    if summary:
        duplicates.write(summary, sample)
    warned = [{"sample": sample, "warning": duplicates.warning}] if duplicates.warning else []
    told = facts("{sample}: {done}; {duplicates}", sample=sample, done=done, duplicates=str(duplicates))
    return told + each("warnings", "{sample}: WARNING: {warning}", warned)


if __name__ == "__main__":
    main()
