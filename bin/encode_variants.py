#!/usr/bin/env python3
"""Join the callers' candidates of a sample into one variant table with features."""

import click

from cordon.calls.read import parse_calls
from cordon.console.commands import EXISTING, OUTPUT, Facts, command
from cordon.console.progress import shown
from cordon.variants.encode import SampleIdentity, encode
from cordon.variants.table import PILEUP, VARIANTS, write_batches


@command()
@click.option("--site", required=True, help="The sample's site.")
@click.option("--sample", required=True, help="Sample as the files name it.")
@click.option(
    "--pseudonyms", type=EXISTING, required=True, help="JSON: the table's names of patient and sample."
)
@click.option("--bam", type=EXISTING, help="Normalised, indexed BAM; without it read features are missing.")
@click.option("--reference", type=EXISTING, required=True, help="FASTA with its .fai.")
@click.option("--calls", multiple=True, required=True, help="caller=normalised.vcf.gz; repeatable.")
@click.option("--frequencies", type=EXISTING, help="Normalised sites VCF with INFO/AF of a population.")
@click.option("--pileups", is_flag=True, help="Add the pileup images that the model pileup_cnn looks at.")
@click.option("--output", type=OUTPUT, required=True, help="Variant table (Parquet) to write.")
def main(
    site: str,
    sample: str,
    pseudonyms: str,
    bam: str | None,
    reference: str,
    calls: tuple[str, ...],
    frequencies: str | None,
    pileups: bool,
    output: str,
) -> Facts:
    """Join the callers' candidates of a sample into one variant table with features."""
    paths = parse_calls(calls)
    batches = encode(
        identity=SampleIdentity.read(pseudonyms, site),
        sample=sample,
        bam=bam,
        reference=reference,
        calls=paths,
        frequencies=frequencies,
        pileups=pileups,
        steps=shown,
    )
    rows = write_batches(output, VARIANTS.append(PILEUP) if pileups else VARIANTS, batches)
    told = f"{sample}: {rows} candidates of {', '.join(sorted(paths))}"
    return Facts({"sample": sample, "candidates": rows, "callers": sorted(paths)}, [told])


if __name__ == "__main__":
    main()
