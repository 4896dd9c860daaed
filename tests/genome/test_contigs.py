"""Tests of cordon.genome.contigs."""

import pytest

from conftest import ROOT
from cordon.errors import InputProblems, UserError
from cordon.genome.contigs import Aliases, read_aliases

HG38 = {"chr1": 248_956_422, "chr2": 242_193_529, "chrM": 16_569}


def table(lab, *lines):
    return lab.text("aliases.tsv", "".join(f"{line}\n" for line in lines))


def test_without_a_table_nothing_is_mapped():
    assert read_aliases(None) == Aliases()
    assert read_aliases(None).resolve(["1", "MT"], HG38) == {}


def test_a_file_s_names_become_the_reference_s(lab):
    aliases = read_aliases(table(lab, "# names", "", "chr1\t1\tNC_000001.11", "M\tMT\tchrM\r"))
    assert aliases.resolve(["1", "2", "MT"], HG38) == {"1": "chr1", "MT": "chrM"}
    assert aliases.resolve(["chr1", "M"], {"1": 5, "MT": 5}) == {"chr1": "1", "M": "MT"}


def test_names_that_the_reference_has_stay(lab):
    aliases = read_aliases(table(lab, "chr1\t1"))
    assert aliases.resolve(["chr1", "other"], HG38) == {}


def test_a_row_of_which_the_reference_has_no_name_maps_nothing(lab):
    assert read_aliases(table(lab, "chr9\t9")).resolve(["9"], HG38) == {}


@pytest.mark.parametrize("names", [["chr1", "1"], ["1", "chr1"], ["1", "NC_000001.11"]])
def test_two_names_of_a_file_must_not_become_one(lab, names):
    aliases = read_aliases(table(lab, "# names", "chr1\t1\tNC_000001.11"))
    with pytest.raises(UserError, match=r"aliases\.tsv, row 2: .* would both become chr1"):
        aliases.resolve(names, HG38)


def test_two_contigs_of_the_reference_are_not_one(lab):
    aliases = read_aliases(table(lab, "chr1\t1", "chr2\tchrM\t3"))
    with pytest.raises(UserError, match=r"aliases\.tsv, row 2: chr2 and chrM are two contigs"):
        aliases.resolve(["1"], HG38)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["chr1"], r"row 1: holds one name only \(chr1\)"),
        (["chr1 1"], r"row 1: holds one name only"),
        (["chr1\t1", "chr2\tcontig 2"], r"row 2: has a blank in the name 'contig 2'"),
        (["chr1\t1", "1\t01"], r"row 2: names 1 again, which is in row 1"),
        (["chr1\tchr1"], r"row 1: holds a name twice"),
        (["# only a comment"], r"holds no contig names"),
    ],
)
def test_malformed_tables_are_refused(lab, lines, message):
    with pytest.raises(InputProblems, match=rf"aliases\.tsv.*{message}"):
        read_aliases(table(lab, *lines))


def test_a_table_that_is_no_text_is_refused(lab):
    path = lab.folder / "aliases.tsv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"aliases\.tsv: not a readable table"):
        read_aliases(path)


def test_the_table_that_comes_with_cordon_has_the_human_chromosomes():
    aliases = read_aliases(ROOT / "assets" / "contig_aliases.tsv")
    ucsc = [f"chr{name}" for name in (*range(1, 23), "X", "Y", "M")]
    plain = [*map(str, range(1, 23)), "X", "Y", "MT"]
    assert aliases.resolve(plain, dict.fromkeys(ucsc, 1)) == dict(zip(plain, ucsc, strict=True))
    assert aliases.resolve(ucsc, dict.fromkeys(plain, 1)) == dict(zip(ucsc, plain, strict=True))
