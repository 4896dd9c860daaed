"""PCR duplicates: whether they were marked already, by what, and how many there are."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import pysam

from cordon.files import StrPath, written_beside
from cordon.genome.samtools import quiet, samtools

AUTO, YES, _ = MARKING = ("auto", "yes", "no")
# How the library was made. Of amplicons, all reads begin at a few places and yet are molecules of their own;
# UMI consensus reads are one molecule each. By position, most of either would be a duplicate.
LIBRARIES = ("wgs", "wes", "amplicon", "umi")
WITHOUT_MARKING = ("amplicon", "umi")
# Share of a sample's reads from which on a warning tells of it: callers leave more reads out than they use.
ABSURD = 0.5
# Records looked at to see whether one has the flag. Of a genome's first million, thousands have it once
# duplicates are marked.
LOOKED_AT = 1_000_000
# Flag and tags of a record only (htslib's SAM_FLAG and SAM_AUX), so that a CRAM needs no reference.
FLAGS_AND_TAGS = b"required_fields=0x802"

# Programs and tools whose only work it is to mark duplicates, in lower case.
MARKERS = frozenset(
    (
        "bammarkduplicates", "bammarkduplicates2", "bamsormadup", "markduplicates", "markduplicatesspark",
        "markduplicateswithmatecigar", "samblaster", "simplemarkduplicateswithmatecigar", "streammd",
        "umiawaremarkduplicateswithmatecigar",
    )
)  # fmt: skip
# What a program of several tools is told to do by the first word of its own.
SUBCOMMANDS = {"samtools": {"markdup", "rmdup"}, "sambamba": {"markdup"}, "bam": {"dedup"}}
# A switch by which a program of many uses does it: Sentieon, DRAGEN, elPrep or Novosort, bamsort.
SWITCH = re.compile(
    r"(?:--algo dedup|--enable-duplicate-marking[ =]true|--mark-?duplicates|markduplicates=1)(?= |$)"
)
# Tools that make one read of a molecule's copies, and the tag of such reads (fgbio's: the largest depth).
CONSENSUS = frozenset(
    ("callcodecconsensusreads", "callduplexconsensusreads", "callmolecularconsensusreads", "gencore")
)
CONSENSUS_TAG = "cD"
# What starts another tool, which is one of its words.
STARTERS = frozenset(("fgbio", "gatk", "java", "picard"))
# Tools that take all marks away again.
UNMARKERS = frozenset(("revertsam", "revertsamspark"))
UNMARKING = {"samtools": {"reset"}}


@dataclass(frozen=True)
class Duplicates:
    """How many mapped reads (primary alignments) of a sample are flagged as duplicates, and how it came."""

    marking: str  # "marked", "marked before" or "not marked"
    reads: int
    duplicates: int

    @property
    def share(self) -> float:
        """Of the mapped reads; 0 where there are none."""
        return self.duplicates / self.reads if self.reads else 0.0

    @property
    def warning(self) -> str:
        """What to look at where callers leave out most reads; else nothing."""
        if self.share <= ABSURD:
            return ""
        told = (
            f"{self.duplicates} of {self.reads} mapped reads ({self.share:.0%}) are duplicates, which "
            "callers leave out. "
        )
        if self.marking == "marked":
            return told + (
                "Where the library is of amplicons or of UMI consensus reads, write so in the samplesheet "
                "(column library: amplicon or umi), or mark_duplicates no."
            )
        return told + (
            "They were marked before the run. Where that was wrong, as of amplicons, take the flags away "
            "with `samtools view --remove-flags DUP`."
        )

    def __str__(self) -> str:
        return f"duplicates: {self.duplicates} of {self.reads} mapped reads ({self.share:.1%})"

    def write(self, path: StrPath, sample: str) -> None:
        """Write the figures as JSON."""
        told = {"sample": sample, **asdict(self), "duplicate_rate": self.share, "warning": self.warning}
        with written_beside(path) as temporary:
            temporary.write_text(json.dumps(told, indent=2) + "\n")


def to_mark(bam: StrPath, header: pysam.AlignmentHeader, marking: str, library: str) -> bool:
    """Whether duplicates are to be marked: ``marking`` is of MARKING, ``library`` of LIBRARIES.

    Left to itself (AUTO): not where the library is of WITHOUT_MARKING, a program of the header did it or made
    consensus reads, or one of the first LOOKED_AT records has the flag or is such a read.
    """
    if marking != AUTO:
        return marking == YES
    if library in WITHOUT_MARKING or marked_by(header):
        return False
    made = header.to_dict().get("PG", [])
    return not (any(_does(line, CONSENSUS, {}) for line in made) or _settled(bam))


def marked_by(header: pysam.AlignmentHeader) -> bool:
    """Whether a @PG line is of a program that marks duplicates, and no later one took the marks away."""
    marked = False
    for line in header.to_dict().get("PG", []):
        command = " ".join(line.get("CL", "").lower().split())
        if _does(line, UNMARKERS, UNMARKING):
            marked = False
        elif _does(line, MARKERS, SUBCOMMANDS) or SWITCH.search(command):
            marked = True
    return marked


def count(bam: StrPath, header: pysam.AlignmentHeader, *, marked: bool, threads: int) -> Duplicates:
    """The counts of a BAM (samtools flagstat), QC failures left out.

    ``header`` is that of the reads that were given; ``marked`` says whether duplicates were marked here.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "flagstat.json"
        arguments = ["-@", str(threads - 1), "-O", "json", os.fspath(bam)]
        samtools(partial(pysam.flagstat, save_stdout=str(found)), *arguments, about=bam)
        passed = json.loads(found.read_text())["QC-passed reads"]
    reads, duplicates = passed["primary mapped"], passed["primary duplicates"]
    before = "marked before" if duplicates or marked_by(header) else "not marked"
    return Duplicates("marked" if marked else before, reads, duplicates)


def _settled(bam: StrPath) -> bool:
    """Whether one of the first records is flagged as a duplicate, or a consensus of several reads."""
    options = [FLAGS_AND_TAGS]
    with quiet(), pysam.AlignmentFile(os.fspath(bam), check_sq=False, format_options=options) as source:
        records = islice(source.fetch(until_eof=True), LOOKED_AT)
        return any(read.is_duplicate or read.has_tag(CONSENSUS_TAG) for read in records)


def _does(line: Mapping[str, str], tools: Container[str], subcommands: Mapping[str, Container[str]]) -> bool:
    """Whether a @PG line names one of ``tools``, or a program with one of its ``subcommands``."""
    words = [_name(word) for word in line.get("CL", "").split()]
    programs = {_name(line.get("PN") or line.get("ID", "")), *words[:1]}
    skipped = {_name(line.get("PN") or line.get("ID", "")), *SUBCOMMANDS}
    own = next((word for word in words if word not in skipped and not word.startswith("-")), "")
    return (
        any(program in tools or own in subcommands.get(program, ()) for program in programs)
        or (not programs.isdisjoint(STARTERS) and any(word in tools for word in words))
    )  # fmt: skip


def _name(text: str) -> str:
    """A program's own name, in lower case: no path, no version, no number that makes an @PG ID unique.

    Of a Java class it is the last name.
    """
    name = re.split(r"[/\\]", text.strip().strip("\"'").lower())[-1].split(" ")[0]
    name = re.sub(r"[-_.]v?\d.*$|-[0-9a-f]+$", "", name)
    return name.removesuffix(".jar").rpartition(".")[2]
