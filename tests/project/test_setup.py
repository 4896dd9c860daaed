"""Set-up: what a machine lacks is said at once, each with its remedy, before anything is fetched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

NEEDED = ("bash", "cat", "cut", "dirname", "env", "grep", "head", "sed", "sh", "uname")
JAVA = "#!/bin/sh\necho 'openjdk version \"{}\" 2024-01-16' >&2\n"
PYTHON = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'
QUIET = "#!/bin/sh\nexit 0\n"


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of doubles of all programs that `make setup` asks for; beside it, tools/ of a fresh clone."""
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "prerequisites", tmp_path / "tools")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in NEEDED:
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    for name, text in {
        "python3": PYTHON, "java": JAVA.format("17.0.9"), "mvn": QUIET, "cc": QUIET, "readelf": QUIET,
    }.items():  # fmt: skip
        program(programs, name, text)
    return programs


def lacking(machine: Path, **variables: str) -> list[str]:
    """What prerequisites says, a line each, without its heading; [] where it says that all is there."""
    done = subprocess.run(
        [machine.parent / "tools" / "prerequisites"],
        env={"PATH": str(machine), **variables}, text=True, capture_output=True,
    )  # fmt: skip
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert done.returncode == (1 if lines else 0)
    assert not lines or lines[0] == "This machine lacks what Cordon is set up with:"
    return [line.removeprefix("    ") for line in lines[1:]]


def test_a_machine_that_has_all_hears_nothing(machine: Path) -> None:
    assert lacking(machine) == []


def test_each_missing_program_is_said_with_its_remedy_and_all_at_once(machine: Path) -> None:
    said = {
        "python3": [
            "Python: python3 is not there. Install Python 3.11 or newer, or name it: make PYTHON=python3.12"
        ],
        "cc": [
            "C compiler: cc is not there. Debian and Ubuntu: apt-get install gcc libc6-dev; "
            "macOS: xcode-select --install"
        ],
        "readelf": ["readelf is not there. Debian and Ubuntu: apt-get install binutils"],
        "java": [
            "Java: java is not there. Install a JDK or JRE 17 or newer: "
            "apt-get install openjdk-17-jre-headless"
        ],
        "mvn": [
            f"Maven: mvn is not there, and {tool} is fetched with it. "
            f"apt-get install maven, or put {tool} on PATH"
            for tool in ("nextflow", "gatk")
        ],
    }  # fmt: skip
    for name, expected in said.items():
        (machine / name).rename(machine.parent / name)
        assert lacking(machine) == expected
        (machine.parent / name).rename(machine / name)
    for name in said:
        (machine / name).unlink()
    assert lacking(machine) == [line for lines in said.values() for line in lines]


def test_a_version_that_is_too_old_is_named(machine: Path) -> None:
    program(machine, "java", JAVA.format("1.8.0_392"))
    assert lacking(machine) == ["Java: java is 8, and 17 or newer is needed; JAVA_HOME names another"]
    program(machine, "java", JAVA.format("11.0.21"))
    program(machine, "python3", '#!/bin/sh\nif [ "$1" = -V ]; then echo Python 3.9.2; else exit 1; fi\n')
    assert lacking(machine) == [
        "Python: python3 is 3.9.2, and 3.11 or newer is needed: make PYTHON=python3.11",
        "Java: java is 11, and 17 or newer is needed; JAVA_HOME names another",
    ]


def test_headers_that_mappy_is_built_with_are_looked_for(machine: Path) -> None:
    program(
        machine, "cc",
        "#!/bin/sh\necho '<stdin>:2:10: fatal error: zlib.h: No such file or directory' >&2\nexit 1\n",
    )  # fmt: skip
    assert lacking(machine) == [
        "C headers: <stdin>:2:10: fatal error: zlib.h: No such file or directory. "
        "Debian and Ubuntu: apt-get install python3-dev zlib1g-dev"
    ]


def test_what_is_there_already_or_not_called_for_is_not_asked_for(machine: Path) -> None:
    """Maven, where Nextflow and GATK are; readelf, with CUDA's own libraries; cc, where CC is another."""
    for name in ("mvn", "readelf", "cc"):
        (machine / name).unlink()
    for name in ("nextflow", "gatk", "clang"):
        program(machine, name, QUIET)
    assert lacking(machine, TORCH="cuda", CC="clang") == []


def test_nothing_is_fetched_where_something_is_missing(tmp_path: Path) -> None:
    """`make setup` in a fresh clone ends with what is missing; no environment is begun."""
    clone = tmp_path / "clone"
    for name in ("tools", "containers"):
        shutil.copytree(ROOT / name, clone / name)
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "nextflow.config"):
        shutil.copy(ROOT / name, clone)
    done = subprocess.run(
        ["make", "setup"], cwd=clone, env=os.environ | {"CC": "no-such-compiler", "PYTHON": "no-such-python"},
        text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Python: no-such-python is not there" in done.stderr
    assert "C compiler: no-such-compiler is not there" in done.stderr
    assert not (clone / ".venv").exists()
    assert not (clone / ".tools").exists()


def started(command: Path, asked: str, folder: Path) -> tuple[str, int]:
    """What a Java program says, and how many of its classes come from the archive beside its jars."""
    log = folder / "loaded"
    done = subprocess.run(
        [command, asked], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder,
        env=os.environ | {"JAVA_TOOL_OPTIONS": f"-Xlog:class+load:file={log}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    said = [line for line in done.stdout.splitlines() if not line.startswith("Picked up")]
    return "\n".join(said), log.read_text().count("shared objects file (top)")


def kept_classes(tool: str) -> Path:
    archive = ROOT / ".tools" / tool / "classes.jsa"
    if not archive.exists():
        pytest.skip(f"{tool} is not from this tree's own jars")
    return archive


@pytest.mark.stress
@pytest.mark.parametrize(("tool", "asked"), [("nextflow", "-version"), ("gatk", "--version")])
def test_a_tool_starts_from_the_classes_that_were_kept(tmp_path: Path, tool: str, asked: str) -> None:
    kept_classes(tool)
    assert started(ROOT / "tools" / "bin" / tool, asked, tmp_path)[1] > 1000


@pytest.mark.stress
def test_classes_of_other_jars_are_left_aside_without_a_word(tmp_path: Path) -> None:
    """As after an update of the jars: Java compares their times and sizes."""
    archive = kept_classes("nextflow")
    program = tmp_path / "tools" / "bin" / "nextflow"
    program.parent.mkdir(parents=True)
    shutil.copy(ROOT / "tools" / "bin" / "nextflow", program)
    shutil.copytree(archive.parent, tmp_path / ".tools" / "nextflow", copy_function=shutil.copyfile)
    said, kept = started(program, "-version", tmp_path)
    assert (said, kept) == (started(ROOT / "tools" / "bin" / "nextflow", "-version", tmp_path)[0], 0)
