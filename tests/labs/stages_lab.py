"""A caller's file taken through every stage from the first check to the scored VCF."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pysam

from calls_lab import IDENTITY
from cordon.calls.normalise import normalise_variants
from cordon.genome.reference import read_fai
from cordon.inputs.files import Genome, calls_faults
from cordon.scoring.calibrate import uncalibrated
from cordon.scoring.score import Sample, Scoring, score_sample
from cordon.variants.encode import encode
from cordon.variants.features import FEATURES
from cordon.variants.table import VARIANTS, write_table


class ByQuality:
    """A model whose score is the first caller's QUAL."""

    architecture = "mlp"
    hash = "abc123"
    features = FEATURES
    privacy = {"unit": "patient", "epsilon": 8.0}  # noqa: RUF012

    def score(self, features):
        return features[:, FEATURES.index("f_haplotypecaller_qual")].astype(np.float64)


def checked(lab, vcf, sample="s1"):
    """What the run's first check says of a caller's VCF."""
    return list(calls_faults(vcf, sample, Genome(lab.reference, read_fai(f"{lab.reference}.fai"))))


def normalised(lab, vcf, caller="haplotypecaller"):
    """The path of the normalised VCF, and what was done."""
    output = lab.folder / f"{caller}.normalised.vcf.gz"
    return output, normalise_variants(vcf=vcf, sample="s1", reference=lab.reference, output=output)


def scored(lab, folder=".", **calls):
    """The scored VCF's bytes, decompressed, of callers' files: every stage that a run takes them through."""
    paths = {}
    for caller, vcf in calls.items():
        assert not checked(lab, vcf)
        paths[caller], _ = normalised(lab, vcf, caller)
    rows = encode(identity=IDENTITY, sample="s1", reference=lab.reference, calls=paths)
    write_table(pa.concat_tables([VARIANTS.empty_table(), *rows]), lab.folder / "v.parquet")
    scoring = Scoring(ByQuality(), uncalibrated("none", "a"), "0.9")
    one = Sample("s1", lab.folder / "v.parquet", paths)
    score_sample(one, scoring, reference=lab.reference, outdir=lab.folder / folder)
    with pysam.BGZFile(str(lab.folder / folder / "s1.scored.vcf.gz")) as file:
        return file.read()
