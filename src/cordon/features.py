"""The model's inputs: their names, their order, and the fixed public transforms that make them.

Every constant here is public and chosen from the meaning of the quantity (phred scales, read
lengths, GATK's own thresholds), never from data: a data-dependent constant would leave a site
without being accounted for. Transforms map their quantity to about [-3, 3] and have no NaN.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

CALLERS = ("bcftools", "deepvariant", "haplotypecaller")

FEATURES: tuple[str, ...] = (
    # which callers made the candidate, and what they said of it
    "f_called_bcftools",
    "f_called_deepvariant",
    "f_called_haplotypecaller",
    "f_bcftools_qual",
    "f_deepvariant_qual",
    "f_haplotypecaller_qual",
    "f_haplotypecaller_qd",
    "f_haplotypecaller_gq",
    "f_haplotypecaller_fs",
    "f_haplotypecaller_sor",
    "f_haplotypecaller_mq",
    "f_haplotypecaller_mq_rank_sum",
    "f_haplotypecaller_read_pos_rank_sum",
    "f_haplotypecaller_rank_sums_missing",
    "f_dosage",
    # the reads at the allele
    "f_depth",
    "f_alt_fraction",
    "f_alt_fraction_from_half",
    "f_strand_bias",
    "f_alt_base_quality",
    "f_base_quality_difference",
    "f_alt_mapping_quality",
    "f_mapping_quality_difference",
    "f_low_mapping_quality",
    "f_alt_end_distance",
    "f_alt_soft_clipped",
    "f_alt_mismatches",
    "f_other_alleles",
    "f_improper_pairs",
    # the sequence around it
    "f_homopolymer",
    "f_repeat_unit",
    "f_repeat_length",
    "f_gc",
    "f_indel_length",
    "f_snv",
    "f_transition",
    "f_nearest_candidate",
)

# Constants: centre and scale of each transform, in the unit of the quantity.
QUAL_CENTRE, QUAL_SCALE = np.log1p(100.0), 1.5  # phred; a call of QUAL 100 maps to 0
QD_CENTRE, QD_SCALE = 15.0, 10.0  # GATK filters QD < 2; sound calls lie at 10-35
GQ_CENTRE, GQ_SCALE = 50.0, 50.0  # phred, HaplotypeCaller caps GQ at 99
FS_SCALE = np.log1p(60.0)  # phred; GATK filters FS > 60 for SNVs
SOR_CENTRE, SOR_SCALE = 1.0, 2.0  # GATK filters SOR > 3 for SNVs; symmetric data give ln 2
MQ_CENTRE, MQ_SCALE = 60.0, 20.0  # phred; 60 is the highest of bwa and minimap2, GATK filters < 40
RANK_SUM_SCALE = 4.0  # standard normal units; GATK filters MQRankSum < -12.5, ReadPosRankSum < -8
DEPTH_CENTRE, DEPTH_SCALE = np.log1p(30.0), 1.0  # reads; 30x is the usual germline depth
BASE_QUALITY_CENTRE, BASE_QUALITY_SCALE = 30.0, 10.0  # phred
MAPPING_QUALITY_SCALE = 20.0  # phred
LOG_ODDS_SCALE = 2.0  # nats
END_DISTANCE_CENTRE, END_DISTANCE_SCALE = np.log1p(30.0), 1.0  # bp; a 150 bp read gives 37 on average
MISMATCHES_SCALE = np.log1p(3.0)  # mismatches and indel bases per read
COUNT_SCALE = np.log1p(2.0)  # other alleles at the site
HOMOPOLYMER_CENTRE, HOMOPOLYMER_SCALE = np.log1p(4.0), 0.8  # bp
REPEAT_UNIT_SCALE = 3.0  # bp; units of 1 to 6
REPEAT_LENGTH_CENTRE, REPEAT_LENGTH_SCALE = np.log1p(8.0), 1.0  # bp
GC_CENTRE, GC_SCALE = 0.41, 0.15  # share; the human genome is 41 % GC
INDEL_SCALE = np.log1p(5.0)  # bp, signed
NEAREST_CENTRE, NEAREST_SCALE, NEAREST_FAR = np.log1p(100.0), 2.0, 1000  # bp; further is all one
LIMIT = 3.0


def _logged(values: ArrayLike, centre: float, scale: float) -> Array:
    return (np.log1p(np.maximum(np.asarray(values, dtype=np.float64), 0.0)) - centre) / scale


def _linear(values: ArrayLike, centre: float, scale: float) -> Array:
    return (np.asarray(values, dtype=np.float64) - centre) / scale


def call_features(calls: Mapping[str, Array]) -> dict[str, Array]:
    """What the callers say of n alleles.

    ``calls`` holds float64 [n] arrays with NaN where missing: ``{caller}_qual`` (phred, NaN where
    not called) for each of CALLERS, ``haplotypecaller_`` ``qd``, ``gq``, ``fs``, ``sor``, ``mq``,
    ``mq_rank_sum``, ``read_pos_rank_sum``, and ``dosage`` (share of the genotype's alleles, 0-1).
    A missing value becomes 0, the transform's centre; the flags say that it was missing.
    """
    columns: dict[str, Array] = {}
    for caller in CALLERS:
        qual = calls[f"{caller}_qual"]
        columns[f"f_called_{caller}"] = (~np.isnan(qual)).astype(np.float64)
        columns[f"f_{caller}_qual"] = _logged(qual, QUAL_CENTRE, QUAL_SCALE)
    name = "haplotypecaller"
    columns[f"f_{name}_qd"] = _linear(calls[f"{name}_qd"], QD_CENTRE, QD_SCALE)
    columns[f"f_{name}_gq"] = _linear(calls[f"{name}_gq"], GQ_CENTRE, GQ_SCALE)
    columns[f"f_{name}_fs"] = _logged(calls[f"{name}_fs"], 0.0, FS_SCALE)
    columns[f"f_{name}_sor"] = _linear(calls[f"{name}_sor"], SOR_CENTRE, SOR_SCALE)
    columns[f"f_{name}_mq"] = _linear(calls[f"{name}_mq"], MQ_CENTRE, MQ_SCALE)
    for rank_sum in ("mq_rank_sum", "read_pos_rank_sum"):
        columns[f"f_{name}_{rank_sum}"] = _linear(calls[f"{name}_{rank_sum}"], 0.0, RANK_SUM_SCALE)
    missing = np.isnan(calls[f"{name}_mq_rank_sum"]) & ~np.isnan(calls[f"{name}_qual"])
    columns[f"f_{name}_rank_sums_missing"] = missing.astype(np.float64)
    columns["f_dosage"] = _linear(calls["dosage"], 0.5, 0.5)
    return columns


def read_features(reads: Mapping[str, Array]) -> dict[str, Array]:
    """What the reads say of n alleles; ``reads`` holds float64 [n] arrays as of ``cordon.pileup.EVIDENCE``.

    The strand bias is the absolute log odds ratio of strand by allele with a pseudo-count of one
    half a cell (Haldane-Anscombe), in nats: its sign has no meaning for a germline allele.
    """
    half = 0.5
    odds_ratio = (
        np.log(reads["alt_forward"] + half)
        - np.log(reads["alt_reverse"] + half)
        - np.log(reads["ref_forward"] + half)
        + np.log(reads["ref_reverse"] + half)
    )
    alt = reads["alt_forward"] + reads["alt_reverse"]
    fraction = alt / np.maximum(reads["depth"], 1.0)
    quality = reads["alt_base_quality"]
    mapping = reads["alt_mapping_quality"]
    return {
        "f_depth": _logged(reads["depth"], DEPTH_CENTRE, DEPTH_SCALE),
        "f_alt_fraction": _linear(fraction, 0.5, 0.25),
        "f_alt_fraction_from_half": _linear(np.abs(fraction - 0.5), 0.25, 0.25),
        "f_strand_bias": _linear(np.abs(odds_ratio), 0.0, LOG_ODDS_SCALE),
        "f_alt_base_quality": _linear(quality, BASE_QUALITY_CENTRE, BASE_QUALITY_SCALE),
        "f_base_quality_difference": _linear(quality - reads["ref_base_quality"], 0.0, BASE_QUALITY_SCALE),
        "f_alt_mapping_quality": _linear(mapping, MQ_CENTRE, MAPPING_QUALITY_SCALE),
        "f_mapping_quality_difference": _linear(
            mapping - reads["ref_mapping_quality"], 0.0, MAPPING_QUALITY_SCALE
        ),
        "f_low_mapping_quality": _linear(reads["low_mapping_quality"], 0.0, 0.5),
        "f_alt_end_distance": _logged(reads["alt_end_distance"], END_DISTANCE_CENTRE, END_DISTANCE_SCALE),
        "f_alt_soft_clipped": _linear(reads["alt_soft_clipped"], 0.0, 0.5),
        "f_alt_mismatches": _logged(reads["alt_mismatches"], 0.0, MISMATCHES_SCALE),
        "f_other_alleles": _logged(reads["other_alleles"], 0.0, COUNT_SCALE),
        "f_improper_pairs": _linear(reads["improper_pairs"], 0.0, 0.5),
    }


def context_features(context: Mapping[str, Array]) -> dict[str, Array]:
    """What the reference says of n alleles; float64 [n] arrays as of ``cordon.context.CONTEXT``."""
    length = context["indel_length"]
    return {
        "f_homopolymer": _logged(context["homopolymer"], HOMOPOLYMER_CENTRE, HOMOPOLYMER_SCALE),
        "f_repeat_unit": _linear(context["repeat_unit"], 0.0, REPEAT_UNIT_SCALE),
        "f_repeat_length": _logged(context["repeat_length"], REPEAT_LENGTH_CENTRE, REPEAT_LENGTH_SCALE),
        "f_gc": _linear(context["gc"], GC_CENTRE, GC_SCALE),
        "f_indel_length": np.sign(length) * _logged(np.abs(length), 0.0, INDEL_SCALE),
        "f_snv": context["snv"],
        "f_transition": context["transition"],
        "f_nearest_candidate": _logged(
            np.minimum(context["nearest_candidate"], NEAREST_FAR), NEAREST_CENTRE, NEAREST_SCALE
        ),
    }


def features(
    calls: Mapping[str, Array], reads: Mapping[str, Array], context: Mapping[str, Array]
) -> NDArray[np.float32]:
    """All features of n alleles: float32 [n, len(FEATURES)] within [-3, 3], columns as FEATURES."""
    columns = {**call_features(calls), **read_features(reads), **context_features(context)}
    matrix = np.stack([columns[name] for name in FEATURES], axis=1)
    bounded: NDArray[np.float32] = np.clip(np.nan_to_num(matrix, nan=0.0), -LIMIT, LIMIT).astype(np.float32)
    return bounded
