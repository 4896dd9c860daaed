"""Everything about a run's inputs that can be checked before anything starts, all problems at once."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cordon.errors import InputProblems, Problem, UserError
from cordon.files import StrPath, read_json, written_beside
from cordon.genome.contigs import read_aliases
from cordon.genome.reference import read_contigs
from cordon.inputs.files import (
    Fault,
    Genome,
    alignment_faults,
    bed_faults,
    calls_faults,
    file_faults,
    sites_faults,
    vcf_faults,
)
from cordon.inputs.run_parameters import Json, check_parameters, combination_problems, properties
from cordon.inputs.samplesheet import (
    COLUMNS,
    FILES,
    READS_COLUMNS,
    VCF_COLUMNS,
    Row,
    check_rows,
    check_sites,
    read_sheet,
)
from cordon.ledger.cohorts import salts_of
from cordon.ledger.pseudonyms import Salt, read_salt
from cordon.privacy.grouping import MOST_DELTA, declared_units, passed_limit, usual_delta
from cordon.steps import Steps, silent

PSEUDONYMS = ("patient_pseudonym", "sample_pseudonym")
# The last place that BAI and TBI indexes reach (SAM specification, section 5.2); CSI is not written here.
MOST_BP = 2**29
# Schemes of files that Nextflow fetches, or reads where they are.
REMOTE = ("http", "https", "ftp", "s3", "gs", "az")


@dataclass(frozen=True)
class Places:
    """Where files are: as the samplesheet names them, for good, and where this process can read them.

    ``base`` is the folder that relative paths start from, ``staged`` maps paths (as written, or absolute)
    to their copies here.
    """

    base: Path
    staged: Mapping[str, str]

    def absolute(self, path: str) -> str:
        """The path for good: absolute; a URL stays as it is."""
        return path if not path or "://" in path else os.path.normpath(self.base / path)

    def here(self, path: str) -> str:
        """The path to read now."""
        return self.staged.get(path) or self.staged.get(self.absolute(path)) or self.absolute(path)


def read_staged(path: StrPath) -> dict[str, str]:
    """A TSV of original and staged paths as a mapping."""
    pairs: dict[str, str] = {}
    for number, line in enumerate(Path(path).read_text().splitlines(), start=1):
        original, tab, staged = line.partition("\t")
        if not tab:
            raise UserError(
                f"{path}, row {number}: not two paths with a tab between. "
                "Write original path, tab, staged path."
            )
        pairs[original] = staged
    return pairs


def check_inputs(
    *,
    samplesheet: StrPath,
    reference: StrPath,
    parameters: StrPath,
    schema: StrPath,
    output: StrPath,
    sites: StrPath | None = None,
    places: Places | None = None,
    federation_slots: int | None = None,
    executor: str | None = None,
    decided: str | None = None,
    input_schema: StrPath | None = None,
    sites_schema: StrPath | None = None,
    aliases: StrPath | None = None,
    state: StrPath | None = None,
    names: StrPath | None = None,
    steps: Steps = silent,
) -> list[dict[str, str]]:
    """Check a run's inputs and write the samplesheet with absolute paths and every default filled in.

    ``input_schema`` and ``sites_schema`` are the sheets' schemas, by default those that ``schema`` names;
    ``aliases`` is a table of contig names. With ``state``, the folder of salt and ledgers, the samplesheet
    gets the columns of PSEUDONYMS too, and ``names``, a CSV of mode 0600, tells whose they are. ``executor``
    is Nextflow's, where the configuration names one, and ``decided`` (NAME=VALUE,...) are the parameters by
    which that was put together. Raises InputProblems with everything that is wrong; then nothing is written.
    """
    rules = read_json(schema)
    values, problems = check_parameters(read_json(parameters), rules)
    places = places or Places(Path(samplesheet).absolute().parent, {})
    rows, faults = read_sheet(samplesheet, read_json(input_schema or _sheet_schema(schema, rules, "input")))
    problems += faults
    problems += combination_problems(values)
    problems += check_rows(
        rows, truth_needed=_truth_needed(values), callers=_callers(values),
        sites_per_patient=values.get("sites_per_patient", 1),
    )  # fmt: skip
    declared: list[Row] = []
    if sites is not None:
        declared, faults = read_sheet(sites, read_json(sites_schema or _sheet_schema(schema, rules, "sites")))
        problems += faults
        problems += check_sites(rows, declared) if declared else []
    problems += _executor_problems(executor, values)
    problems += _decided_problems(decided or "", values)
    if federation_slots is not None:
        values["federation_slots"] = federation_slots
    problems += _federation_problems(rows, declared, values)
    problems += _delta_problems(declared, values)
    genome, faults = _genome(reference, aliases)
    problems += faults
    problems += _parameter_files(values, places, genome, {row["sample"] for row in rows})
    with steps("looking into the samplesheet's files", len(rows), "rows") as tick:
        for row in rows:
            problems += _row_files(row, places, genome, scoring="scoring_model" in values)
            tick()
    if problems:
        raise InputProblems(problems)
    salt = read_salt(state, salts_of(Path(state))) if state is not None else None
    checked = [_checked(row, places, salt, values) for row in rows]
    _write(checked, [*COLUMNS, *(PSEUDONYMS if salt else ())], output)
    if names is not None and salt is not None:
        _write(checked, ["site", "patient", "sample", *PSEUDONYMS], names, mode=0o600)
    return checked


def _sheet_schema(schema: StrPath, rules: Json, parameter: str) -> Path:
    """The schema of a sheet, which nextflow_schema.json names relative to itself."""
    return Path(schema).resolve().parent / str(properties(rules)[parameter]["schema"])


def _executor_problems(executor: str | None, values: Mapping[str, Any]) -> Iterator[Problem]:
    """A scheduler whose jobs would be bounded by the cores and memory of the machine that starts the run."""
    if executor not in (None, "local") and "scheduler" not in values:
        yield Problem(
            f"process.executor = '{executor}'",
            "is in a configuration of yours, and its jobs would get no more than this machine has.",
            f"Start with -profile {executor}, or give that file by --site_config and add "
            f"params.scheduler = '{executor}' to it.",
        )


def _decided_problems(decided: str, values: Mapping[str, Any]) -> Iterator[Problem]:
    """Parameters that came too late: what follows from them had been left out of the configuration."""
    for pair in filter(None, decided.split(",")):
        name, _, before = pair.partition("=")
        now = str(values.get(name, before)).lower()
        if now != before.lower() and (before or now not in ("0", "false")):
            yield Problem(
                f"params.{name}",
                f"is {now!r} by a file that was given with -c, which is read too late for it: what follows "
                "from it is not in the configuration.",
                f"Give --{name} on the command line or in a params file, or give the file by --site_config.",
            )


def _federation_problems(
    rows: Sequence[Row], declared: Sequence[Row], values: Mapping[str, Any]
) -> Iterator[Problem]:
    """Sites that could never all run at once, never come, or never make a quorum: others would wait."""
    sites = {row["site"] for row in rows if row["role"] in ("", "train")}
    if "scoring_model" in values or not sites:
        return
    joins = "aggregator" in values
    needed = len(sites) + (0 if joins else 1)
    slots = values.get("federation_slots")
    if slots is not None and slots < needed:
        tasks = f"{len(sites)} sites" + ("" if joins else " and the aggregator")
        yield Problem(
            f"--federation_slots {slots}",
            f"is too few: {tasks} run at the same time and need {needed}.",
            f"Set --federation_slots {needed} on a machine or executor that can run {needed} tasks at once.",
        )
    for site in declared:
        if not joins and site["site"] not in sites:
            what = (
                f"{site['site']} has no sample with role train, so the aggregator would wait for it in vain."
            )
            yield site.problem("site", what, "Add its samples, or take its row out.")
    if not joins and values.get("min_sites", 1) > len(sites):
        yield Problem(
            f"--min_sites {values['min_sites']}",
            f"can never be reached: the samplesheet has {len(sites)} sites to train at.",
            f"Set --min_sites to at most {len(sites)}, or add sites with role train.",
        )


def _delta_problems(declared: Iterable[Row], values: Mapping[str, Any]) -> Iterator[Problem]:
    """A delta that makes it likely that a site releases a whole unit."""
    if "delta" not in values:
        return
    unit, rows = values.get("privacy_unit", "patient"), values.get("max_variants_per_patient", 1)
    for row in declared:
        patients = row["declared_patients"]
        units = declared_units(unit, int(patients), rows) if patients.isdecimal() else 0
        if passed_limit(values["delta"], units) == MOST_DELTA:
            what = f"is above {MOST_DELTA:g} over the {units} units that site {row['site']} declares."
            remedy = f"Use at most {usual_delta(units)}."
            yield Problem(f"--delta {values['delta']:g}", what, remedy)


def _callers(values: Mapping[str, Any]) -> list[str]:
    return [caller for caller in VCF_COLUMNS if caller in values.get("callers", "").split(",")]


def _truth_needed(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The roles whose samples need a truth set."""
    if "scoring_model" in values:
        return ()
    return ("test",) if values.get("labels") == "resources" else ("train", "test")


def _genome(reference: StrPath, table: StrPath | None) -> tuple[Genome | None, list[Problem]]:
    where = f"--reference {reference}"
    try:
        aliases = read_aliases(table)
    except InputProblems as error:
        return None, list(error.problems)
    except UserError as error:
        return None, [Problem(f"--contig_aliases {table}", "cannot be used:", str(error))]
    faults = [Problem(where, what, remedy) for what, remedy in file_faults(reference)]
    if faults:
        return None, faults
    try:
        contigs = read_contigs(reference)
        if long := [name for name, length in contigs.items() if length > MOST_BP]:
            what = f"has contig {long[0]} of {contigs[long[0]]} bp; BAI and TBI indexes end at {MOST_BP}."
            return None, [Problem(where, what, "Cut such contigs into parts, and align and call anew.")]
        return Genome(reference, contigs, aliases), []
    except (UserError, EOFError, OSError, ValueError) as error:
        return None, [Problem(where, f"cannot be used: {error}", "Give a whole FASTA.")]


def _parameter_files(
    values: Mapping[str, Any], places: Places, genome: Genome | None, patients: set[str]
) -> Iterator[Problem]:
    """Files of calling and labelling that parameters name.

    A relative one starts from a folder unknown here, so it must be staged. Whatever else a parameter names
    is not looked at: a container does not see it, and Nextflow refuses it where it is missing.
    """
    for name in ("intervals", "known_sites", "allele_frequencies"):
        if not values.get(name):
            continue
        for path in values[name].split(",") if name == "known_sites" else [values[name]]:
            here = places.staged.get(path, path)
            if "://" in path or (not os.path.isabs(here) and path not in places.staged):
                continue
            faults: list[Fault] = list(file_faults(here))
            if faults or genome is None:
                pass
            elif name == "intervals":
                faults += bed_faults(here, genome)
            elif name in ("known_sites", "allele_frequencies"):
                info = "AF" if name == "allele_frequencies" else ""
                faults += sites_faults(here, info, genome, patients=patients)
            for what, remedy in faults:
                yield Problem(f"--{name} {path}", what.replace(here, path), remedy)


def _row_files(row: Row, places: Places, genome: Genome | None, *, scoring: bool) -> Iterator[Problem]:
    """What is wrong with the files of one row; a remote one that is not staged cannot be looked at.

    Without a usable reference (``genome`` None) only their being there is checked.
    """
    trained_on = _role(row, scoring=scoring) == "train"
    for column in FILES:
        path = row[column]
        here = places.here(path)
        scheme, address, _ = here.partition("://")
        if address and scheme not in REMOTE:
            remedy = f"Give a file of this machine, or an address that begins with {', '.join(REMOTE)}."
            yield row.problem(column, f"{path} has a scheme that Nextflow does not know.", remedy)
        if "$" in path:
            remedy = "Rename the file or the folder, or give a link to it."
            yield row.problem(column, f"{path} holds a $, which Nextflow cannot hand to a task.", remedy)
        if not path or address or "$" in path:
            continue
        faults = list(file_faults(here))
        if faults or genome is None:
            pass
        elif column == "bam":
            faults += alignment_faults(here, row["sample"], genome)
        elif column in VCF_COLUMNS.values():
            faults += calls_faults(here, row["sample"], genome, alone=trained_on)
        elif column == "truth_vcf":
            faults += vcf_faults(here, genome, alone=trained_on)
        elif column == "confident_bed":
            faults += bed_faults(here, genome)
        for what, remedy in faults:
            yield row.problem(column, what.replace(here, path), remedy)


def _role(row: Row, *, scoring: bool) -> str:
    """The row's role, or what it is where the sheet says nothing."""
    return row["role"] or ("score" if scoring else "train")


def _checked(row: Row, places: Places, salt: Salt | None, values: Mapping[str, Any]) -> dict[str, str]:
    cells = {column: row[column] for column in COLUMNS}
    cells |= {column: places.absolute(row[column]) for column in FILES}
    cells["role"] = _role(row, scoring="scoring_model" in values)
    cells |= {name: row[name] or values.get(name, usual) for name, usual in READS_COLUMNS.items()}
    if salt is not None:
        names = (salt.patient(row["patient"]), salt.sample(row["site"], row["sample"]))
        cells |= dict(zip(PSEUDONYMS, names, strict=True))
    return cells


def _write(
    rows: Sequence[Mapping[str, str]], columns: Sequence[str], output: StrPath, mode: int | None = None
) -> None:
    with written_beside(output) as temporary:
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        if mode is not None:
            temporary.chmod(mode)
