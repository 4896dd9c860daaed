"""Looking alleles up in resource VCFs: what is found, what a missing value is, what bad resources say."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pysam
import pytest

from conftest import SHARED, Lab
from cordon.errors import UserError
from cordon.variants.resources import frequencies, known

AF = '##INFO=<ID=AF,Number=A,Type=Float,Description="allele frequency">'
RECORDS = [
    "chr1 100 A C . . AF=0.25",
    "chr1 100 A G . . AF=1e-05",
    "chr1 200 AT A . . AF=.",
    "chr1 300 C T . . .",
    "chr2 100 A T . . AF=0.5",
]


def resource(lab: Lab, records: list[str] = RECORDS, name: str = "r.vcf.gz") -> Path:
    return lab.vcf(name, records, samples=(), header=[AF])


def test_only_the_allele_itself_is_known(lab: Lab) -> None:
    places, refs, alts = [99, 100, 100, 100, 200, 200], ["A", "A", "A", "a", "AT", "A"], list("CCTGAA")
    found = known([resource(lab)], "chr1", places, refs, alts)
    assert found.tolist() == [False, True, False, True, True, False]


def test_known_to_any_of_several_resources(lab: Lab) -> None:
    second = lab.vcf("b.vcf.gz", ["chr1 500 A C . . ."], samples=())
    found = known([resource(lab), second], "chr1", [100, 500, 501], ["A", "A", "A"], ["C", "C", "C"])
    assert found.tolist() == [True, True, False]
    assert known([], "chr1", [100], ["A"], ["C"]).tolist() == [False]


def test_frequencies_are_zero_where_absent_and_nan_where_not_said(lab: Lab) -> None:
    places = np.array([100, 100, 100, 200, 300, 400])
    refs = pa.chunked_array([["A", "A"], ["A", "AT", "C", "G"]])
    alts = pa.array(["C", "G", "T", "A", "T", "A"])
    found = frequencies(resource(lab), "chr1", places, refs, alts)
    assert found.dtype == np.float32
    expected = np.array([0.25, 1e-5, 0.0, np.nan, np.nan, 0.0], dtype=np.float32)
    np.testing.assert_array_equal(found, expected)


def test_a_contig_without_records_and_a_table_without_rows(lab: Lab) -> None:
    path = resource(lab, RECORDS[:1])
    assert frequencies(path, "chr2", [100], ["A"], ["T"]).tolist() == [0.0]
    assert frequencies(path, "chrUn", [100], ["A"], ["T"]).tolist() == [0.0]
    assert frequencies(path, "chr1", [], [], []).tolist() == []
    assert known([path], "chr1", [], [], []).tolist() == []


def test_a_contig_whose_name_looks_like_a_region(lab: Lab) -> None:
    name = "HLA-A*01:01:01:01"
    odd = Lab(lab.folder, {name: "ACGT" * 100, "HLA-A*01": "ACGT" * 100})
    path = odd.vcf("r.vcf.gz", [f"{name} 1 A C . . AF=0.5"], samples=(), header=[AF])
    assert frequencies(path, name, [1], ["A"], ["C"]).tolist() == [0.5]
    assert frequencies(path, "HLA-A*01", [1], ["A"], ["C"]).tolist() == [0.0]


def test_resources_that_cannot_be_used_say_why(lab: Lab) -> None:
    bare = shutil.copy(resource(lab), lab.folder / "bare.vcf.gz")
    with pytest.raises(UserError, match=r"bare\.vcf\.gz: has no index"):
        known([bare], "chr1", [100], ["A"], ["C"])
    plain = lab.vcf("plain.vcf.gz", ["chr1 100 A C . . ."], samples=())
    with pytest.raises(UserError, match=r"plain\.vcf\.gz: has no INFO/AF"):
        frequencies(plain, "chr1", [100], ["A"], ["C"])
    several = resource(lab, ["chr1 100 A C,G . . AF=0.1,0.2"], "several.vcf.gz")
    for lookup in (lambda: known([several], "chr1", [100], ["A"], ["C"]),
                   lambda: frequencies(several, "chr1", [100], ["A"], ["C"])):  # fmt: skip
        with pytest.raises(UserError, match=r"several\.vcf\.gz: .*normalise_variants --sites_only"):
            lookup()
    with pytest.raises(UserError, match=r"no\.vcf\.gz: not a readable VCF"):
        known([lab.text("no.vcf.gz", "nothing")], "chr1", [100], ["A"], ["C"])


def test_every_frequency_of_the_real_sites_is_what_the_file_says() -> None:
    path = SHARED / "kgp_chr20_1mb" / "kgp.chr20_1-2mb.phase3.sites.vcf.gz"
    if not path.exists():
        pytest.skip(f"real data are not on this machine ({path.parent})")
    with pysam.VariantFile(str(path)) as records:
        multi = {record.pos for record in records if len(record.alts) > 1}
        records.reset()
        rows = [
            (record.pos, record.ref, record.alts[0], record.info["AF"][0])
            for record in records
            if record.pos not in multi
        ]
    places, refs, alts, shares = zip(*rows, strict=True)
    assert len(rows) > 28_000
    np.testing.assert_array_equal(
        frequencies(path, "z", places, refs, alts), np.array(shares, dtype=np.float32)
    )
    assert known([path], "z", places, refs, alts).all()
    assert not known([path], "z", np.array(places) + 100_000_000, refs, alts).any()
