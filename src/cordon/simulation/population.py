"""The population that the patients come from: variant sites, their frequencies, and a patient's genotypes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pysam
from numpy.typing import NDArray

from cordon.arrays import Floats
from cordon.errors import UserError
from cordon.simulation.reference import Reference
from cordon.simulation.sequence import UNKNOWN, decode, substitutes, tandem_repeats
from cordon.simulation.variants import Variant, compatible, left_aligned

# Expected heterozygous sites a base pair under the neutral spectrum theta/x (Watterson 1975).
THETA = 1.2e-3
RAREST_SHARED = 0.02
# Human growth left several times more very rare variants than the neutral spectrum has.
PRIVATE_EXCESS = 3.0
INDEL_SHARE = 1 / 9
LONGEST_ALLELE_BP = 50
# Wright's F_ST between the sites' catchment areas (Balding and Nichols 1995).
FST = 0.03
SUPERPOPULATIONS = ("EUR", "AFR", "EAS", "SAS", "AMR")


@dataclass(frozen=True)
class Population:
    """Shared variant sites: ``frequencies`` is [site of the consortium, variant]."""

    variants: tuple[Variant, ...]
    frequencies: Floats


@dataclass(frozen=True)
class Genotypes:
    """A patient's variants, sorted, and which of the two haplotypes carries each: ``carried`` is [n, 2]."""

    variants: tuple[Variant, ...]
    carried: NDArray[np.bool_]

    def of(self, haplotype: int) -> list[Variant]:
        """Return the variants of one haplotype (0 or 1)."""
        return [self.variants[index] for index in np.flatnonzero(self.carried[:, haplotype])]


def invented(
    reference: Reference, site_rngs: list[np.random.Generator], rng: np.random.Generator
) -> Population:
    """Return shared sites with a 1/x frequency spectrum that drifts between the consortium's sites."""
    count = rng.poisson(THETA * reference.codes.size * np.log(1 / RAREST_SHARED))
    variants = random_variants(reference, int(count), rng)
    # The inverse of the cumulative of 1/x on [RAREST_SHARED, 1].
    ancestral = np.clip(RAREST_SHARED ** (1 - rng.random(len(variants))), RAREST_SHARED, 0.995)
    scale = (1 - FST) / FST
    frequencies = [site.beta(ancestral * scale, (1 - ancestral) * scale) for site in site_rngs]
    return Population(variants, np.array(frequencies))


def random_variants(reference: Reference, count: int, rng: np.random.Generator) -> tuple[Variant, ...]:
    """Draw up to ``count`` distinct variants, sorted and left-aligned: 8 SNVs for 1 indel."""
    sequence = decode(reference.codes)
    indels = rng.binomial(count, INDEL_SHARE)
    drawn = set(_snvs(reference, count - indels, rng)) | set(_indels(reference, sequence, indels, rng))
    ordered = sorted(drawn)
    return tuple(ordered[index] for index in compatible(ordered, sequence))


def _snvs(reference: Reference, count: int, rng: np.random.Generator) -> list[Variant]:
    codes = reference.codes
    weight = (codes != UNKNOWN).astype(np.float64)
    cpg = np.flatnonzero((codes[:-1] == 1) & (codes[1:] == 2))
    # Methylated CpG mutates about an order of magnitude faster than the rest.
    weight[cpg] = weight[cpg + 1] = 8.0
    places = rng.choice(codes.size, size=count, replace=False, p=weight / weight.sum())
    alts = substitutes(codes[places], rng)
    refs, news = decode(codes[places]), decode(alts)
    return [Variant(int(p), r, a) for p, r, a in zip(places, refs, news, strict=True)]


def _indels(reference: Reference, sequence: str, count: int, rng: np.random.Generator) -> list[Variant]:
    """Draw indels: half of them change the number of units of a tandem repeat, as polymerases slip there."""
    repeats = tandem_repeats(reference.codes)
    found: list[Variant] = []
    weight = repeats.length / max(int(repeats.length.sum()), 1)
    while len(found) < count:
        deletes = rng.random() < 0.55
        if weight.size and rng.random() < 0.5:
            pick = rng.choice(weight.size, p=weight)
            start, size = int(repeats.start[pick]), int(repeats.unit[pick])
            inserted = sequence[start : start + size]
        else:
            start, size = int(rng.integers(1, len(sequence) - 60)), min(int(rng.geometric(0.45)), 20)
            inserted = decode(rng.integers(0, 4, size).astype(np.uint8))
        if start == 0 or "N" in sequence[start - 1 : start + size + 1]:
            continue
        before = sequence[start - 1]
        ref, alt = (sequence[start - 1 : start + size], before) if deletes else (before, before + inserted)
        found.append(left_aligned(Variant(start - 1, ref, alt), sequence))
    return found


def first_contig(path: Path) -> str:
    """Return the contig of the first record of a sites VCF.

    Raises:
        UserError: the file cannot be read as a VCF or has no record.
    """
    try:
        with pysam.VariantFile(str(path)) as vcf:
            for record in vcf:
                return str(record.contig)
    except (OSError, ValueError, NotImplementedError) as error:  # the last is pysam's on plain gzip
        raise UserError(f"{path}: cannot be read as VCF ({error}). Give a VCF, plain or bgzipped.") from error
    raise UserError(f"{path}: has no records. Give a sites VCF with INFO/AF.")


def from_vcf(path: Path, reference: Reference, sites: int) -> Population:
    """Read variant sites with their INFO/AF; with superpopulation AFs, each consortium site gets one.

    Symbolic alleles and those over LONGEST_ALLELE_BP are left out.

    Raises:
        UserError: no INFO/AF, or a REF that disagrees with the reference.
    """
    sequence = decode(reference.codes)
    found: dict[Variant, list[float]] = {}
    with pysam.VariantFile(str(path)) as vcf:
        tags = _frequency_tags(path, vcf.header, sites)
        for record in vcf:
            if record.contig != reference.contig or record.stop > len(sequence):
                continue
            expected = sequence[record.start : record.stop]
            for index, alt in enumerate(record.alts or ()):
                ref = str(record.ref).upper()
                if set(ref + alt.upper()) - set("ACGT") or max(len(ref), len(alt)) > LONGEST_ALLELE_BP:
                    continue
                if ref != expected:
                    raise UserError(
                        f"{path}: {record.contig}:{record.pos} has REF {ref}, the reference has {expected}. "
                        "Give the reference that the VCF was made on."
                    )
                variant = left_aligned(Variant(record.start, ref, alt.upper()), sequence)
                found[variant] = [_frequency(path, record, tag, index) for tag in tags]
    if not found:
        raise UserError(
            f"{path}: no usable variant in {len(sequence)} bp of {reference.contig}. Give a larger --length."
        )
    ordered = sorted(found)
    return Population(tuple(ordered), np.array([found[variant] for variant in ordered]).T)


def _frequency_tags(path: Path, header: pysam.VariantHeader, sites: int) -> list[str]:
    if "AF" not in header.info:
        raise UserError(f"{path}: has no INFO/AF. Add it, e.g. with `bcftools +fill-tags -- -t AF`.")
    known = [f"{name}_AF" for name in SUPERPOPULATIONS if f"{name}_AF" in header.info] or ["AF"]
    return [known[site % len(known)] for site in range(sites)]


def _frequency(path: Path, record: pysam.VariantRecord, tag: str, index: int) -> float:
    values = record.info.get(tag)
    if values is None:
        values = record.info.get("AF")
    if values is None:
        raise UserError(
            f"{path}: {record.contig}:{record.pos} has no INFO/AF. Give it one, or remove the record."
        )
    if isinstance(values, float):
        return float(values)
    value = values[min(index, len(values) - 1)]
    return float(value) if value is not None else 0.0


def draw_genotypes(
    population: Population, site: int, reference: Reference, private: bool, rng: np.random.Generator
) -> Genotypes:
    """Draw a patient's genotypes in Hardy-Weinberg proportions, and private variants if asked for."""
    frequency = population.frequencies[site]
    carried = rng.random((frequency.size, 2)) < frequency[:, None]
    mine = {population.variants[index]: carried[index] for index in np.flatnonzero(carried.any(axis=1))}
    if private:
        rare = rng.poisson(2 * THETA * RAREST_SHARED * PRIVATE_EXCESS * reference.codes.size)
        for variant in random_variants(reference, int(rare), rng):
            mine.setdefault(variant, rng.permutation(np.array([True, False])))
    ordered = sorted(mine)
    kept = [ordered[index] for index in compatible(ordered, decode(reference.codes))]
    return Genotypes(tuple(kept), np.array([mine[variant] for variant in kept]).reshape(len(kept), 2))
