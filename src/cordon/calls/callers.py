"""The callers whose calls are read, and what any of them may say of an allele."""

from __future__ import annotations

CALLERS = ("bcftools", "deepvariant", "haplotypecaller", "other")

# The caller whose annotations, record and genotype stand for an allele, where several called it.
PREFERENCE = ("haplotypecaller", "deepvariant", "bcftools", "other")

# What any caller may say of an allele beside its QUAL; NaN where it does not. GATK's names for them are
# QUAL/depth, GQ, FS, SOR, MQ, MQRankSum, ReadPosRankSum, BaseQRankSum, DP and AD.
ANNOTATIONS = (
    "qd",
    "gq",
    "fs",
    "sor",
    "mq",
    "mq_rank_sum",
    "read_pos_rank_sum",
    "base_quality_rank_sum",
    "depth",
    "alt_fraction",
    "dosage",
)
