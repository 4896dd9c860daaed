"""VCF as lines of bytes: what a caller wrote made ready for bcftools norm, and what to keep of its result.

Only what bcftools does not do in one pass of bounded memory: one sample of many, contig names by a table,
counts of what is left out, and upper case. A record costs a split at its first tabs.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from gzip import BadGzipFile
from typing import BinaryIO

from cordon.calls import joint, own
from cordon.calls.fields import Fields
from cordon.calls.head import CONTIG_LINE, LENGTH
from cordon.errors import UserError
from cordon.files import StrPath
from cordon.genome.contigs import Aliases
from cordon.genome.reference import Contigs

BASES = b"ACGTNacgtn"
# ALT of a record that says only that the sample has the reference there: a gVCF block, or no ALT.
REFERENCE_ONLY = frozenset((b".", b"<NON_REF>", b"<*>"))
# Depths by allele that older callers declare with Number=. (GATK up to 3.x): R by VCF 4.3, section 1.4.2,
# table 2. Declared so, bcftools norm gives each allele of a split record its own.
BY_ALLELE = re.compile(rb"(##FORMAT=<ID=(?:AD|ADF|ADR),Number=)\.")
# FILTER of a record that no filter failed.
PASSING = (b"PASS", b".")
GENOTYPE = b"##FORMAT=<ID=GT,"
FREQUENCY = b'##INFO=<ID=AF,Number=A,Type=Float,Description="Allele frequency">\n'
KEEP_FIELD = b"AF="


def kind(allele: bytes) -> str:
    """What an ALT allele is: ``plain``, or why it is left out, by the summary's names."""
    if not allele.translate(None, BASES):
        return "plain" if allele else "refused"
    if allele == b"*":
        return "spanning_deletion"
    # <DEL>, breakends A[chr1:5[ and single breakends A. (VCF 4.3, sections 1.4.5, 5.3 and 5.4).
    return "symbolic" if any(sign in allele for sign in b"<[].") else "refused"


@dataclass
class Picker:
    """Copies the records of one sample (or the sites) on the reference's contigs, and counts the rest.

    The copy has the reference's contigs in its header, in the reference's order, depths by allele declared
    as such, and ``written`` (by default ``sample``) as the sample's name; sites keep INFO/AF alone.
    ``counts`` has the names of `cordon.calls.normalise.Summary`. Where the sample's calls were made
    together with others' (`cordon.calls.joint`), JointCalls says by what, unless that was found before:
    with ``joint``, the reason, QUAL and INFO are left out but for AC, AN and AF, which are those of the
    sample's own genotypes. Of a scored VCF of ours the scores are left out (`cordon.calls.own`),
    and of every record what cannot be split (`cordon.calls.fields`). With ``passing`` records that a
    filter failed are left out (FILTER neither PASS nor missing).
    """

    source: StrPath
    sample: str | None
    contigs: Contigs
    aliases: Aliases
    written: str | None = None
    joint: str = ""
    passing: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    _names: dict[bytes, bytes | None] = field(default_factory=dict)
    _lengths: dict[bytes, int] = field(default_factory=dict)
    _column: int | None = None
    _row: int = 0
    _scored: bool = False
    _fields: Fields = field(default_factory=Fields)

    def copy(self, lines: BinaryIO, target: BinaryIO) -> None:
        """Copy header and records. Raises UserError naming the row where something is wrong."""
        try:
            target.writelines(self._header(lines))
            target.writelines(self._records(lines))
        except (EOFError, BadGzipFile, zlib.error) as error:
            raise UserError(f"{self.source}: cannot be read to its end ({error}). Copy it again.") from error
        counts = self.counts
        out = counts["elsewhere"] + counts["reference_blocks"] + counts["filtered"]
        if counts["elsewhere"] and out == counts["records"]:
            shown = ", ".join(name.decode(errors="backslashreplace") for name in list(self._names)[:3])
            raise UserError(
                f"{self.source}: none of its records is on a contig of the reference (it has {shown}). "
                "Use the reference's names, or give a table of contig names with --aliases."
            )

    def _header(self, lines: BinaryIO) -> Iterator[bytes]:
        genotyped = False
        for self._row, line in enumerate(lines, start=1):
            line = line.rstrip(b"\r\n") + b"\n"
            if self._row == 1 and not line.startswith(b"##fileformat=VCF"):
                raise UserError(
                    f"{self.source}: no VCF (its first line is not ##fileformat=VCF). Give a VCF."
                )
            if own.DECLARED.match(line):
                self._scored = True
            elif contig := CONTIG_LINE.match(line):
                if length := LENGTH.search(line):
                    self._lengths[contig[1]] = int(length[1])
            elif line.startswith(b"#CHROM"):
                self._choose_column(line, genotyped)
                for name, length_bp in self.contigs.items():
                    yield f"##contig=<ID={name},length={length_bp}>\n".encode()
                yield self._columns(line.rstrip(b"\n").split(b"\t")) + b"\n"
                return
            elif self.sample is not None:
                self._refuse_joint(joint.of_header(line), self._row)
                genotyped = genotyped or line.startswith(GENOTYPE)
                if not (self.joint and line.startswith(b"##INFO=")):
                    yield self._fields.declared(BY_ALLELE.sub(rb"\1R", line))
            elif not line.startswith((b"##INFO=", b"##FORMAT=")):
                yield line
        raise UserError(f"{self.source}: no VCF (it has no #CHROM line). Copy it again.")

    def _choose_column(self, line: bytes, genotyped: bool) -> None:
        if self.sample is None:
            return
        samples = [name.decode(errors="replace") for name in line.rstrip(b"\n").split(b"\t")[9:]]
        if self.sample not in samples:
            raise UserError(
                f"{self.source}: holds sample {', '.join(samples) or 'none'}, not {self.sample}. "
                "Give this sample's calls, or correct its name in the samplesheet."
            )
        if not genotyped:
            raise UserError(
                f"{self.source}: has no genotypes (no FORMAT/GT in its header). Give genotyped calls."
            )
        self._column = 9 + samples.index(self.sample) if len(samples) > 1 else None
        self._refuse_joint(f"{len(samples)} samples" if len(samples) > 1 else "", self._row)

    def _refuse_joint(self, why: str, row: int) -> None:
        if why and not self.joint:
            raise joint.JointCalls(f"{self.source}, row {row}: {why}. {joint.REMEDY}", why)

    def _columns(self, columns: list[bytes]) -> bytes:
        """The #CHROM line for what is kept; for sites it comes after a declaration of their one field."""
        if self.sample is None:
            return FREQUENCY + b"\t".join(columns[:8])
        said = joint.header(self.written or self.sample, self.joint) if self.joint else b""
        said += own.SCORED_BEFORE if self._scored else b""
        return said + b"\t".join([*columns[:9], (self.written or self.sample).encode()])

    def _records(self, lines: BinaryIO) -> Iterator[bytes]:
        counts = self.counts
        total = blocks = 0
        for line in lines:
            total += 1
            fields = line.split(b"\t", 5)
            if len(fields) < 6:
                if line.strip():
                    raise UserError(
                        f"{self._at(total)}: no VCF record (fewer than 8 columns). Copy it again."
                    )
                total -= 1
                self._row += 1
                continue
            if own.MARK in fields[5]:
                fields[5] = self._without_scores(fields[5])
                line = b"\t".join(fields)
            name, _, _, ref, alts, rest = fields
            if alts in REFERENCE_ONLY:
                blocks += 1
                continue
            if self.passing and rest.split(b"\t", 2)[1].rstrip(b"\r\n") not in PASSING:
                counts["filtered"] += 1
                continue
            if name not in self._names:
                self._names[name] = self._resolve(name, total)
            renamed = self._names[name]
            if renamed is None:
                counts["elsewhere"] += 1
                continue
            if (alts.translate(None, BASES + b",") or ref.translate(None, BASES)) and not self._splits(
                ref, alts
            ):
                continue
            if b"," in alts:
                counts["split"] += 1
            if self.joint or self.sample is None:
                fields[0], fields[5] = renamed, self._rest(rest, alts, total)
                line = b"\t".join(fields)
            else:
                columns = rest.rstrip(b"\r\n").split(b"\t", 4)
                if len(columns) == 5:
                    whole = self._fields.record(alts.count(b",") + 1, *columns[2:])
                    why = joint.of_record(whole[0], joint.genotype(*whole[1:]))
                    self._refuse_joint(why, self._row + total)
                    if whole != tuple(columns[2:]):
                        fields[5] = b"\t".join([*columns[:2], *whole])
                        line = b"\t".join(fields)
                if renamed is not name:
                    line = b"\t".join([renamed, *fields[1:]])
            yield line if line.endswith(b"\n") else line + b"\n"
        counts["fields_dropped"] += self._fields.dropped
        counts["records"] += total
        counts["reference_blocks"] += blocks

    def _without_scores(self, rest: bytes) -> bytes:
        """QUAL and what follows without what we wrote there; counted where there was something."""
        columns = rest.split(b"\t", 3)
        if len(columns) < 3:
            return rest
        before = [column.decode("latin-1") for column in columns[1:3]]
        after = own.without_scores(before[0], before[1].rstrip("\r\n"))
        self.counts["scored_before"] += list(after) != before
        return b"\t".join([columns[0], *(column.encode("latin-1") for column in after), *columns[3:]])

    def _splits(self, ref: bytes, alts: bytes) -> bool:
        """Whether bcftools norm can split a record with other than plain bases; what it cannot is counted."""
        kinds = Counter(map(kind, alts.split(b",")))
        if ref.translate(None, BASES) or kinds["refused"]:
            self.counts["refused"] += kinds.total()
            return False
        if not kinds["plain"]:
            self.counts.update(kinds)
            return False
        return True

    def _resolve(self, name: bytes, record: int) -> bytes | None:
        """The reference's name of a contig, None where sites may lie elsewhere."""
        text = name.decode(errors="replace")
        if text in self.contigs:
            return name
        seen = [known.decode(errors="replace") for known in self._names]
        renamed = self.aliases.resolve([*seen, text], self.contigs).get(text)
        if renamed is None:
            if self.sample is None:
                return None
            raise UserError(
                f"{self._at(record)}: contig {text}, which the reference lacks. Use the reference that the "
                "file was made with, or give a table of contig names with --aliases."
            )
        length = self._lengths.get(name, self.contigs[renamed])
        if length != self.contigs[renamed]:
            raise UserError(
                f"{self.source}: its contig {text} has {length} bp, {renamed} of the reference "
                f"{self.contigs[renamed]} bp; {self.aliases.source} says that they are one. "
                "Use the reference that the file was made with."
            )
        return renamed.encode()

    def _rest(self, rest: bytes, alts: bytes, record: int) -> bytes:
        """QUAL and what follows: of one of several samples alone, or of a site without all INFO but AF."""
        if self.sample is None:
            columns = rest.rstrip(b"\r\n").split(b"\t", 3)
            if len(columns) >= 3:
                kept = [part for part in columns[2].split(b";") if part.startswith(KEEP_FIELD)]
                return b"\t".join([*columns[:2], b";".join(kept) or b"."])
        else:
            columns = rest.rstrip(b"\r\n").split(b"\t")
            place = 4 if self._column is None else self._column - 5
            if len(columns) > place:
                self.counts["joint"] += 1
                alternatives = alts.count(b",") + 1
                _, *sample = self._fields.record(alternatives, b".", columns[3], columns[place])
                info = joint.own_info(joint.genotype(*sample), alternatives)
                return b"\t".join([b".", columns[1], info, *sample])
        raise UserError(f"{self._at(record)}: has fewer columns than the header. Copy it again.")

    def _at(self, record: int) -> str:
        return f"{self.source}, row {self._row + record}"


def keep_alleles(lines: Iterable[bytes], target: BinaryIO, counts: Counter[str], carried: bool) -> None:
    """Copy the records (one ALT each) of plain bases, in upper case; count the others by kind.

    With ``carried`` the genotype of the one sample must hold the allele; one without GT does not.
    """
    for line in lines:
        if line.startswith(b"#"):
            target.write(line)
            continue
        name, position, identifier, ref, alt, rest = line.split(b"\t", 5)
        if alt.translate(None, BASES):
            counts[kind(alt)] += 1
            continue
        if carried:
            _, layout, values = rest.rsplit(b"\t", 2)
            if layout[:3] not in (b"GT", b"GT:") or b"1" not in values.split(b":", 1)[0]:
                counts["not_carried"] += 1
                continue
        if not (ref.isupper() and alt.isupper()):
            line = b"\t".join((name, position, identifier, ref.upper(), alt.upper(), rest))
        target.write(line)
