"""Tests of cordon.calls.normalise."""

import dataclasses
import gzip
import json
from collections import Counter

import pysam
import pytest
from pysam import bcftools

from conftest import SHARED, Read, fasta
from cordon.calls.joint import JointCalls, of_header
from cordon.calls.normalise import Summary, bcftools_call, normalise_variants
from cordon.errors import UserError

BY_ALLELE = [
    '##INFO=<ID=AC,Number=A,Type=Integer,Description="x">',
    '##INFO=<ID=AF,Number=A,Type=Float,Description="x">',
    '##INFO=<ID=AN,Number=1,Type=Integer,Description="x">',
    '##INFO=<ID=RAW,Number=R,Type=Integer,Description="x">',
    '##FORMAT=<ID=AD,Number=R,Type=Integer,Description="x">',
    '##FORMAT=<ID=VAF,Number=A,Type=Float,Description="x">',
    '##FORMAT=<ID=DP,Number=1,Type=Integer,Description="x">',
    '##FORMAT=<ID=PL,Number=G,Type=Integer,Description="x">',
]


def summarise(lab, vcf, sample="s1", **options):
    """The summary of a file's normalising into out.vcf.gz, and the records there as text without ID."""
    output = lab.folder / "out.vcf.gz"
    summary = normalise_variants(vcf=vcf, reference=lab.reference, sample=sample, output=output, **options)
    assert (lab.folder / "out.vcf.gz.tbi").exists()
    assert not list(lab.folder.glob(".*"))
    return summary, [" ".join(line[:2] + line[3:]) for line in records_of(output)]


def records_of(vcf):
    """The columns of every record."""
    text = vcf.read_bytes()
    lines = (gzip.decompress(text) if text[:2] == b"\x1f\x8b" else text).decode().splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]


def normalise(lab, records, sample="s1", **options):
    summary, lines = summarise(lab, lab.vcf("in.vcf.gz", records, **options), sample)
    found = [(contig, int(position), *alleles) for contig, position, *alleles in map(alleles_of, lines)]
    assert summary.kept == len(found)
    return found


def alleles_of(line):
    return line.split(" ")[:4]


def at(lab, position):
    return lab.sequences["chr1"][position - 1]


def other(base):
    return "ACGT"[("ACGT".index(base) + 1) % 4]


def test_alleles_are_split_and_left_aligned(lab):
    first, second = [base for base in "ACGT" if base != at(lab, 100)][:2]
    records = [
        f"chr1 100 {at(lab, 100)} {first},{second} 50 . . GT 1/2",
        "chr1 505 AA A 50 . . GT 0/1",
    ]
    assert normalise(lab, records) == [
        ("chr1", 100, at(lab, 100), first),
        ("chr1", 100, at(lab, 100), second),
        ("chr1", 500, "CA", "C"),
    ]


def test_what_the_sample_does_not_carry_is_left_out(lab):
    base = at(lab, 100)
    records = [
        f"chr1 100 {base} {other(base)} 50 . . GT 0/0",
        f"chr1 110 {at(lab, 110)} {other(at(lab, 110))} 50 . . GT ./.",
        f"chr1 120 {at(lab, 120)} <NON_REF> 50 . . GT 0/1",
        f"chr1 130 {at(lab, 130)} *,{other(at(lab, 130))} 50 . . GT 1/2",
        f"chr1 140 {at(lab, 140)} {other(at(lab, 140))} 50 . . GT 0|1",
    ]
    assert [found[1] for found in normalise(lab, records)] == [130, 140]


def test_only_the_sample_asked_for_is_kept(lab):
    bases = [at(lab, position) for position in (100, 200)]
    records = [
        f"chr1 100 {bases[0]} {other(bases[0])} 50 . . GT 0/1 0/0",
        f"chr1 200 {bases[1]} {other(bases[1])} 50 . . GT 0/0 0/1",
    ]
    assert [found[1] for found in normalise(lab, records, "s2", samples=("s1", "s2"))] == [200]
    with pysam.VariantFile(str(lab.folder / "out.vcf.gz")) as file:
        assert list(file.header.samples) == ["s2"]
    with pytest.raises(UserError, match="holds sample s1, s2, not s3"):
        normalise(lab, records, "s3", samples=("s1", "s2"))


def test_the_same_allele_written_twice_is_one(lab):
    records = ["chr1 501 AA A 50 . . GT 0/1", "chr1 505 AA A 60 . . GT 0/1"]
    assert normalise(lab, records) == [("chr1", 500, "CA", "C")]


def test_soft_masked_bases_become_upper_case(lab):
    base = at(lab, 100)
    records = [f"chr1 100 {base.lower()} {other(base).lower()} 50 . . GT 0/1"]
    assert normalise(lab, records) == [("chr1", 100, base, other(base))]


def test_another_reference_is_noticed(lab):
    wrong = other(at(lab, 100))
    with pytest.raises(UserError, match=r"in\.vcf\.gz: REF at chr1:100 is not what"):
        normalise(lab, [f"chr1 100 {wrong} {at(lab, 100)} 50 . . GT 0/1"])
    assert not (lab.folder / "out.vcf.gz").exists()


def test_soft_masked_references_give_upper_case(lab):
    lab.reference.write_text(fasta({name: bases.lower() for name, bases in lab.sequences.items()}))
    assert normalise(lab, ["chr1 505 AA A 50 . . GT 0/1"]) == [("chr1", 500, "CA", "C")]


def test_fields_by_allele_follow_their_allele(lab):
    base = at(lab, 100)
    first, second = [other for other in "ACGT" if other != base][:2]
    record = f"chr1 100 {base} {first},{second} 50 PASS AC=1,1;AF=0.25,0.5;AN=2;RAW=7,8,9"
    values = "GT:AD:VAF:DP:PL 1|2:3,10,20:0.3,0.6:33:100,90,80,70,60,50"
    vcf = lab.vcf("in.vcf.gz", [f"{record} {values}"], header=BY_ALLELE)
    summary, lines = summarise(lab, vcf)
    assert lines == [
        f"chr1 100 {base} {first} 50 PASS AC=1;AF=0.25;AN=2;RAW=7,8 GT:AD:VAF:DP:PL "
        "1|0:3,10:0.3:33:100,90,80",
        f"chr1 100 {base} {second} 50 PASS AC=1;AF=0.5;AN=2;RAW=7,9 GT:AD:VAF:DP:PL "
        "0|1:3,20:0.6:33:100,70,50",
    ]
    assert summary == Summary(records=1, split=1, kept=2)


@pytest.mark.parametrize("blank", ["<NON_REF>", "<*>"])
def test_a_gvcf_s_blocks_and_its_allele_for_the_rest_are_left_out(lab, blank):
    base, end = at(lab, 100), '##INFO=<ID=END,Number=1,Type=Integer,Description="x">'
    alt = other(base)
    vcf = lab.vcf(
        "in.g.vcf.gz",
        [
            f"chr1 90 {at(lab, 90)} {blank} . . END=99 GT:AD:DP:PL 0/0:20,0:20:0,1,2",
            f"chr1 95 {at(lab, 95)} . . . . GT:AD:DP:PL 0/0:20:20:0",
            f"chr1 100 {base} {alt},{blank} 50 . . GT:AD:DP:PL 0/1:8,9,1:18:100,0,90,120,110,200",
            f"chr1 110 {at(lab, 110)} *,{blank} 50 . . GT:AD:DP:PL 0/1:8,9,1:18:100,0,90,120,110,200",
        ],
        header=[*BY_ALLELE, end],
    )
    summary, lines = summarise(lab, vcf)
    assert lines == [f"chr1 100 {base} {alt} 50 . . GT:AD:DP:PL 0/1:8,9:18:100,0,90"]
    assert summary == Summary(records=4, reference_blocks=2, split=1, symbolic=2, spanning_deletion=1, kept=1)


def test_depths_that_old_callers_declare_without_number_follow_their_allele(lab):
    base = at(lab, 100)
    first, second = [other for other in "ACGT" if other != base][:2]
    old = [line.replace("AD,Number=R", "AD,Number=.") for line in BY_ALLELE]
    vcf = lab.vcf("in.vcf.gz", [f"chr1 100 {base} {first},{second} 5 . . GT:AD 1/2:3,10,20"], header=old)
    _, lines = summarise(lab, vcf)
    assert [line.split(" ")[-1] for line in lines] == ["1/0:3,10", "0/1:3,20"]


def test_every_allele_is_accounted_for(lab):
    def snv(position, *more):
        return f"chr1 {position} {at(lab, position)} {','.join([*more, other(at(lab, position))])}"

    records = [
        f"{snv(100)} 50 . . GT 0/1",
        f"{snv(100)} 40 . . GT 0/1",
        f"{snv(110, '<DEL>', '*')} 50 . . GT 1/3",
        f"{snv(120)},R 50 . . GT 1/2",
        f"chr1 130 {at(lab, 130)} <DEL> 50 . . GT 0/1",
        f"chr1 131 {at(lab, 131)} {at(lab, 131)}[chr2:5[ 50 . . GT 0/1",
        f"chr1 132 {at(lab, 132)} {at(lab, 132)}. 50 . . GT 0/1",
        f"chr1 133 {at(lab, 133)} * 50 . . GT 1/1",
        f"chr1 134 K {at(lab, 134)} 50 . . GT 1/1",
        f"{snv(140)} 50 . . GT 0/0",
        f"{snv(150)} 50 . . GT .",
        f"{snv(160)} 50 . . GT ./1",
        f"{snv(170)} 50 . . GT 1",
        "chr1 505 AA A 50 . . GT 0/1",
        f"{snv(600)} 50 . . DP 4",
    ]
    summary, lines = summarise(lab, lab.vcf("in.vcf.gz", records, header=BY_ALLELE))
    assert summary == Summary(
        records=15, split=1, left_aligned=2, symbolic=4, spanning_deletion=2, refused=3, not_carried=3,
        duplicates_merged=1, kept=5,
    )  # fmt: skip
    assert [int(line.split(" ")[1]) for line in lines] == [100, 110, 160, 170, 500]
    assert str(summary) == (
        "alleles kept: 5 (records: 15, split: 1, left aligned: 2, symbolic: 4, spanning deletion: 2, "
        "refused: 3, not carried: 3, duplicates merged: 1)"
    )


def test_a_bcf_and_a_plain_vcf_give_the_same(lab):
    base = at(lab, 100)
    vcf = lab.vcf("in.vcf.gz", [f"chr1 100 {base} {other(base)} 50 . . GT 0/1"])
    expected = summarise(lab, vcf)
    bcf = lab.folder / "in.bcf"
    bcftools.view("-Ob", "-o", str(bcf), str(vcf), catch_stdout=False)
    plain = lab.text("in.vcf", gzip.decompress(vcf.read_bytes()).decode().replace("\n", "\r\n"))
    gzipped = lab.folder / "gzipped.vcf.gz"
    gzipped.write_bytes(gzip.compress(plain.read_bytes()))
    assert [summarise(lab, path) for path in (bcf, plain, gzipped)] == [expected] * 3


def test_records_come_in_the_reference_s_order(lab):
    records = [f"chr2 50 {lab.sequences['chr2'][49]} {other(lab.sequences['chr2'][49])} 5 . . GT 0/1"]
    for position in (9, 5):
        records.append(f"chr1 {position} {at(lab, position)} {other(at(lab, position))} 5 . . GT 1")
    unordered = lab.text("in.vcf", header_of(lab, records, contigs=("chr2", "chr1")))
    assert [line.split(" ")[:2] for line in summarise(lab, unordered)[1]] == [
        ["chr1", "5"], ["chr1", "9"], ["chr2", "50"],
    ]  # fmt: skip


def header_of(lab, records, contigs=(), lengths=None, sample="s1"):
    """A VCF as text, with these contigs (and no others) in its header."""
    known = lengths or lab.contigs
    lines = ["##fileformat=VCFv4.2", '##FORMAT=<ID=GT,Number=1,Type=String,Description="x">']
    lines += [f"##contig=<ID={name},length={known[name]}>" for name in contigs]
    lines.append("\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", sample]))
    for record in records:
        contig, position, *rest = record.split()
        lines.append("\t".join([contig, position, ".", *rest]))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("contigs", [(), ("1",)])
def test_contigs_are_renamed_by_a_table(lab, contigs):
    record = f"1 100 {at(lab, 100)} {other(at(lab, 100))} 5 . . GT 0/1"
    vcf = lab.text("in.vcf", header_of(lab, [record], contigs, {"1": 1500}))
    with pytest.raises(UserError, match=r"in\.vcf, row \d: contig 1, which the reference lacks.*--aliases"):
        summarise(lab, vcf)
    table = lab.text("aliases.tsv", "chr1\t1\n")
    _, lines = summarise(lab, vcf, aliases=table)
    assert [line.split(" ")[:2] for line in lines] == [["chr1", "100"]]


def test_a_renamed_contig_must_be_as_long_as_the_reference_s(lab):
    record = f"1 100 {at(lab, 100)} {other(at(lab, 100))} 5 . . GT 0/1"
    vcf = lab.text("in.vcf", header_of(lab, [record], ["1"], {"1": 1499}))
    table = lab.text("aliases.tsv", "chr1\t1\n")
    with pytest.raises(UserError, match="its contig 1 has 1499 bp, chr1 of the reference 1500 bp"):
        summarise(lab, vcf, aliases=table)


def test_sites_keep_every_allele_and_its_frequency(lab):
    base = at(lab, 100)
    first, second = [other for other in "ACGT" if other != base][:2]
    records = [
        f"chr1 100 {base} {first},{second} 50 PASS AC=1,2;AF=0.25,0.5;AN=4;RAW=7,8,9 GT 0/0",
        f"chr1 110 {at(lab, 110)} {other(at(lab, 110))} 50 LowQual AN=4 GT ./.",
    ]
    low = '##FILTER=<ID=LowQual,Description="x">'
    summary, lines = summarise(lab, lab.vcf("in.vcf.gz", records, header=[*BY_ALLELE, low]), None)
    assert lines == [
        f"chr1 100 {base} {first} 50 PASS AF=0.25",
        f"chr1 100 {base} {second} 50 PASS AF=0.5",
        f"chr1 110 {at(lab, 110)} {other(at(lab, 110))} 50 LowQual .",
    ]
    assert summary == Summary(records=2, split=1, kept=3)


def test_sites_on_contigs_that_the_reference_lacks_are_left_out(lab):
    here = f"chr1 100 {at(lab, 100)} {other(at(lab, 100))} 50 . . GT 0/1"
    vcf = lab.text("in.vcf", header_of(lab, [here, "chrUn_1 5 A C 5 . . GT 0/1"]))
    summary, lines = summarise(lab, vcf, None)
    assert (summary, len(lines)) == (Summary(records=2, elsewhere=1, kept=1), 1)
    vcf = lab.text("in.vcf", header_of(lab, ["NC_1 5 A C 5 . . GT 0/1"]))
    with pytest.raises(UserError, match=r"none of its records is on a contig .*it has NC_1"):
        summarise(lab, vcf, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("##fileformat", "fileformat"), "no VCF .its first line"),
        (lambda text: text.split("#CHROM")[0], "no VCF .it has no #CHROM line"),
        (lambda text: text + "chr1\t7\n", "row 7: no VCF record"),
        (lambda text: text.replace("ID=GT", "ID=GX"), "has no genotypes"),
        (lambda text: text.replace("chr1\t100", "chr1\tX"), "bcftools cannot read a record"),
        (lambda text: text.replace("\t.\tGT", "\tAF=1\tGT"), "declare its FILTER, INFO and FORMAT"),
        (lambda text: text.replace("chr1\t100", "chr1\t1501"), "REF at chr1:1501 is not what"),
        (
            lambda text: text.replace("chr1\t100", "chr9\t100"),
            "row 6: contig chr9, which the reference lacks",
        ),
    ],
)
def test_malformed_files_are_refused(lab, change, message):
    text = header_of(lab, [f"chr1 100 {at(lab, 100)} {other(at(lab, 100))} 50 . . GT 0/1"], lab.contigs)
    vcf = lab.text("in.vcf", change(text))
    assert change(text) != text
    with pytest.raises(UserError, match=rf"in\.vcf.*{message}"):
        summarise(lab, vcf)
    assert not (lab.folder / "out.vcf.gz").exists()


def test_a_sample_among_several_must_have_its_column(lab):
    line = f"chr1 100 {at(lab, 100)} {other(at(lab, 100))} 50 . . GT 0/1"
    vcf = lab.text("in.vcf", header_of(lab, [line], lab.contigs, sample="s1\ts2"))
    with pytest.raises(UserError, match=r"in\.vcf, row 6: has fewer columns than the header"):
        summarise(lab, vcf, "s2")


def test_a_truncated_file_is_refused(lab):
    vcf = lab.vcf("in.vcf.gz", [f"chr1 100 {at(lab, 100)} {other(at(lab, 100))} 50 . . GT 0/1"])
    vcf.write_bytes(vcf.read_bytes()[:-60])
    with pytest.raises(UserError, match=r"in\.vcf\.gz: cannot be read to its end"):
        summarise(lab, vcf)


def test_a_field_that_features_need_with_too_few_values_is_named(lab):
    base = at(lab, 100)
    first, second = [other for other in "ACGT" if other != base][:2]
    record = f"chr1 100 {base} {first},{second} 50 . . GT:AD 1/2:0,3"
    with pytest.raises(UserError, match=r"FMT/AD at chr1:100 has not as many .*annotate -x FMT/AD"):
        summarise(lab, lab.vcf("in.vcf.gz", [record], header=BY_ALLELE))


JOINT = "QUAL and INFO tell of other patients, who must not reach a row that is trained on"
SIGNED = [
    '##GATKCommandLine=<ID=GenomicsDBImport,CommandLine="GenomicsDBImport --variant a.g.vcf.gz">',
    '##GATKCommandLine=<ID=GenotypeGVCFs,CommandLine="GenotypeGVCFs --variant gendb://cohort">',
    '##GATKCommandLine.GenotypeGVCFs=<ID=GenotypeGVCFs,CommandLineOptions="variant=[(RodBinding name=variant '
    'source=a.g.vcf), (RodBinding name=variant2 source=b.g.vcf)]">',
    '##GATKCommandLine=<ID=SelectVariants,CommandLine="SelectVariants --sample-name s1 --variant all.vcf">',
    "##bcftools_mergeCommand=merge a.vcf.gz b.vcf.gz; Date=today",
    "##bcftools_viewCommand=view -Oz --samples s1 all.vcf.gz; Date=today",
    "##GLnexusVersion=v1.4.1",
    "##bcftools_viewCommand=view -sA all.vcf.gz; Date=today",
    "##bcftools_viewCommand=view -as A all.vcf.gz; Date=today",
    "##bcftools_viewCommand=view -Oz -aUS names.txt all.vcf.gz; Date=today",
    "##bcftools_viewCommand=view --sample A all.vcf.gz; Date=today",
    "##bcftools_viewCommand=view --samples=A all.vcf.gz; Date=today",
    "##bcftools_viewCommand=view --samples-file names.txt all.vcf.gz; Date=today",
    "##bcftools_convertCommand=convert -s A --gvcf2vcf all.g.vcf.gz; Date=today",
    "##bcftools_pluginCommand=plugin split -Oz -o folder all.vcf.gz; Date=today",
    "##bcftools_mpileupCommand=mpileup -f ref.fa a.bam b.bam; Date=today",
    "##bcftoolsCommand=mpileup -f ref.fa -Ou a.cram b.cram",
    "##bcftoolsCommand=mpileup -f ref.fa -Bb bams.txt",
    "##bcftoolsCommand=mpileup -f ref.fa --bam-list bams.txt",
    '##GATKCommandLine=<ID=HaplotypeCaller,CommandLine="HaplotypeCaller --output o.vcf --input a.bam --input '
    'b.bam --reference r.fa">',
    '##GATKCommandLine=<ID=HaplotypeCaller,CommandLine="HaplotypeCaller -I a.bam -I b.bam">',
    '##GATKCommandLine=<ID=HaplotypeCaller,CommandLine="HaplotypeCaller --input cohort.list -O o.vcf">',
    '##GATKCommandLine.HaplotypeCaller=<ID=HaplotypeCaller,CommandLineOptions="input_file=[a.bam, b.bam]">',
    '##GATKCommandLine.SelectVariants=<ID=SelectVariants,CommandLineOptions="analysis_type=SelectVariants '
    'sample_name=[] sample_expressions=[s.*]">',
    '##SentieonCommandLine.GVCFtyper=<ID=GVCFtyper,CommandLine="sentieon driver -r r.fa --algo GVCFtyper -v '
    'a.g.vcf -v b.g.vcf o.vcf">',
    '##SentieonCommandLine.GVCFtyper=<ID=GVCFtyper,CommandLine="sentieon driver --algo GVCFtyper o.vcf '
    'a.g.vcf.gz b.g.vcf.gz">',
    '##SentieonCommandLine.Haplotyper=<ID=Haplotyper,CommandLine="driver -i a.bam -i b.bam --algo X">',
    '##commandline="freebayes -f ref.fa a.bam b.bam"',
    '##commandline="freebayes -f ref.fa --bam a.bam --bam b.bam"',
    '##commandline="freebayes -f ref.fa -L bams.txt"',
    "##cmdline=configureStrelkaGermlineWorkflow.py --bam=a.bam --bam=b.bam --referenceFasta=r.fa",
    '##DRAGENCommandLine=<ID=dragen,Date="today",CommandLineOptions="--enable-joint-genotyping true '
    '--variant a.hard-filtered.gvcf.gz">',
    '##DRAGENCommandLine=<ID=dragen,Date="today",CommandLineOptions="--enable-gvcf-genotyper=true">',
]
ALONE = [
    '##GATKCommandLine=<ID=HaplotypeCaller,CommandLine="HaplotypeCaller --sample-name s1 -ERC GVCF">',
    '##GATKCommandLine=<ID=GenotypeGVCFs,CommandLine="GenotypeGVCFs --variant s1.g.vcf.gz">',
    "##bcftools_viewCommand=view -Oz s1.bcf; Date=today",
    "##bcftools_normCommand=norm -m -any s1.vcf.gz; Date=today",
    "##bcftools_viewCommand=view -Oz -vsnps -i TYPE='snp' -o s.vcf.gz s1.vcf.gz; Date=today",
    "##bcftools_viewCommand=view --include 'INFO/DP>5' --types snps -c1 -aU s1.vcf.gz; Date=today",
    "##bcftools_pluginCommand=plugin split-vep -c SYMBOL s1.vcf.gz; Date=today",
    "##bcftools_pluginCommand=plugin fill-tags -- -t AN,AC; Date=today",
    "##bcftools_callCommand=call -mv -S sexes.txt --ploidy GRCh38 -Oz -o s1.vcf.gz; Date=today",
    "##bcftools_annotateCommand=annotate -a db.vcf.gz -c INFO/SAM s1.vcf.gz; Date=today",
    "##bcftoolsCommand=mpileup -f ref.fa -B -a FORMAT/AD -Ou s1.bam",
    "##bcftools_mpileupCommand=mpileup -f ref.sam.fa -R a.bed s1.bam; Date=today",
    '##GATKCommandLine=<ID=HaplotypeCaller,CommandLine="HaplotypeCaller --bam-output out.bam --output o.vcf '
    '--input s1.bam --read-index s1.bam.bai --reference r.fa">',
    '##GATKCommandLine.HaplotypeCaller=<ID=HaplotypeCaller,CommandLineOptions="input_file=[s1.bam] '
    'sample_name=null bamOutput=out.bam">',
    '##GATKCommandLine.SelectVariants=<ID=SelectVariants,CommandLineOptions="analysis_type=SelectVariants '
    'sample_name=[] sample_expressions=null sample_file=null exclude_sample_name=[]">',
    '##SentieonCommandLine.GVCFtyper=<ID=GVCFtyper,CommandLine="driver --algo GVCFtyper -v s1.g.vcf o.vcf">',
    '##SentieonCommandLine.Haplotyper=<ID=Haplotyper,CommandLine="driver -r r.fa -i s1.bam --algo X">',
    '##commandline="freebayes -f ref.fa --region I:1-1000000 2_alignedData/s1.bam"',
    '##commandline="freebayes --region chrM:1..16000 --bam s1.bam --fasta-reference r.fa --vcf o.vcf -L2"',
    '##DRAGENCommandLine=<ID=dragen,Date="today",CommandLineOptions="--bam-input s1.bam '
    '--enable-joint-genotyping false --enable-variant-caller true --enable-map-align-output true">',
    '##DRAGENCommandLine=<ID=HashTableBuild,Version="SW: 01.003.044.3.5.1">',
    '##INFO=<ID=command,Number=1,Type=String,Description="of a.bam and b.bam = two">',
]


def of_cohort(lab, genotypes, quality, info):
    """The calls of as many samples as there are genotypes, with a QUAL and an INFO of all of them."""
    record = (
        f"chr1 100 {at(lab, 100)} {other(at(lab, 100))} {quality} PASS {info} GT:GQ {' '.join(genotypes)}"
    )
    samples = [f"s{number}" for number in range(1, len(genotypes) + 1)]
    described = [*BY_ALLELE[:3], '##FORMAT=<ID=GQ,Number=1,Type=Integer,Description="x">',
                 '##INFO=<ID=QD,Number=1,Type=Float,Description="x">']  # fmt: skip
    return lab.vcf("in.vcf.gz", [record], samples=samples, header=described)


@pytest.mark.parametrize(
    ("genotypes", "quality", "info"),
    [(["0/1:30", "1/1:99"], 1520, "QD=33.78;AC=3;AN=4;AF=0.75"),
     (["0/1:30", *["1/1:99"] * 49], 74480, "QD=38;AC=99;AN=100;AF=0.99")],
    ids=["2 samples", "50 samples"],
)  # fmt: skip
def test_a_sample_of_a_cohort_is_like_itself_alone_whoever_else_is_in_it(lab, genotypes, quality, info):
    vcf = of_cohort(lab, genotypes, quality, info)
    summary, (line,) = summarise(lab, vcf)
    assert line == f"chr1 100 {at(lab, 100)} {other(at(lab, 100))} . PASS AC=1;AN=2;AF=0.5 GT:GQ 0/1:30"
    assert summary.joint == 1
    assert "joint: 1" in str(summary)
    with pysam.VariantFile(str(lab.folder / "out.vcf.gz")) as file:
        header = str(file.header)
        assert set(file.header.info) == {"AC", "AN", "AF"}
    told = f"QUAL and INFO told of several samples ({len(genotypes)} samples) and are taken as missing"
    assert f'##CORDON_calls=<ID=Joint,Description="{told}; AC, AN, AF: s1">' in header
    with pytest.raises(JointCalls, match=rf"in.vcf.gz, row \d+: {len(genotypes)} samples. Its {JOINT}"):
        summarise(lab, vcf, alone=True)


@pytest.mark.parametrize("sign", SIGNED)
def test_a_sample_that_was_taken_out_of_a_cohort_is_noticed_by_the_header(lab, sign):
    base = at(lab, 100)
    vcf = lab.vcf("in.vcf.gz", [f"chr1 100 {base} {other(base)} 50 . . GT 0/1"], header=[sign])
    with pytest.raises(JointCalls, match=rf"in.vcf.gz, row 5: .*\. Its {JOINT}"):
        summarise(lab, vcf, alone=True)
    summary, (line,) = summarise(lab, vcf)
    assert (summary.joint, line) == (1, f"chr1 100 {base} {other(base)} . . AC=1;AN=2;AF=0.5 GT 0/1")


@pytest.mark.parametrize(
    ("info", "genotype"),
    [("AN=4", "0/1"), ("AC=2;AN=2", "0/1"), ("AC=1", "0/0"), ("NS=2", "0|1"), ("AN=2", "1"), ("AN=4", "./.")],
)
def test_counts_of_more_than_the_samples_own_alleles_are_noticed_wherever_they_are(lab, info, genotype):
    base, far = at(lab, 100), at(lab, 900)
    records = [
        f"chr1 100 {base} {other(base)} 50 . AC=1;AN=2 GT 0/1",
        f"chr1 900 {far} {other(far)} 60 . {info} GT {genotype}",
    ]
    described = [*BY_ALLELE, '##INFO=<ID=NS,Number=1,Type=Integer,Description="x">']
    vcf = lab.vcf("in.vcf.gz", records, header=described)
    row = len(gzip.decompress(vcf.read_bytes()).splitlines())
    with pytest.raises(JointCalls, match=rf"in.vcf.gz, row {row}: INFO/{info.split(';')[0][:2]}=\d beside"):
        summarise(lab, vcf, alone=True)
    summary, lines = summarise(lab, vcf)
    assert summary.joint == 2
    assert lines[0] == f"chr1 100 {base} {other(base)} . . AC=1;AN=2;AF=0.5 GT 0/1"


@pytest.mark.parametrize("line", ALONE)
@pytest.mark.parametrize("info", [".", "AC=1;AN=2", "AC=1;AN=2;AF=0.5", "AC=0;AN=2"])
def test_a_sample_that_was_called_by_itself_is_taken_as_it_is(lab, line, info):
    base = at(lab, 100)
    vcf = lab.vcf(
        "in.vcf.gz", [f"chr1 100 {base} {other(base)} 50 . {info} GT 0/1"], header=[line, *BY_ALLELE]
    )
    summary, (record,) = summarise(lab, vcf, alone=True)
    assert summary.joint == 0
    assert record == f"chr1 100 {base} {other(base)} 50 . {info} GT 0/1"


def test_no_header_of_real_calls_of_one_sample_is_taken_for_a_cohorts():
    files = sorted((SHARED / "na12878_chr1_calls").glob("*.vcf.gz"))
    if not files:
        pytest.skip("../shared/data/na12878_chr1_calls is not on this machine")
    rows = b"".join(gzip.decompress(file.read_bytes()) for file in files).splitlines()
    lines = [line for line in rows if line.startswith(b"##")]
    assert sum(line.startswith(b"##GATKCommandLine") for line in lines) == 2
    assert {of_header(line) for line in lines} == {""}


def test_own_counts_are_by_allele_and_of_known_alleles_alone(lab):
    base = at(lab, 100)
    first, second = [x for x in "ACGT" if x != base][:2]
    record = f"chr1 100 {base} {first},{second} 50 . AC=3,1;AN=6 GT ./2 0/1"
    _, (line,) = summarise(lab, lab.vcf("in.vcf.gz", [record], samples=("s1", "s2"), header=BY_ALLELE))
    assert line == f"chr1 100 {base} {second} . . AC=1;AN=1;AF=1 GT ./1"


def test_the_command_refuses_a_cohorts_calls_of_a_sample_that_is_trained_on(lab, command):
    vcf = of_cohort(lab, ["0/1:30", "1/1:99"], 1520, "AC=3;AN=4")
    arguments = ["--vcf", str(vcf), "--reference", str(lab.reference), "--sample", "s1",
                 "--output", str(lab.folder / "out.vcf.gz")]  # fmt: skip
    assert command("normalise_variants", *arguments) == "s1: alleles kept: 1 (records: 1, joint: 1)\n"
    (lab.folder / "out.vcf.gz").unlink()
    with pytest.raises(AssertionError, match=r"2 samples\. Its QUAL and INFO"):
        command("normalise_variants", "--alone", *arguments)
    assert not (lab.folder / "out.vcf.gz").exists()


def test_the_command_writes_its_summary(lab, command):
    base = at(lab, 100)
    vcf = lab.vcf("in.vcf.gz", [f"chr1 100 {base} {other(base)} 50 . . GT 0/1"])
    arguments = [
        "--vcf", str(vcf), "--reference", str(lab.reference), "--summary", str(lab.folder / "x.json"),
        "--output", str(lab.folder / "out.vcf.gz"),
    ]  # fmt: skip
    assert command("normalise_variants", "--sample", "s1", *arguments) == "s1: alleles kept: 1 (records: 1)\n"
    assert json.loads((lab.folder / "x.json").read_text()) == dataclasses.asdict(Summary(records=1, kept=1))
    assert (
        command("normalise_variants", "--sites_only", *arguments) == "sites: alleles kept: 1 (records: 1)\n"
    )
    with pytest.raises(AssertionError, match="either --sample or --sites_only"):
        command("normalise_variants", *arguments)


CHR1 = "na12878_chr1_calls"
REAL = [
    ("na12878_chr20/NIST.chr20_10.0-10.1mb.truth.vcf.gz", "INTEGRATION"),
    (f"{CHR1}/haplotype_caller.vcf.gz", "NA12878"),
    (f"{CHR1}/unified_genotyper.vcf.gz", "NA12878"),
    (f"{CHR1}/NA12878.subset.vcf.gz", "NA12878"),
    ("kgp_chr20_1mb/kgp.chr20_1-2mb.phase3.sites.vcf.gz", None),
]


def reference_for(vcf, folder):
    """The reference of a shared VCF; for chr1, of which there is none, N but for the files' own REF."""
    path = folder / "reference.fasta"
    if vcf.parent.name == CHR1:
        bases = bytearray(b"N" * 7_000_000)
        for each in vcf.parent.glob("*.vcf.gz"):
            for _, position, _, ref, *_ in records_of(each):
                bases[int(position) - 1 : int(position) - 1 + len(ref)] = ref.upper().encode()
        path.write_text(fasta({"chr1": bases.decode()}))
    else:
        path.write_bytes(gzip.decompress(next(vcf.parent.glob("*.fa.gz")).read_bytes()))
    pysam.faidx(str(path))
    return path


def as_bcftools_norm_has_it(vcf, reference, sample, folder):
    """Every record after `bcftools norm`, less what is left out by rule, as text without the ID and AD.

    Depths by allele are compared elsewhere: GATK 3 declares them so that bcftools norm copies them whole.
    """
    split, ordered, normal = (folder / name for name in ("split.bcf", "sorted.bcf", "norm.vcf"))
    checked = ["-f", str(reference), "-c", "e", "-m", "-any"]
    bcftools.norm(*checked, "-Ob", "-o", str(split), str(vcf), catch_stdout=False)
    bcftools.sort("-Ob", "-o", str(ordered), str(split), catch_stdout=False)
    bcftools.norm("-d", "exact", "-Ov", "-o", str(normal), str(ordered), catch_stdout=False)
    alleles, left_out = [], Counter()
    for record in records_of(normal):
        if set(record[4].upper()) - set("ACGTN"):
            left_out["other"] += 1
        elif sample is not None and "1" not in record[9].split(":")[0]:
            left_out["not carried"] += 1
        else:
            record[3:5] = [record[3].upper(), record[4].upper()]
            alleles.append(comparable(record, sample))
    return alleles, left_out


def comparable(record, sample):
    """What is compared: of sites INFO/AF, of a sample's calls all fields but AD."""
    fields = record[:2] + record[3:7]
    if sample is None:
        return [*fields, ";".join(part for part in record[7].split(";") if part.startswith("AF=")) or "."]
    values = dict(zip(record[8].split(":"), record[9].split(":"), strict=False))
    values.pop("AD", None)
    return [*fields, record[7], values]


@pytest.mark.parametrize(("name", "sample"), REAL)
def test_real_records_are_as_bcftools_norm_has_them(name, sample, tmp_path):
    vcf = SHARED / name
    if not vcf.exists():
        pytest.skip(f"real data are not on this machine ({vcf})")
    reference = reference_for(vcf, tmp_path)
    output = tmp_path / "out.vcf.gz"
    summary = normalise_variants(vcf=vcf, reference=reference, sample=sample, output=output)
    expected, left_out = as_bcftools_norm_has_it(vcf, reference, sample, tmp_path)
    found = [comparable(record, sample) for record in records_of(output)]
    assert found == expected
    assert summary.kept == len(found) > 200
    assert summary.not_carried == left_out["not carried"]
    assert summary.symbolic + summary.spanning_deletion >= left_out["other"]
    assert summary.refused == summary.elsewhere == summary.reference_blocks == 0
    with pysam.VariantFile(str(vcf)) as source:
        alleles = sum(len(record.alts) for record in source)
    left = dataclasses.asdict(summary)
    counted = ("symbolic", "spanning_deletion", "refused", "not_carried", "duplicates_merged", "kept")
    assert sum(left[name] for name in counted) == alleles


def test_no_calls_give_an_indexed_empty_file(lab):
    assert normalise(lab, []) == []


def test_bcftools_finds_a_snv(lab):
    sequence = lab.sequences["chr1"]
    changed = sequence[:299] + other(sequence[299]) + sequence[300:]
    reads = [Read(start, bases=changed[start : start + 100]) for start in range(205, 295, 3)]
    output = lab.folder / "calls.vcf.gz"
    bam = lab.bam("in.bam", reads)
    assert bcftools_call(bam=bam, sample="s1", reference=lab.reference, output=output) == 1
    with pysam.VariantFile(str(output)) as file:
        (record,) = file
        assert (record.pos, record.ref, record.alts) == (300, sequence[299], (other(sequence[299]),))
        assert record.samples["s1"]["GT"] == (1, 1)
        assert record.samples["s1"]["AD"] == (0, 30)
