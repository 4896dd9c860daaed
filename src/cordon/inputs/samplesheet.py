"""The samplesheet and the sites sheet: rows with the numbers that a text editor shows, and what is wrong."""

from __future__ import annotations

import csv
import difflib
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator

from cordon.errors import Problem
from cordon.files import StrPath

# The column that holds a caller's own calls.
VCF_COLUMNS = {caller: f"{caller}_vcf" for caller in ("haplotypecaller", "deepvariant", "bcftools", "other")}
FILES = ("bam", "bai", *VCF_COLUMNS.values(), "truth_vcf", "confident_bed")
# What spreadsheets write between columns where they write no commas.
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
# What is a parameter's, by the same name, where the cell is empty; with the parameter's own default.
READS_COLUMNS = {"mark_duplicates": "auto", "library": "wgs"}
COLUMNS = ("site", "patient", "sample", *FILES, "role", *READS_COLUMNS)


@dataclass(frozen=True)
class Row:
    """One row: its line in the file (the header is line 1) and its cells, missing ones empty."""

    sheet: str
    number: int
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")

    def problem(self, column: str, what: str, remedy: str) -> Problem:
        """A problem at this row and column."""
        place = f", column {column}" if column else ""
        return Problem(f"{self.sheet}, row {self.number}{place}", what, remedy)


def read_sheet(path: StrPath, schema: Mapping[str, Any]) -> tuple[list[Row], list[Problem]]:
    """The rows of a CSV, and its problems with columns and cells by an item schema as nf-schema has it.

    Empty lines are left out and cells stripped. Rows are returned only where all required columns exist.
    """
    sheet = os.fspath(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = list(_numbered(file))
    except (UnicodeDecodeError, csv.Error) as error:
        return [], [Problem(sheet, f"is no CSV text ({error}).", "Save it as CSV in UTF-8.")]
    except OSError as error:
        return [], [Problem(sheet, f"cannot be read ({error.strerror}).", "Check the path.")]
    rules = schema["items"]["properties"]
    if not lines:
        head = ",".join(rules)
        return [], [Problem(sheet, "is empty.", f"Begin it with the header {head}, then one row each.")]
    header = lines[0][1]
    for sign, name in OTHER_SEPARATORS.items():
        if len(header) == 1 and sign in header[0]:
            remedy = "Save it with commas between the columns (CSV UTF-8, comma delimited)."
            return [], [Problem(f"{sheet}, row 1", f"has {name} between its columns.", remedy)]
    problems = list(_column_problems(sheet, header, rules, schema["items"]["required"]))
    if len(lines) == 1:
        problems.append(Problem(sheet, "has a header but no rows.", "Add one row each below the header."))
    if any(column not in header for column in schema["items"]["required"]):
        return [], problems
    rows = []
    for number, cells in lines[1:]:
        row = Row(sheet, number, dict(zip(header, cells, strict=False)))
        if len(cells) != len(header):
            what = f"has {len(cells)} cells, the header {len(header)}."
            problems.append(row.problem("", what, "Add or remove commas; quote cells with commas."))
            continue
        rows.append(row)
        problems += _cell_problems(row, rules, schema["items"]["required"])
    return rows, problems


def check_rows(
    rows: Sequence[Row], *, truth_needed: Collection[str], callers: Sequence[str], sites_per_patient: int = 1
) -> Iterator[Problem]:
    """What is wrong between cells and between rows of a samplesheet.

    A sample is there once, a patient is at ``sites_per_patient`` sites at most and has one role, truth and
    confident regions come together, every row with a role of ``truth_needed`` has them, and every row has for
    each of ``callers`` reads to call or the caller's own calls.
    """
    samples: dict[str, Row] = {}
    bams: dict[str, Row] = {}
    for row in rows:
        for column, seen in (("sample", samples), ("bam", bams)):
            first = seen.setdefault(row[column], row)
            if first is not row and row[column]:
                what = f"{row[column]} is in row {first.number} already."
                remedy = "Keep one row a sample; merge its lanes into one BAM first."
                yield row.problem(column, what, remedy)
        yield from _truth_problems(row, truth_needed)
        yield from _calls_problems(row, callers)
    yield from _patient_problems(rows, sites_per_patient)


def check_sites(rows: Sequence[Row], sites: Sequence[Row]) -> Iterator[Problem]:
    """Sites declared twice, and rows of the samplesheet whose site is not declared."""
    declared: dict[str, Row] = {}
    for site in sites:
        first = declared.setdefault(site["site"], site)
        if first is not site:
            what = f"{site['site']} is in row {first.number} already."
            yield site.problem("site", what, "Keep one row a site.")
    for row in rows:
        if row["site"] and row["site"] not in declared:
            near = difflib.get_close_matches(row["site"], declared, n=1)
            hint = f"Did you mean {near[0]}? Otherwise add" if near else "Correct it, or add"
            what = f"site {row['site']} is not in the sites sheet."
            sheet = sites[0].sheet if sites else "the sites sheet"
            yield row.problem("site", what, f"{hint} a row for it to {sheet}.")


def _numbered(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines, strict=True)
    while True:
        # A quoted cell may hold line ends: a row's number is that of its first line.
        number = reader.line_num + 1
        cells = next(reader, None)
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield number, [cell.strip() for cell in cells]


def _column_problems(
    sheet: str, header: Sequence[str], rules: Mapping[str, Any], required: Sequence[str]
) -> Iterator[Problem]:
    where = f"{sheet}, row 1"
    for column in required:
        if column not in header:
            yield Problem(where, f"column {column} is missing.", f"The columns are {','.join(rules)}.")
    for place, column in enumerate(header, start=1):
        if column not in rules:
            near = difflib.get_close_matches(column, [rule for rule in rules if rule not in header], n=1)
            remedy = f"Did you mean {near[0]}?" if near else f"The columns are {','.join(rules)}."
            yield Problem(where, f"column {column or place} is unknown.", remedy)
        elif column in header[: place - 1]:
            yield Problem(where, f"column {column} is there twice.", "Keep one of them.")


def _cell_problems(row: Row, rules: Mapping[str, Any], required: Sequence[str]) -> Iterator[Problem]:
    for column, rule in rules.items():
        value = row[column]
        if not value and column in required:
            yield row.problem(column, "is empty.", f"Fill it in: {rule['description']}")
        elif value and not Draft202012Validator(rule).is_valid(value):
            yield row.problem(column, f"{value!r} {rule['errorMessage']}", rule["description"])


def _truth_problems(row: Row, truth_needed: Collection[str]) -> Iterator[Problem]:
    truth, confident = row["truth_vcf"], row["confident_bed"]
    if bool(truth) != bool(confident):
        empty = "confident_bed" if truth else "truth_vcf"
        full = "truth_vcf" if truth else "confident_bed"
        yield row.problem(empty, f"is empty but {full} is not.", "Give both, or neither.")
    elif not truth and (row["role"] or "train") in truth_needed:
        role = row["role"] or "train (the default)"
        remedy = "Give truth_vcf and confident_bed, or write role score to only score this sample."
        if role != "test":
            remedy += " Without any truth, --labels resources trains on known sites."
        yield row.problem("truth_vcf", f"is empty but the role is {role}.", remedy)


def _calls_problems(row: Row, callers: Sequence[str]) -> Iterator[Problem]:
    for caller, column in VCF_COLUMNS.items():
        if row[column] and caller not in callers:
            what = f"is given, but --callers {','.join(callers)} leaves {caller} out."
            yield row.problem(column, what, f"Add {caller} to --callers, or empty the cell.")
    lacking = [caller for caller in callers if not row[VCF_COLUMNS[caller]]]
    if "other" in lacking:
        what = "is empty but --callers has other, which is never called here."
        yield row.problem("other_vcf", what, "Give the calls, or take other out of --callers.")
    elif lacking and not row["bam"]:
        what = f"is empty, and so is {VCF_COLUMNS[lacking[0]]}."
        yield row.problem("bam", what, f"Give the reads, or the calls of {' and '.join(lacking)}.")


def _patient_problems(rows: Sequence[Row], sites_per_patient: int) -> Iterator[Problem]:
    patients: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        patients[row["patient"]].append(row)
    for patient, (first, *others) in patients.items():
        seen = {first["site"]: first.number}
        for row in others if patient else ():
            number = seen.setdefault(row["site"], row.number)
            if number == row.number and len(seen) > sites_per_patient:
                before = " and ".join(
                    f"site {site} in row {number}" for site, number in seen.items() if site != row["site"]
                )
                counted = "one site" if sites_per_patient == 1 else f"{sites_per_patient} sites"
                remedy = (
                    f"Epsilon counts a person at {counted}: give distinct people distinct ids, or where it "
                    f"is one person set --sites_per_patient {len(seen)}."
                )
                yield row.problem("patient", f"patient {patient} is at {before}.", remedy)
            elif (row["role"] or "train") != (first["role"] or "train"):
                what = f"patient {patient} has role {first['role'] or 'train'} in row {first.number}."
                remedy = "Give all rows of a patient one role, so that none is both trained on and tested."
                yield row.problem("role", what, remedy)
