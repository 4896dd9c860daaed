"""Tests of cordon.console.commands, and of what all commands of `cordon` and of bin/ have in common."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from bin_commands import command_of
from conftest import ROOT, Lab, Read
from cordon.cli import main
from cordon.console.commands import EXISTING, EXISTING_FOLDER, OUTPUT, Command, Facts, command, each, facts
from cordon.errors import BudgetExceeded, InputProblems, Problem
from cordon.model.initial_weights import initial_parameters
from cordon.model.released import Model
from cordon.variants.features import FEATURES

BIN = sorted(path.stem for path in (ROOT / "bin").glob("*.py"))


def tree(group: click.Group, name: str = "cordon") -> Iterator[tuple[str, click.Command]]:
    """Every group and command below ``group``, by the words that call it."""
    yield name, group
    for inner, found in group.commands.items():
        if isinstance(found, click.Group):
            yield from tree(found, f"{name} {inner}")
        else:
            yield f"{name} {inner}", found


CORDON = dict(tree(main))
EVERY = CORDON | {f"bin/{name}.py": command_of(name) for name in BIN}
LEAVES = {name: found for name, found in EVERY.items() if not isinstance(found, click.Group)}


def run(of: click.Command, *words: object) -> Result:
    return CliRunner().invoke(of, [str(word) for word in words], catch_exceptions=False)


def options_of(name: str) -> list[click.Option]:
    return [option for option in EVERY[name].params if isinstance(option, click.Option)]


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_takes_json(name: str) -> None:
    assert isinstance(LEAVES[name], Command)
    (option,) = [found for found in LEAVES[name].params if "--json" in found.opts]
    assert option.is_flag


@pytest.mark.parametrize("name", LEAVES)
def test_a_wrong_call_is_told_as_json_too(name: str) -> None:
    result = run(LEAVES[name], "--json", "--no_such_option")
    assert result.exit_code == 2
    assert "No such option" in result.stderr
    said = json.loads(result.stdout)
    assert said["exit_status"] == 2
    assert "No such option" in said["problem"]
    assert run(LEAVES[name], "--no_such_option").stdout == ""


@pytest.mark.parametrize("name", EVERY)
def test_help_fits_a_terminal_and_says_what_every_option_is(name: str) -> None:
    result = CliRunner().invoke(EVERY[name], ["--help"], terminal_width=80, prog_name=name)
    assert result.exit_code == 0
    first, *lines = result.output.splitlines()
    assert first.startswith(f"Usage: {name} ")
    assert [line for line in lines if len(line) > 80 or line.endswith("...")] == []
    helps = {option.name: option.help or "" for option in options_of(name)}
    assert [option for option, words in helps.items() if not words.endswith((".", ")", "]"))] == []


@pytest.mark.parametrize("name", EVERY)
def test_option_names_are_written_as_parameters_are(name: str) -> None:
    spelt = [
        word for option in EVERY[name].params if isinstance(option, click.Option) for word in option.opts
    ]
    assert [word for word in spelt if "-" in word.removeprefix("--")] == []


def test_either_spelling_of_an_option_is_taken(tmp_path: Path) -> None:
    made = [
        run(CORDON["cordon attest policy"], f"--{option}", "EPYC-v4", "--json").stdout
        for option in ("vcpu_type", "vcpu-type")
    ]
    assert made[0] == made[1]
    assert json.loads(made[0])["policy"]


@command(verdict="holds")
@click.argument("kind", type=click.Choice(("whole", "wrong", "budget", "interrupt", "pipe", "usage", "none")))
@click.option("--number", type=int, default=0)
def example(kind: str, number: int) -> Facts | None:
    """Does what it is told."""
    match kind:
        case "whole":
            told = facts("{name}: {size:,} rows", name="a", size=1234)
            return told + each("parts", "part {part}", [{"part": 1}, {"part": 2}])
        case "wrong":
            raise InputProblems([Problem("a.csv, row 3", "is empty.", "Fill it in.")])
        case "budget":
            raise BudgetExceeded("too much. Spend less.")
        case "interrupt":
            raise KeyboardInterrupt
        case "pipe":
            raise OSError(errno.EPIPE, "Broken pipe")
        case "usage":
            raise click.UsageError("Two of them. Give one.")
    if number:
        raise OSError(number, os.strerror(number), "out.vcf.gz")
    return None


def test_facts_are_lines_or_one_object() -> None:
    assert run(example, "whole").stdout == "a: 1,234 rows\npart 1\npart 2\n"
    assert json.loads(run(example, "whole", "--json").stdout) == {
        "holds": True, "name": "a", "size": 1234, "parts": [{"part": 1}, {"part": 2}],
    }  # fmt: skip
    assert run(example, "none").stdout == ""
    assert json.loads(run(example, "none", "--json").stdout) == {"holds": True}


@pytest.mark.parametrize(
    ("words", "message", "status"),
    [
        (["budget"], "error: too much. Spend less.", 3),
        (["interrupt"], "error: interrupted before it was done. Start it again.", 130),
        (["usage"], "Error: Two of them. Give one.", 2),
        (
            ["none", "--number", errno.ENOSPC],
            "error: out.vcf.gz: No space left on device. Free",
            2,
        ),
        (["none", "--number", errno.EACCES], "error: out.vcf.gz: Permission denied. Ask its owner", 2),
        (["none", "--number", errno.EISDIR], "error: out.vcf.gz: Is a directory. Give a file", 2),
        (["none", "--number", errno.EIO], "error: out.vcf.gz: Input/output error. Check the disk", 1),
    ],
)
def test_an_error_is_one_message_and_an_exit_status(words: list[object], message: str, status: int) -> None:
    result = run(example, *words)
    assert (result.exit_code, result.stdout) == (status, "")
    assert message in result.stderr
    told = run(example, *words, "--json")
    assert (told.exit_code, told.stderr) == (status, result.stderr)
    said = json.loads(told.stdout)
    assert (said["holds"], said["exit_status"]) == (False, status)
    assert result.stderr.rstrip().endswith(f"rror: {said['problem']}")


def test_problems_of_an_input_are_told_one_by_one() -> None:
    said = json.loads(run(example, "wrong", "--json").stdout)
    assert said["problems"] == [{"where": "a.csv, row 3", "what": "is empty.", "remedy": "Fill it in."}]
    assert said["exit_status"] == 2


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    result = run(example, "pipe")
    assert (result.exit_code, result.output) == (1, "")


@pytest.mark.parametrize(
    ("given", "kind", "told"),
    [
        ("sample.bm", EXISTING, "File '{}' does not exist. Is it {folder}/sample.bam?"),
        ("other.vcf", EXISTING, "File '{}' does not exist. Check the path."),
        ("no/other.vcf", EXISTING, "File '{}' does not exist. Check the path."),
        (
            "dangling",
            EXISTING,
            "File '{}' does not exist. It is a link to {folder}/gone, which is not",
        ),
        ("inner", EXISTING, "File '{}' is a directory. Give a file."),
        ("inner", OUTPUT, "File '{}' is a directory. Give a file."),
        ("sample.bam", EXISTING_FOLDER, "Directory '{}' is a file. Give a folder."),
    ],
)
def test_a_path_that_cannot_be_used_is_told_with_what_to_give(
    tmp_path: Path, given: str, kind: click.Path, told: str
) -> None:
    (tmp_path / "sample.bam").touch()
    (tmp_path / "inner").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    path = f"{tmp_path}/{given}"
    with pytest.raises(click.BadParameter) as caught:
        kind.convert(path, None, None)
    assert caught.value.message.startswith(told.format(path, folder=tmp_path))


def test_a_relative_path_is_told_with_the_folder_that_it_starts_from(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(click.BadParameter, match=f"Check the path; it was looked for in {tmp_path}."):
        EXISTING.convert("a.vcf", None, None)


@pytest.mark.parametrize("limit", [0, 1000])
def test_a_disk_that_is_full_ends_a_step_with_a_message(lab: Lab, limit: int) -> None:
    """A limit on the size of files (KiB) stands for the disk; nothing is left behind."""
    step = f"{ROOT}/bin/prepare_reference.py --reference {lab.reference} --outdir {lab.folder}/out"
    script = f"ulimit -f {limit}; exec {sys.executable} {step}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    if limit:
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {lab.folder}/out/reference.fasta: File too large. Raise the limit on the size of files "
        "(ulimit -f), and start again.\n"
    )
    assert list((lab.folder / "out").iterdir()) == []


@pytest.fixture
def both(lab: Lab) -> Callable[..., dict[str, Any]]:
    """Run ``bin/NAME.py`` twice: what it says in lines must hold all that it says in JSON."""

    def told(name: str, line: str, *apart: str) -> dict[str, Any]:
        text, found = (run(command_of(name), *line.split(), *more) for more in ((), ("--json",)))
        assert text.exit_code == found.exit_code == 0, text.output + found.output
        values = json.loads(found.stdout)
        for leaf in leaves({name: value for name, value in values.items() if name not in apart}):
            assert str(leaf) in text.stdout.replace(",", ""), (leaf, text.stdout)
        return values

    return told


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)
    elif value:
        yield value


def test_the_steps_of_a_run_say_the_same_in_lines_and_in_json(lab: Lab, both: Callable[..., Any]) -> None:
    sequence = lab.sequences["chr1"]
    changed = f"{sequence[:299]}{'CAAA'['ACGT'.index(sequence[299])]}{sequence[300:]}"
    reads = [Read(start, bases=changed[start : start + 100]) for start in range(205, 295, 3)]
    bam, folder = lab.bam("raw.bam", reads), lab.folder
    truth = lab.vcf("truth.vcf.gz", [f"chr1 300 {sequence[299]} {changed[299]} . . . GT 1/1"])
    confident = lab.bed("confident.bed", ("chr1", 0, 1500))
    model = Model("logistic", FEATURES, initial_parameters("logistic", len(FEATURES)))
    model.save(folder / "model.safetensors")
    about = f"--sample s1 --reference {folder}/ref/reference.fasta"
    got = both("prepare_reference", f"--reference {lab.reference} --outdir {folder}/ref")
    assert got == {"contigs": 2, "bp": sum(lab.contigs.values())}
    got = both("split_intervals", f"--reference {lab.reference} --parts 3 --outdir {folder}/parts")
    assert got["parts"] == 3
    assert both("normalise_reads", f"--bam {bam} {about} --output {folder}/s1.bam", "done")["sample"] == "s1"
    got = both("bcftools_call", f"--bam {folder}/s1.bam {about} --output {folder}/raw.vcf.gz")
    assert got == {"sample": "s1", "records": 1}
    both("gather_calls", f"--vcf {folder}/raw.vcf.gz --output {folder}/whole.vcf.gz")
    got = both("normalise_variants", f"--vcf {folder}/whole.vcf.gz {about} --output {folder}/s1.vcf.gz")
    assert (got["sample"], got["kept"], got["split"]) == ("s1", 1, 0)
    who = lab.text("who.json", '{"patient": "p", "sample": "x"}')
    ids, calls = f"--site a --pseudonyms {who}", f"--calls bcftools={folder}/s1.vcf.gz"
    line = f"{ids} --bam {folder}/s1.bam {about} {calls} --output {folder}/v.parquet"
    assert both("encode_variants", line) == {"sample": "s1", "candidates": 1, "callers": ["bcftools"]}
    line = f"--variants {folder}/v.parquet {about} --truth {truth} --confident {confident}"
    both("label_variants", f"{line} --output {folder}/l.parquet")
    by = f"--model {folder}/model.safetensors"
    line = f"{by} --variants {folder}/l.parquet --site a --output {folder}/c.json"
    got = both("calibrate_scores", line, "thresholds", "curves", "margin", "cost")
    assert (got["rows"], got["curves"]["SNV"]["a"], got["reason"]) == (1, 1.0, "site a has only real alleles")
    sheet = lab.text("s.csv", f"sample,variants,calls\ns1,{folder}/l.parquet,{calls.split()[1]}\n")
    line = f"{by} --calibration {folder}/c.json --samples {sheet} --reference {folder}/ref/reference.fasta"
    got = both("score_variants", f"{line} --outdir {folder}/scored")
    assert got == {"samples": [{"sample": "s1", "passing": 1, "candidates": 1}]}


def test_a_plan_says_what_its_epsilon_is_of(tmp_path: Path, both: Callable[..., Any]) -> None:
    sheet = tmp_path / "sites.csv"
    sheet.write_text("site,declared_patients,weight\nnorth,20,1\nsouth,20,1\n")
    words = f"--sites {sheet} --state {tmp_path}/state --outdir {tmp_path}/out --epsilon 8 --delta 1e-5"
    words += " --rounds 2 --local_steps 3 --sampling_rate 0.5 --clip_norm 1 --learning_rate 1"
    words += " --max_variants_per_patient 9"
    exempt = ("plan", "sites", "address", "at_more_sites")
    got = both("plan_run", words, *exempt)
    assert got["sites"] == ["north", "south"]
    assert {"epsilon", "delta", "unit", "mechanism", "adjacency", "noise_multiplier"} <= set(got["plan"])
    assert [item["sites"] for item in got["at_more_sites"]] == [2, 3]
    assert got["at_more_sites"][0]["epsilon_rdp"] > 8 > got["plan"]["sites_per_patient"] == 1
    shared = both("plan_run", f"{words} --sites_per_patient 2", *exempt)
    assert shared["plan"]["noise_multiplier"] > got["plan"]["noise_multiplier"]
    assert [item["sites"] for item in shared["at_more_sites"]] == [3, 4]


def test_a_public_model_and_a_script_are_told_as_json(tmp_path: Path) -> None:
    said = json.loads(run(CORDON["cordon completion"], "bash", "--json").stdout)
    assert said["shell"] == "bash"
    assert said["script"].strip() == run(CORDON["cordon completion"], "bash").stdout.strip()
