"""Tests of cordon.genome.intervals: where to call, and its parts."""

import numpy as np
import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import fasta
from cordon.errors import InputProblems, UserError
from cordon.genome.contigs import read_aliases
from cordon.genome.intervals import SHORTEST_GAP, Stretches, callable_stretches, split, split_intervals
from cordon.genome.regions import read_regions

GAP = "N" * SHORTEST_GAP


@pytest.fixture
def genome(tmp_path):
    """chr1: 100 bases, a gap, 200 bases with a short run of N; chr2: only N; chr3: 60 bases."""
    sequences = {
        "chr1": f"{'N' * 300}{'AC' * 50}{GAP}{'GT' * 50}{'n' * (SHORTEST_GAP - 1)}{'GT' * 50}",
        "chr2": "N" * 40,
        "chr3": "ACGT" * 15,
    }
    path = tmp_path / "reference.fasta"
    path.write_text(fasta(sequences))
    pysam.faidx(str(path))
    return path


def beds(folder):
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def test_runs_of_n_are_left_out_and_short_ones_are_not(genome, tmp_path):
    whole = tmp_path / "whole.bed"
    (part,) = split_intervals(reference=genome, outdir=tmp_path / "parts", whole=whole)
    expected = "chr1\t300\t400\nchr1\t450\t699\nchr3\t0\t60\n"
    assert beds(tmp_path / "parts") == {"0001.bed": expected}
    assert whole.read_text() == expected
    assert part.length == 409


def test_chunks_of_a_long_contig_are_put_together(genome, monkeypatch):
    whole = callable_stretches(genome, None, read_aliases(None))
    monkeypatch.setattr("cordon.genome.intervals._CHUNK", 7)
    again = callable_stretches(genome, None, read_aliases(None))
    assert again.contigs == whole.contigs
    assert again.starts.tolist() == whole.starts.tolist()
    assert again.ends.tolist() == whole.ends.tolist()


def test_cuts_move_to_a_gap_that_is_near_and_parts_are_of_one_length_elsewhere(genome, tmp_path):
    # A quarter of 409 bp is 102: the gap after 100 bp is near, nothing is near 204, and the end of chr1 at
    # 349 is too far from 307.
    made = split_intervals(reference=genome, outdir=tmp_path, parts=4)
    assert [part.length for part in made] == [100, 104, 103, 102]
    assert beds(tmp_path) == {
        "0001.bed": "chr1\t300\t400\n",
        "0002.bed": "chr1\t450\t554\n",
        "0003.bed": "chr1\t554\t657\n",
        "0004.bed": "chr1\t657\t699\nchr3\t0\t60\n",
    }


def test_parts_of_an_earlier_run_do_not_stay(genome, tmp_path):
    split_intervals(reference=genome, outdir=tmp_path / "parts", parts=4)
    split_intervals(reference=genome, outdir=tmp_path / "parts", parts=2)
    assert len(beds(tmp_path / "parts")) == 2


def test_a_bed_limits_and_comes_in_the_references_order(genome, tmp_path):
    bed = tmp_path / "x.bed"
    bed.write_text("3\t10\t20\n3\t5\t12\n1\t350\t460\n")
    table = tmp_path / "aliases.tsv"
    table.write_text("chr1\t1\nchr3\t3\n")
    found = callable_stretches(genome, bed, read_aliases(table))
    assert found.contigs == ("chr1", "chr1", "chr3")
    assert found.starts.tolist() == [350, 450, 5]
    assert found.ends.tolist() == [400, 460, 20]


@pytest.mark.parametrize(
    ("bed", "expected"),
    [
        ("3\t10\t20\n", r"x\.bed: names contig 3, which .* lacks\. Use its contig names, or map them"),
        ("chr3\t10\t61\n", r"x\.bed: reaches to 61 on chr3, which has 60 bp"),
        ("chr2\t0\t40\n", r"x\.bed: holds nothing but N\."),
    ],
)
def test_beds_that_do_not_belong(genome, tmp_path, bed, expected):
    (tmp_path / "x.bed").write_text(bed)
    with pytest.raises(UserError, match=expected):
        callable_stretches(genome, tmp_path / "x.bed", read_aliases(None))


def bases(stretches):
    spans = zip(stretches.starts, stretches.ends, strict=True)
    return [base for start, end in spans for base in range(start, end)]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 60)), min_size=1, max_size=30),
    st.integers(1, 60),
)
def test_parts_hold_every_base_once_in_order_and_are_nearly_equal(gaps_and_lengths, parts):
    gaps, lengths = np.array(gaps_and_lengths).T
    ends = np.cumsum(gaps + lengths)
    called = Stretches(("c",) * len(ends), ends - lengths, ends)
    made = split(called, parts)
    assert len(made) == min(parts, called.length)
    again = [base for part in made for base in bases(part)]
    assert again == bases(called)
    share = called.length / len(made)
    assert all(abs(part.length - share) <= 0.2 * share + 1 for part in made)


def test_one_part_for_each_50_mb_begun(genome, tmp_path, monkeypatch):
    monkeypatch.setattr("cordon.genome.intervals.BP_A_PART", 200)
    assert len(split_intervals(reference=genome, outdir=tmp_path)) == 3


def test_the_command(genome, tmp_path, command):
    said = command(
        "split_intervals", "--reference", str(genome), "--parts", "4", "--outdir", str(tmp_path / "parts")
    )
    assert said == "4 parts of 100 to 104 bp, 409 bp in all\n"


def test_a_byte_order_mark_and_places_without_a_base_are_no_part_of_a_bed(tmp_path):
    path = tmp_path / "x.bed"
    path.write_bytes(b"\xef\xbb\xbfchr1\t10\t20\r\nchr1\t30\t30\nchr2\t0\t5\n")
    regions = read_regions(path)
    assert regions.contigs == ["chr1", "chr2"]
    assert (regions.starts["chr1"].tolist(), regions.ends["chr1"].tolist()) == ([10], [20])


def test_an_interval_list_is_told_from_a_bed(tmp_path):
    path = tmp_path / "x.bed"
    path.write_text("@HD\tVN:1.6\n@SQ\tSN:chr1\tLN:100\nchr1\t1\t20\t+\tx\n")
    told = r"x\.bed, row 1: is the header of an interval list.*IntervalListToBed"
    with pytest.raises(InputProblems, match=told):
        read_regions(path)
