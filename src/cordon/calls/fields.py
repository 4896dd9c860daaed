"""What a record's fields must be for bcftools norm to split it: values dropped that cannot be, and counted.

VCF 4.4 and 4.5 write more than version 4.2, in which Cordon's VCFs are: a genotype's leading phase, fields
of local alleles (LAA, Number=LA, LR, LG) and by the copy of a chromosome (Number=P).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from cordon.calls.read import FORMAT_FIELDS, INFO_FIELDS

DEFINED = re.compile(rb"##(INFO|FORMAT)=<ID=([^,>]+),Number=([^,>]+)")
VERSION = b"##fileformat=VCFv4.2\n"
NEWER = re.compile(rb"##fileformat=VCFv4\.([4-9]|\d\d)")
LOCAL_ALLELES, LOCAL_DEPTHS, DEPTHS = b"LAA", b"LAD", b"AD"
LATER_NUMBERS = (b"LA", b"LR", b"LG", b"P")
AD_LINE = b'##FORMAT=<ID=AD,Number=R,Type=Integer,Description="Reads of each allele (from LAD)">\n'
# What features are made of: a wrong number of values there is an error, and not dropped.
USED = frozenset(
    (
        *((b"INFO", name.encode()) for name in INFO_FIELDS.values()),
        *((b"FORMAT", name.partition("{")[0].encode()) for name in FORMAT_FIELDS.values()),
        (b"FORMAT", b"GT"),
    )
)


@dataclass
class Fields:
    """The fields that a header declares, and records without those that cannot be split.

    ``dropped`` counts the values left out.
    """

    dropped: int = 0
    _numbers: dict[tuple[bytes, bytes], bytes] = field(default_factory=dict)
    _later: set[bytes] = field(default_factory=set)

    def declared(self, line: bytes) -> bytes:
        """The header line as it is written: nothing of a field that version 4.2 has not."""
        if NEWER.match(line):
            return VERSION
        if not (found := DEFINED.match(line)):
            return line
        kind, name, number = found.groups()
        if (kind, name) == (b"FORMAT", DEPTHS) and (kind, name) in self._numbers:
            return b""
        self._numbers[kind, name] = number
        if number not in LATER_NUMBERS and (kind, name) != (b"FORMAT", LOCAL_ALLELES):
            return line
        self._later.add(name)
        if name != LOCAL_DEPTHS or (b"FORMAT", DEPTHS) in self._numbers:
            return b""
        self._numbers[b"FORMAT", DEPTHS] = b"R"
        return AD_LINE

    def record(
        self, alternatives: int, info: bytes, layout: bytes, values: bytes
    ) -> tuple[bytes, bytes, bytes]:
        """INFO, FORMAT and the sample's values of a record with so many ALT, without what cannot be split."""
        if alternatives > 1:
            info = self._info(info, alternatives)
        names, said = layout.split(b":"), values.split(b":")
        phased = names[0] == b"GT" and said[0][:1] in (b"/", b"|")
        if phased:
            said[0] = said[0][1:]
        if not phased and alternatives < 2 and self._later.isdisjoint(names):
            return info, layout, values
        pairs = dict(zip(names, said, strict=False))
        if LOCAL_DEPTHS in pairs and LOCAL_DEPTHS in self._later and DEPTHS not in pairs:
            pairs[DEPTHS] = _global_depths(pairs, alternatives)
        kept = {name: value for name, value in pairs.items() if self._fits(name, value, alternatives)}
        self.dropped += len(pairs) - len(kept)
        return info, b":".join(kept), b":".join(kept.values())

    def _info(self, info: bytes, alternatives: int) -> bytes:
        parts = info.split(b";")
        kept = []
        for part in parts:
            name, _, value = part.partition(b"=")
            if (b"INFO", name) in USED or _right(self._numbers.get((b"INFO", name)), value, alternatives):
                kept.append(part)
        self.dropped += len(parts) - len(kept)
        return b";".join(kept) or b"."

    def _fits(self, name: bytes, value: bytes, alternatives: int) -> bool:
        if name in self._later:
            return False
        used = (b"FORMAT", name) in USED
        return used or _right(self._numbers.get((b"FORMAT", name)), value, alternatives)


def _right(number: bytes | None, value: bytes, alternatives: int) -> bool:
    """Whether bcftools can give each allele its own of a value of Number=A, R or G; others it copies.

    Of G it knows one and two copies of a contig: n and n (n + 1) / 2 genotypes of n alleles.
    """
    alleles = alternatives + 1
    wanted = {b"A": (alternatives,), b"R": (alleles,), b"G": (alleles, alleles * (alleles + 1) // 2)}
    return number not in wanted or value == b"." or value.count(b",") + 1 in wanted[number]


def _global_depths(pairs: dict[bytes, bytes], alternatives: int) -> bytes:
    """AD of all alleles from LAD, which has those of the reference and of LAA's alleles; others missing."""
    depths = pairs[LOCAL_DEPTHS].split(b",")
    local = pairs.get(LOCAL_ALLELES, b".").split(b",")
    places = [0, *(int(allele) for allele in local if allele.isdigit())]
    found = dict(zip(places, depths, strict=False))
    return b",".join(found.get(allele, b".") for allele in range(alternatives + 1))
