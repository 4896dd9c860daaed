#!/usr/bin/env python3
"""Simulate a consortium of hospitals: reads, truth, samplesheet and site sheet."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cordon.console.commands import EXISTING, FOLDER, Facts, command, each, facts
from cordon.console.progress import shown
from cordon.simulation import CohortPlan, simulate_cohort


@command()
@click.option("--sites", type=int, default=3, show_default=True, help="Hospitals in the consortium.")
@click.option("--patients", type=int, default=8, show_default=True, help="Patients per site.")
@click.option("--held_out", type=int, default=2, show_default=True, help="Of these, for tests.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same cohort.")
@click.option("--outdir", type=FOLDER, required=True, help="Where all of it goes.")
@click.option("--reference", type=EXISTING, help="Real FASTA (plain or gzipped); without it one is made up.")
@click.option("--sites_vcf", type=EXISTING, help="Sites VCF with INFO/AF on that reference.")
@click.option("--length", type=int, help="Reference length in bp; with --reference, its first so many bp.")
@click.option("--coverage", type=float, default=20.0, show_default=True, help="Mean depth of reads.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=os.cpu_count() or 1,
    help="Patients at a time.  [default: one a CPU]",
)
def main(
    sites: int, patients: int, held_out: int, seed: int, outdir: str, reference: str | None,
    sites_vcf: str | None, length: int | None, coverage: float, jobs: int,
) -> Facts:  # fmt: skip
    """Simulate a consortium of hospitals, with everything that the pipeline takes as input."""
    plan = CohortPlan(
        sites=sites,
        patients=patients,
        held_out=held_out,
        seed=seed,
        coverage=coverage,
        length=length,
        reference=Path(reference) if reference else None,
        sites_vcf=Path(sites_vcf) if sites_vcf else None,
    )
    simulated = []
    with shown("simulating", sites * patients, "patients") as tick:
        for patient in simulate_cohort(plan, Path(outdir), jobs):
            tick()
            made = {"patient": patient.name, "variants": patient.variants, "read_pairs": patient.pairs}
            simulated.append(made)
    line = "{patient}: {variants} variants, {read_pairs} read pairs"
    sheet = facts("samplesheet: {samplesheet}", samplesheet=f"{outdir}/samplesheet.csv")
    return each("patients", line, simulated) + sheet


if __name__ == "__main__":
    main()
