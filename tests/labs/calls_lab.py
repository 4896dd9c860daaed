"""Calls of one small sample, as callers write them."""

from __future__ import annotations

import pyarrow as pa

from cordon.variants.encode import SampleIdentity, encode
from cordon.variants.features import FEATURES
from cordon.variants.table import VARIANTS

HC_HEADER = [
    *(
        f'##INFO=<ID={name},Number=1,Type=Float,Description="x">'
        for name in ("QD", "FS", "SOR", "MQ", "MQRankSum", "ReadPosRankSum")
    ),
    '##FORMAT=<ID=GQ,Number=1,Type=Integer,Description="x">',
    '##FORMAT=<ID=DP,Number=1,Type=Integer,Description="x">',
]


GOOD = "QD=20;FS=1;SOR=0.7;MQ=60;MQRankSum=0;ReadPosRankSum=0"


def other(base):
    return "ACGT"[("ACGT".index(base) + 1) % 4]


def snv(lab, position):
    ref = lab.sequences["chr1"][position - 1]
    return ref, other(ref)


IDENTITY = SampleIdentity("a", "p", "pseudonym")


def encoded(lab, calls, reads=None, **options):
    bam = lab.bam("in.bam", reads) if reads is not None else None
    given = {"identity": IDENTITY, "sample": "s1", "reference": lab.reference, "calls": calls}
    return pa.concat_tables([VARIANTS.empty_table(), *encode(bam=bam, **given, **options)])


def candidates(*alleles, sample="s1", contig="chr1"):
    """A variant table of alleles (position, ref, alt) on one contig, all that else is in it made up."""
    rows = []
    for position, ref, alt in alleles:
        row = {field.name: None for field in VARIANTS} | dict.fromkeys(FEATURES, 0.0)
        row |= {"site": "a", "patient": "p", "sample": sample, "callers": "bcftools"}
        row |= {"variant_type": "SNV", "context": "plain", "zygosity": "heterozygous"}
        rows.append(row | {"contig": contig, "position": position, "ref": ref, "alt": alt})
    return pa.Table.from_pylist(rows, schema=VARIANTS)
