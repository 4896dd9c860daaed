"""Calls that were made together with other samples' calls, whose QUAL and INFO tell of all of them.

Genotyping a cohort gives each record one QUAL and one INFO of all samples, and so does a file of one sample
that was taken out of such a cohort. What depends on other patients must not reach a row that is trained on.
"""

from __future__ import annotations

import re

from cordon.errors import UserError

# Header lines of what joins samples, or takes one out of several, and the program's name.
SIGNS = (
    (re.compile(rb"##GATKCommandLine.*\b(CombineGVCFs|GenomicsDBImport)\b"), "GATK's {}"),
    (re.compile(rb"##GATKCommandLine.*(gendb:|name=variant2\b)"), "GATK's GenotypeGVCFs of several samples"),
    (
        re.compile(
            rb"##GATKCommandLine.*\bSelectVariants\b.*(?:--?sample-name|-sn\b|--sample-expressions|-se\b|"
            rb"sample_(?:name|file|expressions)=\[[^\]])"
        ),
        "GATK's SelectVariants of a sample",
    ),
    (
        re.compile(rb"##GATKCommandLine.*(?:--input |-I |input_file=\[)[^\s\],]+\.list\b"),
        "a caller of GATK's with a list of alignment files",
    ),
    (re.compile(rb"##bcftools_mergeCommand="), "bcftools merge"),
    (
        # The letters are view's options without a value, which may stand before -s in one word; getopt takes
        # a long option by its first letters, and a value in the same word.
        re.compile(rb"##bcftools_viewCommand=view\b.*\s(?:-[AaGhHIknpPuUxX]*[sS]|--sam)"),
        "bcftools view of a sample",
    ),
    (re.compile(rb"##bcftools_convertCommand=convert\b.*\s(?:-[sS]|--sam)"), "bcftools convert of a sample"),
    (
        re.compile(rb"##bcftools_pluginCommand=plugin (?:\S*/)?\+?split(?:\.so)?(?:[\s;]|$)"),
        "bcftools' plugin split",
    ),
    (
        re.compile(rb"##bcftools(?:_mpileup)?Command=mpileup\b.*\s(?:-[ABDEIpux]*b|--bam-l)"),
        "bcftools mpileup of a list of alignment files",
    ),
    (
        re.compile(rb'##commandline="?\S*freebayes.*\s(?:-L\b|--bam-list\b)'),
        "freebayes with a list of alignment files",
    ),
    (
        re.compile(rb"##SentieonCommandLine.*\bGVCFtyper\b(?:.*\s-v\s*\S.*\s-v\s|(?:.*\.g\.?vcf\b){2})"),
        "Sentieon's GVCFtyper of several samples",
    ),
    (
        re.compile(
            rb"##DRAGENCommandLine.*--enable-"
            rb"(?:joint-genotyping|gvcf-genotyper|multi-sample-gvcf|combinegvcfs)[ =]+true"
        ),
        "DRAGEN's joint genotyping",
    ),
    (re.compile(rb"##GLnexus"), "GLnexus"),
)
# A line that holds a command, the alignment files in it, and where a caller writes one itself.
COMMAND = re.compile(rb"##[^=\s]*(?:command|cmd|options)[^=\s]*=", re.IGNORECASE)
ALIGNMENTS = re.compile(rb"[^\s\"'=,;()\[\]{}<>]+\.(?:bam|cram|sam)(?![\w.])", re.IGNORECASE)
WRITTEN = re.compile(rb"--?bam[-_]?out(?:put)?[ =]+\S+|\bbamOutput=\S+", re.IGNORECASE)
COUNTS = re.compile(rb"(?:^|;)(AN|AC|NS)=([0-9,]+)")
INFO_HEADER = (
    b'##INFO=<ID=AC,Number=A,Type=Integer,Description="Allele count in this sample\'s genotype">\n'
    b'##INFO=<ID=AN,Number=1,Type=Integer,Description="Alleles in this sample\'s genotype">\n'
    b'##INFO=<ID=AF,Number=A,Type=Float,Description="Allele frequency in this sample\'s genotype">\n'
)


REMEDY = (
    "Its QUAL and INFO tell of other patients, who must not reach a row that is trained on. Call this sample "
    "alone (its gVCF by itself, too; its reads in one file), or write role score or test, for which they are "
    "taken as missing."
)


class JointCalls(UserError):
    """Calls that were made together with other samples' calls; ``why`` says by what that is known."""

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


def of_header(line: bytes) -> str:
    """Which program this header line names that joins samples, or takes one out of several; or nothing."""
    for sign, name in SIGNS:
        if found := sign.match(line):
            return name.format(found[1].decode() if found.groups() else "")
    if COMMAND.match(line) and len(set(ALIGNMENTS.findall(WRITTEN.sub(b"", line)))) > 1:
        return "a caller with several alignment files"
    return ""


def of_record(info: bytes, genotype: bytes) -> str:
    """Which count of INFO is of more alleles than the one sample's ``genotype`` (GT) has; or nothing."""
    alleles = genotype.replace(b"|", b"/").split(b"/")
    for name, values in COUNTS.findall(info):
        numbers = [int(value) for value in values.split(b",") if value]
        if name == b"NS":
            more = numbers[0] > 1
        elif name == b"AN":
            more = numbers[0] > len(alleles)
        else:
            own = [alleles.count(b"%d" % allele) for allele in range(1, len(numbers) + 1)]
            more = b"." not in alleles and any(n > held for n, held in zip(numbers, own, strict=True))
        if more:
            held = genotype.decode(errors="replace")
            return f"INFO/{name.decode()}={values.decode()} beside the genotype {held}"
    return ""


def genotype(layout: bytes, values: bytes) -> bytes:
    """GT of a sample's ``values`` in FORMAT's ``layout``; missing where it has none."""
    return values.split(b":", 1)[0].rstrip() if layout[:3] in (b"GT", b"GT:") else b"."


def header(sample: str, why: str) -> bytes:
    """The header lines that say what is left of INFO."""
    told = f"QUAL and INFO told of several samples ({why}) and are taken as missing; AC, AN, AF: {sample}"
    quoted = told.replace("\\", "").replace('"', "'")
    return INFO_HEADER + f'##CORDON_calls=<ID=Joint,Description="{quoted}">\n'.encode()


def own_info(genotype: bytes, alternatives: int) -> bytes:
    """AC, AN and AF of the one sample's ``genotype`` (GT), for so many alternative alleles."""
    alleles = [allele for allele in genotype.replace(b"|", b"/").split(b"/") if allele != b"."]
    counts = [alleles.count(b"%d" % allele) for allele in range(1, alternatives + 1)]
    shares = (b"%.4g" % (count / len(alleles)) if alleles else b"." for count in counts)
    return b"AC=%s;AN=%d;AF=%s" % (b",".join(b"%d" % n for n in counts), len(alleles), b",".join(shares))
