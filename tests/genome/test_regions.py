"""Tests of cordon.genome.regions on lines that no honest tool writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cordon.errors import InputProblems
from cordon.genome.regions import read_regions


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"chr1\t0\t9223372036854775808\n", "more than 12 digits"),
        (b"chr1\t0\t" + b"9" * 5000 + b"\n", "more than 12 digits"),
        (b"chr1\t" + b"9" * 5000 + b"\t1\n", "more than 12 digits"),
        (b"\xff\xfe\t0\t10\n", "not UTF-8"),
    ],
    ids=["past 64 bits", "an end of 5000 digits", "a start of 5000 digits", "a name that is no text"],
)
def test_a_line_that_no_contig_has_is_named(tmp_path: Path, line: bytes, told: str) -> None:
    path = tmp_path / "regions.bed"
    path.write_bytes(b"chr1\t0\t10\n" + line)
    with pytest.raises(InputProblems, match=f"regions.bed, row 2: .*{told}"):
        read_regions(path)
