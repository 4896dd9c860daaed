"""The model's inputs: their names, their order, and the fixed public transforms that make them.

Every constant here is public and chosen from the meaning of the quantity (phred scales, read
lengths, GATK's own thresholds), never from data: a data-dependent constant would leave a site
without being accounted for. Transforms map their quantity to about [-3, 3] and have no NaN.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cordon.arrays import Floats
from cordon.calls.callers import CALLERS

# The sequence around an allele, its type and its company: nothing of the evidence for it.
CONTEXT = (
    "f_homopolymer",
    "f_repeat_unit",
    "f_repeat_length",
    "f_gc",
    "f_indel_length",
    "f_snv",
    "f_transition",
    "f_nearest_candidate",
)

FEATURES: tuple[str, ...] = (
    # which callers made the candidate, and how sure they were
    *(f"f_called_{caller}" for caller in CALLERS),
    *(f"f_{caller}_qual" for caller in CALLERS),
    # what the first of them that says it says
    "f_qd",
    "f_gq",
    "f_gq_missing",
    "f_fs",
    "f_sor",
    "f_strand_annotations_missing",
    "f_mq",
    "f_mq_missing",
    "f_mq_rank_sum",
    "f_read_pos_rank_sum",
    "f_base_quality_rank_sum",
    "f_rank_sums_missing",
    "f_dosage",
    # the reads at the allele; depth and alt fraction are the caller's where there are no reads
    "f_reads_missing",
    "f_depth",
    "f_depth_missing",
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
    *CONTEXT,
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


def _logged(values: ArrayLike, centre: float, scale: float) -> Floats:
    return (np.log1p(np.maximum(np.asarray(values, dtype=np.float64), 0.0)) - centre) / scale


def _known(values: Floats) -> Floats:
    """1 where there is a value, 0 where it is NaN."""
    return (~np.isnan(values)).astype(np.float64)


def _linear(values: ArrayLike, centre: float, scale: float) -> Floats:
    return (np.asarray(values, dtype=np.float64) - centre) / scale


def call_features(quals: Mapping[str, Floats], annotations: Mapping[str, Floats]) -> dict[str, Floats]:
    """What the callers say of n alleles.

    ``quals`` holds float64 [n] by caller: phred, NaN where it did not call the allele. ``annotations``
    holds float64 [n] for each of ANNOTATIONS, NaN where missing: phred (gq, fs, mq), log ratio (sor),
    standard normal units (rank sums), QUAL by read (qd), reads (depth), shares of 0-1 (alt_fraction,
    dosage). A missing annotation becomes 0, its transform's centre, and a flag of its own says so: for
    the annotations that GATK leaves out together (FS and SOR; the rank sums of an allele without
    reference reads) it is one flag.

    Sources: QD, FS, SOR, MQ and rank sums are scaled by GATK's hard-filter thresholds (article
    360035531112), GQ by HaplotypeCaller's cap of 99, QUAL on the log scale that phred is.
    """
    columns: dict[str, Floats] = {}
    for caller in CALLERS:
        columns[f"f_called_{caller}"] = _known(quals[caller])
        # QUAL 0 says that there is none: a call like the middle one, not like the worst.
        given = np.where(quals[caller] == 0, np.expm1(QUAL_CENTRE), quals[caller])
        columns[f"f_{caller}_qual"] = _logged(given, QUAL_CENTRE, QUAL_SCALE)
    columns["f_qd"] = _linear(annotations["qd"], QD_CENTRE, QD_SCALE)
    columns["f_gq"] = _linear(annotations["gq"], GQ_CENTRE, GQ_SCALE)
    columns["f_gq_missing"] = 1 - _known(annotations["gq"])
    columns["f_fs"] = _logged(annotations["fs"], 0.0, FS_SCALE)
    columns["f_sor"] = _linear(annotations["sor"], SOR_CENTRE, SOR_SCALE)
    columns["f_strand_annotations_missing"] = 1 - _known(annotations["fs"])
    columns["f_mq"] = _linear(annotations["mq"], MQ_CENTRE, MQ_SCALE)
    columns["f_mq_missing"] = 1 - _known(annotations["mq"])
    for rank_sum in ("mq_rank_sum", "read_pos_rank_sum", "base_quality_rank_sum"):
        columns[f"f_{rank_sum}"] = _linear(annotations[rank_sum], 0.0, RANK_SUM_SCALE)
    columns["f_rank_sums_missing"] = 1 - _known(annotations["mq_rank_sum"])
    columns["f_dosage"] = _linear(annotations["dosage"], 0.5, 0.5)
    return columns


def read_features(reads: Mapping[str, Floats], annotations: Mapping[str, Floats]) -> dict[str, Floats]:
    """What the reads say of n alleles; ``reads`` holds float64 [n] arrays as of
    ``cordon.variants.pileup.EVIDENCE``.

    Where the depth is NaN (no reads were given) the caller's depth and allele fraction of ``annotations``
    take its place, and a flag says so. The strand bias is the absolute log odds ratio of strand by allele
    with a pseudo-count of one half a cell (Haldane-Anscombe), in nats: its sign has no meaning for a
    germline allele.

    Sources: 30x is the usual germline depth, phred 30 the usual base quality, MAPQ 60 the highest of bwa
    and minimap2; shares are scaled by their range, distances by half the mean of a 150 bp read.
    """
    half = 0.5
    odds_ratio = (
        np.log(reads["alt_forward"] + half)
        - np.log(reads["alt_reverse"] + half)
        - np.log(reads["ref_forward"] + half)
        + np.log(reads["ref_reverse"] + half)
    )
    unread = np.isnan(reads["depth"])
    alt = reads["alt_forward"] + reads["alt_reverse"]
    depth = np.where(unread, annotations["depth"], reads["depth"])
    fraction = np.where(unread, annotations["alt_fraction"], alt / np.maximum(reads["depth"], 1.0))
    quality = reads["alt_base_quality"]
    mapping = reads["alt_mapping_quality"]
    return {
        "f_reads_missing": unread.astype(np.float64),
        "f_depth": _logged(depth, DEPTH_CENTRE, DEPTH_SCALE),
        "f_depth_missing": 1 - _known(depth),
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


def context_features(context: Mapping[str, Floats]) -> dict[str, Floats]:
    """What the reference says of n alleles; float64 [n] arrays as of ``cordon.variants.context.CONTEXT``.

    Sources: the human genome is 41 % G and C; runs of 4 bp and repeats of 8 bp are where sequencers'
    indel errors begin to rise; lengths are on log scales.
    """
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
    quals: Mapping[str, Floats],
    annotations: Mapping[str, Floats],
    reads: Mapping[str, Floats],
    context: Mapping[str, Floats],
) -> NDArray[np.float32]:
    """All features of n alleles: float32 [n, len(FEATURES)] within [-3, 3], columns as FEATURES."""
    columns = {
        **call_features(quals, annotations),
        **read_features(reads, annotations),
        **context_features(context),
    }
    matrix = np.stack([columns[name] for name in FEATURES], axis=1)
    bounded: NDArray[np.float32] = np.clip(np.nan_to_num(matrix, nan=0.0), -LIMIT, LIMIT).astype(np.float32)
    return bounded
