"""Tests of cordon.reads.normalise."""

import hashlib

import pysam
import pytest

from conftest import Read, fasta
from cordon.errors import UserError
from cordon.inputs.files import Genome, alignment_faults
from cordon.reads.checks import check_contigs
from cordon.reads.normalise import normalise_reads, open_alignments

DUPLICATES_MARKED = [{"ID": "md", "PN": "MarkDuplicates"}]


def normalise(lab, bam, sample="s1", **options):
    output = lab.folder / "out.bam"
    done, _ = normalise_reads(bam=bam, sample=sample, reference=lab.reference, output=output, **options)
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
    bam = lab.bam("in.bam", [Read(100), Read(100)], programs=DUPLICATES_MARKED)
    done, records = normalise(lab, bam)
    assert done == "sorted already, duplicates marked before"
    assert not any(record.is_duplicate for record in records)


def test_its_own_result_is_recognised(lab):
    normalise(lab, lab.bam("in.bam", [Read(100), Read(100)]))
    with pysam.AlignmentFile(str(lab.folder / "out.bam")) as file:
        programs = [line.get("PN") for line in file.header.to_dict()["PG"]]
    assert "samtools" in programs
    done, _ = normalise(lab, lab.folder / "out.bam")
    assert done == "sorted already, duplicates marked before"


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


def test_damaged_records_are_refused(lab):
    bam = lab.bam("in.bam", [Read(start, tags={"NM": start}) for start in range(0, 1200, 2)])
    content = bytearray(bam.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 40] = b"\xff" * 40
    bam.write_bytes(content)
    with pytest.raises(UserError, match=r"in\.bam: its records cannot be read"):
        normalise(lab, bam)


def test_reads_without_an_index_are_refused(lab):
    bam = lab.bam("in.bam", [Read(100)], indexed=False)
    with pytest.raises(UserError, match="has no index"):
        open_alignments(bam, lab.reference, "s1")


def with_header(lab, bam, change, name="changed.bam"):
    """A copy of a BAM with its header's lines changed."""
    with pysam.AlignmentFile(str(bam)) as file:
        header = lab.text("header.sam", change(str(file.header)))
    pysam.reheader(str(header), str(bam), save_stdout=str(lab.folder / name))
    return lab.folder / name


def columns(record):
    """The fields of a record and its read group; a CRAM adds the tags MD and NM by itself."""
    return [*record.to_string().split("\t")[:11], record.get_tag("RG")]


def dictionary(lab, **digests):
    lines = [f"@SQ\tSN:{name}\tLN:{length}" for name, length in lab.contigs.items()]
    named = [f"{line}\tM5:{digests[name]}" for name, line in zip(lab.contigs, lines, strict=True)]
    return lab.text("reference.dict", "@HD\tVN:1.0\n" + "\n".join(named) + "\n")


def md5(sequence):
    return hashlib.md5(sequence.encode(), usedforsecurity=False).hexdigest()


def cram(lab, bam, reference=None, name="in.cram"):
    path = lab.folder / name
    pysam.view("-C", "-T", str(reference or lab.reference), "-o", str(path), str(bam), catch_stdout=False)
    return path


def test_an_output_has_nothing_but_the_bam_and_its_index_beside_it(lab):
    reads = [Read(300), Read(100), Read(100, contig="chr2")]
    for order, programs in (
        ("unsorted", []),
        ("unsorted", DUPLICATES_MARKED),
        ("coordinate", DUPLICATES_MARKED),
    ):
        bam = lab.bam("in.bam", reads if order == "unsorted" else [], order=order, programs=programs)
        before = {path.name for path in lab.folder.iterdir()}
        normalise(lab, bam)
        made = (
            {path.name for path in lab.folder.iterdir()} - before - {"reference.fasta", "reference.fasta.fai"}
        )
        assert made <= {"out.bam", "out.bam.bai"}


def test_a_header_that_wrongly_says_sorted_is_found_out(lab):
    reads = [Read(300), Read(100), Read(200)]
    bam = lab.bam("in.bam", reads, programs=DUPLICATES_MARKED, indexed=False)
    done, records = normalise(lab, bam)
    assert done == "sorted (the header had said so already), duplicates marked before"
    assert [record.reference_start for record in records] == [100, 200, 300]
    assert (lab.folder / "out.bam.bai").exists()


@pytest.mark.parametrize("programs", [[], DUPLICATES_MARKED])
def test_a_cram_gives_the_reads_of_the_bam(lab, programs):
    chr1 = lab.sequences["chr1"]
    deleted = Read(150, cigar="40M2D60M", bases=chr1[150:190] + chr1[192:252])
    bam = lab.bam("in.bam", [Read(100), deleted, Read(30, contig="chr2")], programs=programs)
    _, expected = normalise(lab, bam)
    compressed = cram(lab, bam)
    bam.unlink()
    _, records = normalise(lab, compressed)
    assert [columns(record) for record in records] == [columns(record) for record in expected]


def test_a_cram_of_another_reference_is_refused(lab):
    wrong = lab.text("wrong.fasta", f">chr1\n{'A' * 1500}\n>chr2\n{'A' * 600}\n")
    pysam.faidx(str(wrong))
    bam = lab.bam("in.bam", [Read(100)], programs=DUPLICATES_MARKED)
    with pytest.raises(UserError, match=r"in\.cram"):
        normalise(lab, cram(lab, bam, wrong))
    assert not (lab.folder / "out.bam").exists()


@pytest.mark.parametrize("programs", [[], DUPLICATES_MARKED])
@pytest.mark.parametrize("compressed", [False, True])
def test_contigs_are_renamed_by_a_table(lab, programs, compressed):
    reads = [Read(100), Read(30, contig="chr2")]
    plain = lab.bam("in.bam", reads, programs=programs)
    other = with_header(lab, plain, lambda text: text.replace("SN:chr", "SN:"))
    if compressed:
        numbered = lab.text(
            "numbered.fasta", fasta({name[3:]: bases for name, bases in lab.sequences.items()})
        )
        other = cram(lab, other, numbered)
        numbered.unlink()
    with pytest.raises(UserError, match=r"its contig 1 has 1500 bp, .* no such contig.*--aliases"):
        normalise(lab, other)
    table = lab.text("aliases.tsv", "chr1\t1\nchr2\t2\n")
    done, records = normalise(lab, other, aliases=table)
    assert done.endswith(", contigs renamed: 2")
    assert [(record.reference_name, record.reference_start) for record in records] == [
        ("chr1", 100),
        ("chr2", 30),
    ]
    assert sorted(path.name for path in lab.folder.glob(".*")) == []


def test_a_contig_must_have_the_reference_s_sequence(lab):
    digests = {name: md5(sequence) for name, sequence in lab.sequences.items()}
    plain = lab.bam("in.bam", [Read(100)])
    said = with_header(lab, plain, lambda text: text.replace("LN:1500", f"LN:1500\tM5:{digests['chr1']}"))
    normalise(lab, said)
    dictionary(lab, **digests)
    normalise(lab, said)
    normalise(lab, plain)
    dictionary(lab, **(digests | {"chr1": "0" * 32}))
    with pytest.raises(
        UserError, match=rf"its contig chr1 has another sequence .*MD5 {digests['chr1']} and 0000"
    ):
        normalise(lab, said)


def test_contigs_must_come_in_the_reference_s_order(lab):
    bam = lab.bam("in.bam", [Read(100)], contigs={"chr2": 600, "chr1": 1500})
    with pytest.raises(UserError, match=r"its contig chr1 comes after chr2, .*gatk ReorderSam"):
        normalise(lab, bam)


def test_a_part_of_the_reference_s_contigs_is_enough(lab):
    header = pysam.AlignmentHeader.from_dict({"SQ": [{"SN": "chr2", "LN": 600}]})
    assert lab.reference.exists()
    check_contigs(header, "in.bam", lab.reference)


def test_every_read_needs_one_of_the_header_s_groups(lab):
    with pytest.raises(UserError, match=r"read r1 has read group 7, which its header lacks"):
        normalise(lab, lab.bam("in.bam", [Read(100), Read(200, group="7")]))
    bam = lab.bam("in.bam", [Read(100)], sample=None)
    named = with_header(lab, bam, lambda text: text + "@RG\tID:1\tSM:s1\n")
    with pytest.raises(UserError, match=r"read r0 has no read group .*addreplacerg"):
        normalise(lab, named)


def test_every_group_needs_a_sample(lab):
    bam = with_header(lab, lab.bam("in.bam", [Read(100)]), lambda text: text + "@RG\tID:2\tLB:x\n")
    with pytest.raises(UserError, match="read group 2 names no sample"):
        normalise(lab, bam)


def test_the_command_takes_a_table_of_contig_names(lab, command):
    bam = with_header(lab, lab.bam("in.bam", [Read(100)]), lambda text: text.replace("SN:chr1", "SN:1"))
    table = lab.text("aliases.tsv", "chr1\t1\n")
    said = command(
        "normalise_reads", "--bam", str(bam), "--sample", "s1", "--reference", str(lab.reference),
        "--aliases", str(table), "--output", str(lab.folder / "out.bam"),
    )  # fmt: skip
    assert said.startswith("s1: sorted, duplicates marked, contigs renamed: 1; ")


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_header_in_any_encoding_is_read_and_its_bytes_are_kept(lab, encoding):
    """Comments, command lines and descriptions, also where the header is written anew."""
    path = lab.bam("in.bam", [Read(100)], programs=[{"ID": "MarkDuplicates", "PN": "MarkDuplicates"}])
    text = pysam.view("-h", str(path)).replace("SM:s1", "SM:s1\tDS:Universitätsklinik").replace(
        "PN:MarkDuplicates", "PN:MarkDuplicates\tCL:MarkDuplicates /données/é.bam"
    )  # fmt: skip
    sam = lab.folder / "in.sam"
    sam.write_bytes(text.encode(encoding))
    pysam.view("-b", "-o", str(path), str(sam), catch_stdout=False)
    pysam.index(str(path))
    genome = Genome(lab.reference, lab.contigs)
    assert list(alignment_faults(path, "s1", genome)) == []
    output = lab.folder / "out.bam"
    normalise_reads(bam=path, sample="other", named="s1", reference=lab.reference, output=output)
    pysam.head(str(output), save_stdout=str(sam))
    assert "Universitätsklinik".encode(encoding) in sam.read_bytes()
    assert b"SM:other" in sam.read_bytes()
