"""Tests of cordon.genome.reference."""

import gzip

import pysam
import pytest

from conftest import fasta
from cordon.errors import UserError
from cordon.genome.reference import prepare_reference, read_contigs


def write(path, content, kind):
    if kind == "gzip":
        path.write_bytes(gzip.compress(content.encode()))
    elif kind == "bgzip":
        with pysam.BGZFile(str(path), "w") as out:
            out.write(content.encode())
    else:
        path.write_text(content)
    return path


@pytest.mark.parametrize("kind", ["plain", "gzip", "bgzip"])
def test_every_kind_of_fasta_becomes_the_same_plain_indexed_one(lab, kind):
    content = fasta(lab.sequences)
    source = write(lab.folder / "ref.fa.gz", content, kind)
    assert read_contigs(source) == {"chr1": 1500, "chr2": 600}
    contigs = prepare_reference(source, lab.folder / "out")
    assert contigs == {"chr1": 1500, "chr2": 600}
    out = lab.folder / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "reference.dict", "reference.fasta", "reference.fasta.fai",
    ]  # fmt: skip
    assert (out / "reference.fasta").read_text() == content
    assert "SN:chr2\tLN:600" in (out / "reference.dict").read_text()


def test_truncated_reference_is_refused_and_nothing_is_left(lab):
    whole = gzip.compress(fasta(lab.sequences).encode())
    source = lab.folder / "ref.fa.gz"
    source.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"ref\.fa\.gz: cannot be read to its end"):
        prepare_reference(source, lab.folder / "out")
    assert list((lab.folder / "out").iterdir()) == []


@pytest.mark.parametrize("content", ["", "ACGT\n", ">chr1\nAC\n>chr1\nAC\n"])
def test_what_is_no_reference_is_refused(lab, content):
    source = lab.text("bad.fa", content)
    with pytest.raises(UserError, match=r"bad\.fa"):
        read_contigs(source)
    with pytest.raises(UserError, match=r"bad\.fa|there twice"):
        prepare_reference(source, lab.folder / "out")


def test_an_index_older_than_its_reference_is_not_believed(lab):
    import os

    source = lab.text("ref.fa", ">a\nACGT\n")
    index = lab.text("ref.fa.fai", "a\t99\t3\t4\t5\n")
    os.utime(index, (1, 1))
    assert read_contigs(source) == {"a": 4}
