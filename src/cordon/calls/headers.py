"""One VCF header out of several callers' headers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from cordon.files import StrPath, opened

DEFINED = re.compile(r"##(INFO|FORMAT|FILTER)=<ID=([^,>]+)")
NUMBER = re.compile(r"(?<=[,<]Number=)[^,>]+")
TYPE = re.compile(r"(?<=[,<]Type=)[^,>]+")
# bcftools declares MQ as Integer and then warns that the specification says Float.
RESERVED_TYPES = {("INFO", "MQ"): "Float"}
# When and how a caller was started: its own calls say so. Here it would make equal results differ.
STARTED = re.compile(r"##(fileDate|[^=]*command(line)?[^=]*)=", re.IGNORECASE)
COLUMNS = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]


def merged_header(
    paths: Iterable[StrPath], contigs: Mapping[str, int], own: Sequence[str], sample: str
) -> Iterator[str]:
    """Header lines of the VCFs at ``paths`` together, without line ends.

    The contigs are the reference's. Of a field defined twice the first definition stays, its Type and
    Number widened where the others disagree. ``own`` lines come last and replace what has their ID. The
    callers' command lines and dates, and what an earlier scoring said of its model, are left out.
    """
    definitions: dict[tuple[str, str], str] = {}
    others: dict[str, None] = {}
    own_ids = {(match[1], match[2]) for line in own if (match := DEFINED.match(line))}
    for path in paths:
        for line in header_lines(path):
            match = DEFINED.match(line)
            if STARTED.match(line) or line.startswith("##CORDON="):
                continue
            if not match:
                others.setdefault(line)
            elif (key := (match[1], match[2])) not in own_ids:
                definitions[key] = _widened(key, definitions.get(key, line), line)
    yield "##fileformat=VCFv4.2"
    yield from definitions.values()
    yield from own
    yield from (f"##contig=<ID={name},length={length}>" for name, length in contigs.items())
    yield from others
    yield "\t".join([*COLUMNS, sample])


def header_lines(path: StrPath) -> Iterator[str]:
    """The ``##`` lines of a VCF but fileformat and contigs, without line ends.

    Bytes that are no UTF-8 are kept: encoded with ``surrogateescape`` a line is what it was.
    """
    with opened(path) as lines:
        for raw in lines:
            # A carriage return within a line would begin another one for many readers.
            line = raw.decode(errors="surrogateescape").rstrip("\r\n").replace("\r", "\\x0d")
            if not line.startswith("##"):
                return
            if not line.startswith(("##fileformat=", "##contig=")):
                yield line


def _widened(key: tuple[str, str], kept: str, other: str) -> str:
    """``kept`` with a Type and a Number that also hold for ``other``."""
    types = {found[0] for line in (kept, other) if (found := TYPE.search(line))}
    if key in RESERVED_TYPES:
        kept = TYPE.sub(RESERVED_TYPES[key], kept, count=1)
    elif len(types) > 1:
        kept = TYPE.sub("Float" if types == {"Integer", "Float"} else "String", kept, count=1)
    numbers = {found[0] for line in (kept, other) if (found := NUMBER.search(line))}
    return NUMBER.sub(".", kept, count=1) if len(numbers) > 1 else kept
