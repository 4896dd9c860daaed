#!/usr/bin/env python3
"""Label a sample's candidates as real or false, by its truth set or by known sites."""

from __future__ import annotations

import click

from cordon.calls.normalise import DROP, FILTERED
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
from cordon.errors import UserError
from cordon.variants.known_sites import FEWEST, label_by_known_sites
from cordon.variants.labels import label_variants


@command()
@click.option("--variants", type=EXISTING, required=True, help="Variant table (Parquet) of one sample.")
@click.option("--sample", required=True, help="The sample's name in the truth VCF.")
@GIVEN
@click.option("--reference", type=EXISTING, required=True, help="FASTA with its .fai.")
@click.option("--aliases", type=EXISTING, help="Table of contig names, for truth VCF and confident BED.")
@click.option("--truth", type=EXISTING, help="VCF of the sample's real alleles.")
@click.option("--confident", type=EXISTING, help="BED of the truth set's confident regions.")
@click.option(
    "--known_sites",
    type=EXISTING,
    multiple=True,
    help="Normalised, indexed VCF of known alleles, in place of a truth set; repeatable.",
)
@click.option(
    "--filtered_records",
    type=click.Choice(FILTERED),
    default=DROP,
    show_default=True,
    help="What becomes of truth records whose FILTER is neither PASS nor missing.",
)
@click.option("--output", type=OUTPUT, required=True, help="Labelled table (Parquet) to write.")
@PRIVATE_ERRORS
def main(
    variants: str,
    sample: str,
    given: str | None,
    reference: str,
    aliases: str | None,
    truth: str | None,
    confident: str | None,
    known_sites: tuple[str, ...],
    filtered_records: str,
    output: str,
) -> Facts:
    """Label a sample's candidates as real or false, by its truth set or by known sites."""
    # Class counts are the site's own: nothing is printed that a log could carry elsewhere.
    if known_sites and not truth and not confident:
        few = label_by_known_sites(variants, output, known_sites=known_sites, steps=shown)
        told = "{variants}: labelled by {known_sites} known-sites VCF"
        found = facts(told, variants=variants, known_sites=len(known_sites))
        line = "{variants}: fewer than {fewest} {kind} are known sites: its {kind} have no label"
        rows = [{"variants": variants, "fewest": FEWEST, "kind": kind} for kind in few]
        return each("unlabelled", line, rows) + found
    if truth and confident and not known_sites:
        name = name_in_files(given, sample, truth=truth, confident=confident) or sample
        label_variants(
            variants, output, sample=name, reference=reference, truth=truth, confident=confident,
            aliases=aliases, passing=filtered_records == DROP, steps=shown,
        )  # fmt: skip
        told = "{variants}: labelled by {truth} inside {confident}"
        return facts(told, variants=variants, truth=truth, confident=confident)
    raise UserError(
        "labels come from one source, and here are none or two. Give either --truth with --confident, or "
        "--known_sites."
    )


if __name__ == "__main__":
    main()
