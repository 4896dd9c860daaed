"""Public resources: which of a table's alleles a sites VCF holds, and how frequent it says they are.

A resource has passed `normalise_variants --sites_only`: one allele a record, left-aligned, indexed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pysam
from numpy.typing import ArrayLike, NDArray
from pysam import bcftools

from cordon.errors import UserError
from cordon.files import StrPath
from cordon.genome.samtools import quiet, samtools

REMEDY = "Pass it through normalise_variants --sites_only first."
# A record as it is read; `frequency` is INFO/AF where that is asked for, null where it is missing.
RECORD = pa.schema(
    {"position": pa.int64(), "ref": pa.string(), "alt": pa.string(), "frequency": pa.float32()}
)


def known(
    paths: Sequence[StrPath], contig: str, positions: ArrayLike, refs: Sequence[str], alts: Sequence[str]
) -> NDArray[np.bool_]:
    """Whether [n] any of the resources holds each allele.

    The alleles are normalised and on one contig, ``positions`` int64 [n] 1-based; ``refs`` and ``alts`` are
    sequences or arrow arrays. Memory grows with n, not with the resource; sorted alleles read least of it.
    Raises UserError on a resource that is unreadable, has no index or is not normalised.
    """
    keys = allele_keys(positions, refs, alts)
    found = np.zeros(len(keys), dtype=np.bool_)
    for path in paths:
        check_resource(path)
        held = _at(path, contig, positions, frequency=False)
        held_keys = allele_keys(held["position"], held["ref"], held["alt"])
        found |= pc.is_in(keys, held_keys).to_numpy(zero_copy_only=False)
    return found


def frequencies(
    path: StrPath, contig: str, positions: ArrayLike, refs: Sequence[str], alts: Sequence[str]
) -> NDArray[np.float32]:
    """INFO/AF [n] of alleles as of `known`: 0.0 where the resource lacks one, NaN where it has no AF for it.

    Raises UserError as `known` does, and where the resource has no INFO/AF.
    """
    check_resource(path, frequency=True)
    held = _at(path, contig, positions, frequency=True)
    place = pc.index_in(
        allele_keys(positions, refs, alts), allele_keys(held["position"], held["ref"], held["alt"])
    )
    share = pc.take(held["frequency"].combine_chunks(), place).to_numpy(zero_copy_only=False)
    absent = place.is_null().to_numpy(zero_copy_only=False)
    return np.where(absent, np.float32(0.0), share.astype(np.float32))


def check_resource(path: StrPath, *, frequency: bool = False) -> None:
    """Raise UserError unless ``path`` is an indexed VCF, with INFO/AF where ``frequency`` is asked for."""
    try:
        with quiet(), pysam.VariantFile(os.fspath(path)) as records:
            indexed, fields = records.index is not None, set(records.header.info)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable VCF ({error}). Copy it again.") from error
    if not indexed:
        raise UserError(f"{path}: has no index. {REMEDY}")
    if frequency and "AF" not in fields:
        raise UserError(
            f"{path}: has no INFO/AF, so it gives no allele frequencies. Give a VCF of a population "
            "with INFO/AF, gnomAD's or 1000 Genomes' sites for instance."
        )


def read_contig(path: StrPath, contig: str) -> pa.Table:
    """All records of a normalised, indexed VCF on one contig (schema RECORD, without frequencies)."""
    return _records(path, contig, "--regions", f"{{{contig}}}", frequency=False)


def allele_keys(positions: ArrayLike, refs: Sequence[str], alts: Sequence[str]) -> pa.Array:
    """One string an allele [n], equal for equal alleles of a contig; sequences or arrow arrays."""
    place = positions if isinstance(positions, pa.ChunkedArray) else pa.array(np.asarray(positions, np.int64))
    parts = [pc.cast(_whole(place), pa.string()), *(pc.utf8_upper(_whole(side)) for side in (refs, alts))]
    return pc.binary_join_element_wise(*parts, " ")


def _at(path: StrPath, contig: str, positions: ArrayLike, *, frequency: bool) -> pa.Table:
    """The resource's records (schema RECORD) at the positions, in one pass from first to last."""
    places = np.unique(np.asarray(positions, dtype=np.int64))
    if not places.size:
        return RECORD.empty_table()
    with tempfile.TemporaryDirectory() as folder:
        targets = Path(folder) / "targets.tsv"
        targets.write_text("".join(f"{contig}\t{place}\n" for place in places.tolist()))
        # Braces keep a colon in a contig's name apart from the range; `pos` leaves out what merely overlaps.
        region = ("--regions", f"{{{contig}}}:{places[0]}-{places[-1]}", "--regions-overlap", "pos")
        only = ("--targets-file", str(targets), "--targets-overlap", "pos")
        return _records(path, contig, *region, *only, frequency=frequency)


def _records(path: StrPath, contig: str, *limits: str, frequency: bool) -> pa.Table:
    """What bcftools query prints of the file within ``limits``, as a table of schema RECORD."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.tsv"
        columns = f"%POS\\t%REF\\t%ALT\\t{'%INFO/AF' if frequency else '.'}\\n"
        samtools(
            bcftools.query,
            *limits,
            *("--format", columns, "--output", str(found), os.fspath(path)),
            about=path,
            why="bcftools cannot read it through its index. Index it again with `bcftools index -t`.",
        )
        if not found.stat().st_size:
            return RECORD.empty_table()
        table = _parse(found, path, contig)
    several = table.filter(pc.match_substring(table["alt"], ","))
    if several.num_rows:
        at = f"{contig}:{several['position'][0]}"
        raise UserError(f"{path}: {at} holds several alternative alleles. {REMEDY}")
    return table


def _parse(found: Path, path: StrPath, contig: str) -> pa.Table:
    try:
        return pyarrow.csv.read_csv(
            found,
            read_options=pyarrow.csv.ReadOptions(column_names=RECORD.names, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=RECORD, null_values=["."], strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        what = f"a record on {contig} has no single allele and INFO/AF ({error})"
        raise UserError(f"{path}: {what}. {REMEDY}") from error


def _whole(values: pa.ChunkedArray | pa.Array | Sequence[str]) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    return values if isinstance(values, pa.Array) else pa.array(values, type=pa.string())
