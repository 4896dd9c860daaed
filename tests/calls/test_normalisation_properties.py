"""What holds for whatever a caller writes: normalising keeps haplotypes, and gives an allele one spelling."""

import gzip
import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pysam
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from conftest import fasta
from cordon.calls.normalise import normalise_variants

EXAMPLES = settings(max_examples=60, deadline=None)
HEADER = """\
##fileformat=VCFv4.2
##INFO=<ID=EACH,Number=A,Type=Integer,Description="x">
##INFO=<ID=AF,Number=A,Type=Float,Description="x">
##INFO=<ID=BASES,Number=R,Type=Integer,Description="x">
##INFO=<ID=DP,Number=1,Type=Integer,Description="x">
##FORMAT=<ID=GT,Number=1,Type=String,Description="x">
##FORMAT=<ID=AD,Number=R,Type=Integer,Description="x">
##FORMAT=<ID=VAF,Number=A,Type=Integer,Description="x">
##FORMAT=<ID=PL,Number=G,Type=Integer,Description="x">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts1
"""


@dataclass(frozen=True)
class Allele:
    """An allele as a VCF writes it: 1-based position, REF, ALT."""

    position: int
    ref: str
    alt: str

    def haplotype(self, bases):
        """The contig with this allele instead of the reference's."""
        start = self.position - 1
        assert bases[start : start + len(self.ref)] == self.ref
        return bases[:start] + self.alt + bases[start + len(self.ref) :]

    def line(self, genotype="0/1"):
        return f"c\t{self.position}\t.\t{self.ref}\t{self.alt}\t50\t.\t.\tGT\t{genotype}"


@st.composite
def contigs(draw):
    """A contig made of repeats: units of one to four bases, once to eight times each."""
    units = draw(st.lists(st.tuples(st.text("ACGT", min_size=1, max_size=4), st.integers(1, 8)), min_size=4))
    bases = "".join(unit * times for unit, times in units[:12])
    assume(len(bases) >= 10)
    return bases


@st.composite
def alleles(draw, bases):
    """A change of up to six bases by up to six others, in any spelling: with bases around it or without."""
    start = draw(st.integers(0, len(bases) - 1))
    end = draw(st.integers(start, min(len(bases), start + 6)))
    inserted = draw(st.text("ACGT", max_size=6))
    left = max(0, start - draw(st.integers(0, 4)))
    right = min(len(bases), end + draw(st.integers(0, 4)))
    ref = bases[left:right]
    alt = bases[left:start] + inserted + bases[end:right]
    assume(ref and alt and ref != alt)
    return Allele(left + 1, ref, alt)


@st.composite
def contigs_with_alleles(draw):
    bases = draw(contigs())
    return bases, draw(st.lists(alleles(bases), min_size=1, max_size=12))


def normalised(bases, lines):
    """The records (columns) that are left of records on the one contig ``c``."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "c.fasta").write_text(fasta({"c": bases}))
        pysam.faidx(str(folder / "c.fasta"))
        (folder / "in.vcf").write_text(HEADER + "".join(f"{line}\n" for line in lines))
        output = folder / "out.vcf.gz"
        summary = normalise_variants(
            vcf=folder / "in.vcf", reference=folder / "c.fasta", sample="s1", output=output
        )
        text = gzip.decompress(output.read_bytes()).decode().splitlines()
    records = [line.split("\t") for line in text if not line.startswith("#")]
    assert summary.kept == len(records)
    return records


def allele_of(record):
    return Allele(int(record[1]), record[3], record[4])


def left_aligned(allele, bases):
    """The one normal spelling: Tan, Abecasis and Kang, Bioinformatics 31 (2015), algorithm 1."""
    position, ref, alt = allele.position, allele.ref, allele.alt
    while ref[-1] == alt[-1] and (position > 1 or min(len(ref), len(alt)) > 1):
        ref, alt = ref[:-1], alt[:-1]
        if not ref or not alt:
            position -= 1
            ref, alt = bases[position - 1] + ref, bases[position - 1] + alt
    while ref[0] == alt[0] and min(len(ref), len(alt)) > 1:
        position, ref, alt = position + 1, ref[1:], alt[1:]
    return Allele(position, ref, alt)


@EXAMPLES
@given(contigs_with_alleles())
def test_haplotypes_stay_and_each_has_one_spelling(drawn):
    bases, given_alleles = drawn
    found = [allele_of(record) for record in normalised(bases, [allele.line() for allele in given_alleles])]
    haplotypes = [allele.haplotype(bases) for allele in found]
    assert set(haplotypes) == {allele.haplotype(bases) for allele in given_alleles}
    assert len(set(haplotypes)) == len(haplotypes)


@EXAMPLES
@given(contigs_with_alleles())
def test_the_spelling_is_the_leftmost_and_shortest(drawn):
    bases, given_alleles = drawn
    found = {allele_of(record) for record in normalised(bases, [allele.line() for allele in given_alleles])}
    assert found == {left_aligned(allele, bases) for allele in given_alleles}


@pytest.mark.stress
@EXAMPLES
@given(contigs_with_alleles(), st.randoms(use_true_random=False))
def test_order_does_not_matter_and_twice_is_once(drawn, source):
    bases, given_alleles = drawn
    lines = [allele.line() for allele in given_alleles]
    once = normalised(bases, lines)
    source.shuffle(lines)
    assert normalised(bases, lines) == once
    assert normalised(bases, ["\t".join(record) for record in once]) == once


@st.composite
def contigs_with_records(draw):
    """A contig and a record of several ALT with a value of its own for each allele and genotype."""
    bases = draw(contigs())
    start = draw(st.integers(0, len(bases) - 1))
    ref = bases[start : start + draw(st.integers(1, 5))]
    alt = st.text("ACGT", min_size=1, max_size=6).filter(lambda bases: bases != ref)
    alts = draw(st.lists(alt | st.just("*") | st.just("<NON_REF>"), min_size=2, max_size=5, unique=True))
    genotype = draw(st.tuples(*[st.integers(0, len(alts))] * 2))
    return bases, start + 1, ref, alts, genotype, draw(st.sampled_from("/|"))


@EXAMPLES
@given(contigs_with_records())
def test_each_allele_of_a_split_record_keeps_its_own_values(drawn):
    bases, position, ref, alts, genotype, phase = drawn
    pairs = [
        (low, high) for high in range(len(alts) + 1) for low in range(high + 1)
    ]  # VCF 4.3, section 1.6.2
    values = {
        "EACH": [100 + number for number in range(len(alts))],
        "BASES": [200 + number for number in range(len(alts) + 1)],
        "AD": [300 + number for number in range(len(alts) + 1)],
        "VAF": [400 + number for number in range(len(alts))],
        "PL": [500 + number for number in range(len(pairs))],
    }
    said = {name: ",".join(map(str, numbers)) for name, numbers in values.items()}
    line = (
        f"c\t{position}\t.\t{ref}\t{','.join(alts)}\t50\t.\tEACH={said['EACH']};BASES={said['BASES']};DP=9\t"
        f"GT:AD:VAF:PL\t{phase.join(map(str, genotype))}:{said['AD']}:{said['VAF']}:{said['PL']}"
    )
    expected = {}
    for number, alt in enumerate(alts, start=1):
        if number in genotype and alt not in ("*", "<NON_REF>"):
            likelihoods = [
                values["PL"][pairs.index(pair)] for pair in ((0, 0), (0, number), (number, number))
            ]
            depths = [values["AD"][0], values["AD"][number]]
            expected[left_aligned(Allele(position, ref, alt), bases)] = (
                f"EACH={values['EACH'][number - 1]};BASES=200,{200 + number};DP=9",
                phase.join("1" if allele == number else "0" for allele in genotype),
                *(",".join(map(str, part)) for part in (depths, [values["VAF"][number - 1]], likelihoods)),
            )
    found = {allele_of(record): (record[7], *record[9].split(":")) for record in normalised(bases, [line])}
    assert found == expected


@EXAMPLES
@given(st.text("ACGT", min_size=1, max_size=4), st.integers(2, 9), st.integers(1, 2))
def test_every_spelling_of_a_change_in_a_repeat_is_one_allele(unit, times, changed):
    """Copies of a unit taken away or added at any place of the repeat are one allele."""
    bases = f"GATTACA{unit * times}CTGGTCA"
    assume(changed < times)
    start = len("GATTACA")
    copies = unit * changed
    places = [start + len(unit) * place for place in range(times - changed + 1)]
    deleted = [Allele(place, bases[place - 1] + copies, bases[place - 1]) for place in places]
    inserted = [Allele(place, bases[place - 1], bases[place - 1] + copies) for place in places]
    # Spelled over the whole repeat too, as assembly-based callers do.
    whole = bases[start - 1 : start + len(unit) * times]
    deleted.append(Allele(start, whole, whole[: len(whole) - len(copies)]))
    inserted.append(Allele(start, whole, whole + copies))
    lines = [allele.line() for allele in itertools.chain(deleted, inserted)]
    assert len(normalised(bases, lines)) == 2
