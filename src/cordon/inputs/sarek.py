"""A samplesheet out of a results folder of nf-core/sarek 3, as its documentation lays that out."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cordon import foreign
from cordon.calls.head import read_head
from cordon.errors import InputProblems, Problem, UserError
from cordon.files import StrPath, written_beside
from cordon.inputs.samplesheet import COLUMNS
from cordon.reads.checks import read_header
from cordon.reads.normalise import sample_names

# Where reads lie, the most processed first: preprocessing/STEP/SAMPLE/.
STEPS = ("recalibrated", "markduplicates", "sentieon_dedup", "mapped")
# Where calls lie, variant_calling/TOOL/SAMPLE/SAMPLE and these ends, the raw calls first.
ENDS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "haplotypecaller": (
        ("haplotypecaller", ".haplotypecaller.vcf.gz"),
        ("haplotypecaller", ".haplotypecaller.filtered.vcf.gz"),
        ("haplotypecaller", ".haplotypecaller.g.vcf.gz"),
    ),
    "deepvariant": (("deepvariant", ".deepvariant.vcf.gz"), ("deepvariant", ".deepvariant.g.vcf.gz")),
    "bcftools": (("bcftools", ".bcftools.vcf.gz"),),
    "other": (
        ("strelka", ".strelka.variants.vcf.gz"),
        ("freebayes", ".freebayes.vcf.gz"),
        ("sentieon_dnascope", ".dnascope.unfiltered.vcf.gz"),
        ("sentieon_haplotyper", ".haplotyper.unfiltered.vcf.gz"),
    ),
}
# In csv/, what sarek says of its samples: patient, sample, status (1 for a tumour).
SHEETS = (
    "recalibrated.csv",
    "markduplicates.csv",
    "markduplicates_no_table.csv",
    "mapped.csv",
    "variantcalled.csv",
)
TUMOUR = "1"


@dataclass(frozen=True)
class Files:
    """What sarek left of one sample: its reads and index, and its calls by caller."""

    name: str
    reads: Path | None
    index: Path | None
    calls: Mapping[str, Path]


def samplesheet_from_sarek(
    *, sarek: StrPath, folder: StrPath, site: str, callers: Collection[str], output: StrPath
) -> list[dict[str, str]]:
    """Write a samplesheet of the germline samples in ``sarek`` with calls of ``callers``; returns its rows.

    ``folder`` is where the results lie for good; the paths in the samplesheet begin there. A sample is named
    as its read groups or calls name it, which in sarek is PATIENT_SAMPLE. Truth sets are left empty, and
    roles too. Raises UserError where the folder holds no such results, InputProblems naming the samples
    that cannot be taken.
    """
    root = Path(sarek)
    known = _described(root)
    problems: list[Problem] = []
    rows: list[dict[str, str]] = []
    for files in _samples(root, callers):
        patient, status = known.get(files.name, ("", ""))
        if status == TUMOUR:
            continue
        try:
            sample = _sample_name(files)
        except ValueError as error:
            problems.append(
                Problem(str(folder), f"sample {files.name}: {error}", "Run this sample in sarek again.")
            )
            continue
        paths = {"bam": files.reads, "bai": files.index}
        paths |= {f"{caller}_vcf": path for caller, path in files.calls.items()}
        cells = {column: str(Path(folder) / path.relative_to(root)) for column, path in paths.items() if path}
        patient = patient or sample.removesuffix(f"_{files.name}")
        rows.append({"site": site, "patient": patient, "sample": sample, **cells})
    if problems:
        raise InputProblems(problems)
    if not rows:
        raise UserError(
            f"{folder}: holds no germline sample in preprocessing/ or variant_calling/. "
            "Give the --outdir of a finished run of nf-core/sarek 3."
        )
    _write(rows, output)
    return rows


def _samples(root: Path, callers: Collection[str]) -> Iterator[Files]:
    """Every sample with reads, or with calls of the callers, sorted by name."""
    folders = [root / "preprocessing" / step for step in STEPS]
    folders += [root / "variant_calling" / tool for caller in callers for tool, _ in ENDS[caller]]
    names = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_dir()}
    for name in sorted(names):
        reads = _reads(root, name)
        calls = {caller: path for caller in callers if (path := _calls(root, name, caller))}
        # Joint calls, and pairs of tumour and normal, have folders beside those of the samples.
        if reads or calls:
            yield Files(name, reads, _index(reads) if reads else None, calls)


def _reads(root: Path, name: str) -> Path | None:
    """The one file of reads of the last step that has one; several lanes are no sample's reads."""
    for step in STEPS:
        folder = root / "preprocessing" / step / name
        for suffix in ("cram", "bam"):
            found = sorted(folder.glob(f"*.{suffix}"))
            if len(found) == 1:
                return found[0]
    return None


def _index(reads: Path) -> Path | None:
    ends = [f"{reads.name}.crai", f"{reads.name}.bai", f"{reads.stem}.bai", f"{reads.name}.csi"]
    return next((path for end in ends if (path := reads.with_name(end)).is_file()), None)


def _calls(root: Path, name: str, caller: str) -> Path | None:
    paths = (root / "variant_calling" / tool / name / f"{name}{end}" for tool, end in ENDS[caller])
    return next((path for path in paths if path.is_file()), None)


def _described(root: Path) -> dict[str, tuple[str, str]]:
    """Patient and status by sample, as far as the sheets in csv/ say."""
    known: dict[str, tuple[str, str]] = {}
    for sheet in SHEETS:
        path = root / "csv" / sheet
        if path.is_file():
            with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
                for row in csv.DictReader(file):
                    patient, status = known.get(row.get("sample") or "", ("", ""))
                    known[row.get("sample") or ""] = (
                        patient or row.get("patient") or "",
                        status or row.get("status") or "",
                    )
    return known


def _sample_name(files: Files) -> str:
    """The one sample name that reads and calls agree on."""
    names: dict[str, Path] = {}
    try:
        if files.reads:
            names |= dict.fromkeys(sample_names(read_header(files.reads)), files.reads)
        for path in files.calls.values():
            names |= dict.fromkeys(read_head(path).samples, path)
    except (UserError, OSError, ValueError) as error:
        raise ValueError(f"has a file that cannot be read ({error}).") from error
    if len(names) != 1:
        said = ", ".join(f"{name} in {path.name}" for name, path in names.items())
        raise ValueError(f"has files that name other samples: {said or 'none at all'}.")
    return next(iter(names))


def _write(rows: list[dict[str, str]], output: StrPath) -> None:
    with written_beside(output) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: foreign.csv_cell(cell) for name, cell in row.items()} for row in rows)
