"""What calls look like before and after each filter, on a few alleles counted by hand."""

import json
import runpy
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from cordon.errors import UserError
from cordon.evaluation.callset import describe, read_scored
from cordon.variants.table import VARIANTS

DESCRIBE = Path(__file__).parents[2] / "bin" / "describe_calls.py"
# ref, alt, type, zygosity, callers, HaplotypeCaller's filter, Cordon's verdict
ALLELES = [
    ("A", "G", "SNV", "heterozygous", "haplotypecaller;deepvariant", True, True),
    ("C", "T", "SNV", "homozygous", "haplotypecaller;deepvariant", True, True),
    ("A", "C", "SNV", "heterozygous", "haplotypecaller", False, False),
    ("G", "C", "SNV", "unknown", "deepvariant", None, True),
    ("A", "ATT", "insertion", "heterozygous", "haplotypecaller", True, True),
    ("AT", "GC", "complex", "heterozygous", "deepvariant", None, False),
]


def table(path: Path, sample: str = "s1") -> Path:
    count = len(ALLELES)
    columns = dict(
        zip(("ref", "alt", "variant_type", "zygosity", "callers", "haplotypecaller_pass", "cordon_pass"),
            map(list, zip(*ALLELES, strict=True)), strict=True),
        site=["north"] * count, sample=[sample] * count, deepvariant_pass=[True] * count,
    )  # fmt: skip
    schema = VARIANTS.append(pa.field("cordon_pass", pa.bool_(), nullable=False))
    blank = {pa.string(): "", pa.int64(): 1}
    arrays = [
        pa.array(columns.get(field.name) or [None if field.nullable else blank.get(field.type, 0.0)] * count,
                 type=field.type)
        for field in schema
    ]  # fmt: skip
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path)
    return path


@pytest.fixture
def found(tmp_path):
    return describe(read_scored([table(tmp_path / "s1.parquet"), table(tmp_path / "s2.parquet", "s2")]))


def test_every_filter_has_its_ratios(found):
    filters = {entry["name"]: entry for entry in found["filters"]}
    assert list(filters) == [
        "no filter", "deepvariant unfiltered", "deepvariant", "haplotypecaller unfiltered", "haplotypecaller",
        "cordon",
    ]  # fmt: skip
    before, after = filters["no filter"], filters["cordon"]
    assert (before["transitions"], before["transversions"], before["ti_tv"]) == (4, 4, 1.0)
    assert (before["heterozygous"], before["homozygous"], before["het_hom"]) == (8, 2, 4.0)
    assert before["types"] == {"SNV": 8, "insertion": 2, "deletion": 0, "complex": 2}
    assert before["sizes"] == {"1 bp": 0, "2-5 bp": 2, "6-20 bp": 0, "over 20 bp": 0}
    assert (after["transitions"], after["transversions"], after["ti_tv"]) == (4, 2, 2.0)
    assert (after["alleles"], after["het_hom"]) == (8, 2.0)
    assert filters["haplotypecaller"]["ti_tv"] is None


def test_agreement_of_callers_is_counted_once_for_each_allele(found):
    assert found["callers"] == [
        {"callers": ["deepvariant"], "alleles": 4, "pass": 2},
        {"callers": ["haplotypecaller"], "alleles": 4, "pass": 2},
        {"callers": ["haplotypecaller", "deepvariant"], "alleles": 4, "pass": 4},
    ]
    assert sum(entry["alleles"] for entry in found["callers"]) == found["alleles"] == 12
    assert found["samples"] == 2


def test_a_table_that_was_not_scored_is_named(tmp_path):
    path = table(tmp_path / "s1.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["cordon_pass"]), path)
    with pytest.raises(UserError, match=r"s1\.parquet: not the expected variant table"):
        list(read_scored([path]))


def test_the_command_writes_what_is_described(tmp_path):
    path, output = table(tmp_path / "s1.parquet"), tmp_path / "callset.json"
    main = runpy.run_path(str(DESCRIBE))["main"]
    result = CliRunner().invoke(main, ["--scores", str(path), "--output", str(output)])
    assert (result.exit_code, result.output) == (0, "samples: 1\nalleles: 6\n")
    assert json.loads(output.read_text()) == describe(read_scored([path]))
