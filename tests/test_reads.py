"""Tests of cordon.reads."""

import pysam
import pytest

from conftest import Read
from cordon.errors import UserError
from cordon.reads import normalise_reads, open_alignments


def normalise(lab, bam, sample="s1"):
    output = lab.folder / "out.bam"
    done = normalise_reads(bam=bam, sample=sample, reference=lab.reference, output=output)
    with pysam.AlignmentFile(str(output)) as file:
        return done, list(file)


def test_unsorted_reads_are_sorted_and_duplicates_marked(lab):
    reads = [Read(300), Read(100), Read(100), Read(200)]
    done, records = normalise(lab, lab.bam("in.bam", reads, order="unsorted"))
    assert done == "sorted, duplicates marked"
    assert [record.reference_start for record in records] == [100, 100, 200, 300]
    assert [record.is_duplicate for record in records].count(True) == 1
    assert (lab.folder / "out.bam.bai").exists()
    assert sorted(path.suffix for path in lab.folder.iterdir() if path.name.startswith("out")) == [
        ".bai", ".bam",
    ]  # fmt: skip


def test_marked_duplicates_are_left_as_they_are(lab):
    program = [{"ID": "md", "PN": "MarkDuplicates"}]
    done, records = normalise(lab, lab.bam("in.bam", [Read(100), Read(100)], programs=program))
    assert done == "sorted and duplicates marked already"
    assert not any(record.is_duplicate for record in records)


def test_its_own_result_is_recognised(lab):
    normalise(lab, lab.bam("in.bam", [Read(100), Read(100)]))
    with pysam.AlignmentFile(str(lab.folder / "out.bam")) as file:
        programs = [line.get("PN") for line in file.header.to_dict()["PG"]]
    assert "samtools" in programs
    done, _ = normalise(lab, lab.folder / "out.bam")
    assert done == "sorted and duplicates marked already"


@pytest.mark.parametrize(("sample", "named"), [("other", "name sample other, not s1"), (None, "sample none")])
def test_the_sample_of_the_read_groups_must_be_the_one_expected(lab, sample, named):
    with pytest.raises(UserError, match=rf"in\.bam.*{named}"):
        normalise(lab, lab.bam("in.bam", [Read(100)], sample=sample))
    assert not (lab.folder / "out.bam").exists()


@pytest.mark.parametrize(
    ("contigs", "found"),
    [({"chr1": 1400, "chr2": 600}, "chr1 has 1400 bp, .* has 1500 bp"), ({"z": 9000}, "has no such contig")],
)
def test_reads_on_another_reference_are_refused(lab, contigs, found):
    reads = [Read(100, bases="A" * 100, contig=next(iter(contigs)))]
    bam = lab.bam("in.bam", reads, contigs=contigs)
    with pytest.raises(UserError, match=rf"in\.bam: its contig .*{found}"):
        normalise(lab, bam)
    with pytest.raises(UserError, match=rf"in\.bam: its contig .*{found}"):
        open_alignments(bam, lab.reference, "s1")


def test_a_truncated_file_is_refused(lab):
    bam = lab.bam("in.bam", [Read(100)])
    bam.write_bytes(bam.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"in\.bam: is truncated"):
        normalise(lab, bam)


def test_reads_without_an_index_are_refused(lab):
    bam = lab.bam("in.bam", [Read(100)], indexed=False)
    with pytest.raises(UserError, match="has no index"):
        open_alignments(bam, lab.reference, "s1")
