"""What the documentation tells its readers to type, held against what there is.

`blocks` reads a page's fenced code; `problems_of_page` names every command line, and every file of this
repository, that a page mentions and that is not there, and executes nothing. A block under the comment
`<!-- run -->` is `played`, one under `<!-- run demo -->` where a demo left its results.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click
from markdown_it import MarkdownIt

from cordon.cli import main as cordon
from cordon.files import read_json
from cordon.inputs.run_parameters import check_parameters, properties

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = read_json(ROOT / "nextflow_schema.json")
# `run`: of Nextflow's own documentation, with how many values each takes.
NEXTFLOW = {
    "-ansi-log": 1, "-c": 1, "-latest": 0, "-params-file": 1, "-profile": 1, "-r": 1, "-resume": 0,
    "-stub": 0, "-with-tower": 1, "-work-dir": 1,
}  # fmt: skip
# What a reader has, or needs for a step, beside what is here.
PROGRAMS = {
    "aws", "cat", "cd", "chown", "cp", "docker", "export", "gcloud", "git", "grep", "ls", "python3", "sbatch",
    "sha256sum", "ssh-keygen", "tar", "truncate", "umask", "vault-client",
}  # fmt: skip
# A place for what the reader fills in, or leaves out.
OMITTED = {"…", "..."}
FILE = re.compile(r"^(assets|benchmarks|bin|containers|docs|modules|src|tests|tools)/[\w./*-]+$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; ``mark`` is the comment above it, ``output`` the text block after it."""

    page: Path
    line: int
    language: str
    text: str
    mark: str
    output: str = ""


def blocks(page: Path) -> list[Block]:
    """The fenced code of ``page``, in order."""
    tokens = [token for token in MarkdownIt().parse(page.read_text()) if token.level == 0]
    found = []
    for index, token in enumerate(tokens):
        if token.type != "fence":
            continue
        before, after = tokens[index - 1] if index else None, tokens[index + 1 : index + 2]
        mark = re.fullmatch(r"<!-- (.+) -->\n?", before.content) if before is not None else None
        output = after[0].content if after and after[0].type == "fence" and after[0].info == "text" else ""
        found.append(
            Block(page, token.map[0] + 1, token.info, token.content, mark.group(1) if mark else "", output)
        )
    return found


def spans(page: Path) -> Iterator[tuple[int, str]]:
    """Line and text of what stands between backticks in the prose of ``page``."""
    for token in MarkdownIt().enable("table").parse(page.read_text()):
        if token.type == "inline":
            for child in token.children:
                if child.type == "code_inline":
                    yield (token.map[0] + 1, child.content) if token.map else (0, child.content)


def command_lines(text: str) -> Iterator[list[str]]:
    """The commands of a shell's text as words: comments, redirections and assignments are gone."""
    text = re.sub(r"<<'(\w+)'\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        skips = False
        for word in lexer:
            if word and set(word) <= set(";&|()"):
                yield from _without_assignments(words)
                words = []
            elif word and set(word) <= set("<>"):
                skips = True
            elif skips:
                skips = False
            else:
                words.append(word)
        yield from _without_assignments(words)


def _without_assignments(words: list[str]) -> Iterator[list[str]]:
    while words and re.match(r"[A-Za-z_]+=", words[0]):
        words = words[1:]
    if words:
        yield words


def problems_of_page(page: Path) -> list[str]:
    """What ``page`` tells its readers to type, or to look at, that is not there."""
    found = []
    for block in blocks(page):
        if block.language == "bash":
            for words in command_lines(block.text):
                found += [f"{page.name}:{block.line}: {problem}" for problem in problems(words)]
    for line, span in spans(page):
        if re.match(r"(cordon|make|nextflow run|python benchmarks/\S+|bin/\S+\.py) ", span):
            for words in command_lines(span.replace("|", r"\|")):
                for each in itertools.product(*(word.split("|") for word in words)):
                    found += [f"{page.name}:{line}: {problem}" for problem in problems([*each, "…"])]
        elif FILE.match(span) and not any(ROOT.glob(span.rstrip("/"))):
            found.append(f"{page.name}:{line}: {span}: no such file here")
    return found


def problems(words: Sequence[str]) -> list[str]:
    """What is wrong with one command; a word of OMITTED stands for whatever is missing."""
    name, rest = words[0].removeprefix(".venv/bin/"), list(words[1:])
    if name == "srun":
        return problems(rest)
    if name == "cordon":
        return _of_click(cordon, "cordon", rest)
    if name == "python":
        if rest[:1] == ["-W"]:
            rest = rest[2:]
        if rest[:1] == ["-c"]:
            return []
        if rest[:2] == ["-m", "pytest"]:
            return [f"{path}: no such test" for path in rest[2:] if not (ROOT / path).exists()]
        name, rest = rest[0], rest[1:]
    if name.endswith(".py") and (ROOT / name).exists():
        return _of_click(command_of(ROOT / name), name, rest)
    if name.removeprefix("tools/bin/") == "nextflow":
        return _of_nextflow(rest)
    if name == "make":
        return _of_make(rest)
    made = name.startswith(("cordon-VERSION-bundle/", "/tmp/"))  # by what the reader typed before
    if made or name in PROGRAMS or (ROOT / name).is_file():
        return []
    return [f"{name}: no such command here"]


@cache
def command_of(path: Path) -> click.Command:
    """The click command that a script of bin/ or benchmarks/ holds."""
    spec = importlib.util.spec_from_file_location(f"documented_{path.stem}", path)
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    held = [value for value in vars(module).values() if isinstance(value, click.Command)]
    command: click.Command = getattr(module, "main", held[0])
    return command


def _of_click(command: click.Command, name: str, words: list[str]) -> list[str]:
    """Whether ``command`` takes ``words``: subcommands, options, their values, and what must be given."""
    context = click.Context(command, info_name=name)
    if isinstance(command, click.Group) and words and not words[0].startswith("-"):
        if words[0] in OMITTED:
            return []
        inner = command.get_command(context, words[0])
        return _of_click(inner, f"{name} {words[0]}", words[1:]) if inner else [f"{name}: no {words[0]}"]
    given = [word for word in words if word not in OMITTED]
    whole = given == words and "--help" not in words
    try:
        values, left, _ = command.make_parser(context).parse_args(given.copy())
        for parameter in command.get_params(context):
            value = values.get(parameter.name)
            missing = value is None or parameter.value_is_missing(value)
            if not missing and not isinstance(parameter.type, click.Path):
                parameter.type_cast_value(context, value)
            if missing and parameter.required and whole:
                return [f"{name}: {parameter.get_error_hint(context)} is missing"]
    except click.BadOptionUsage as error:
        # In prose an option is named without a value.
        return [] if not whole else [f"{name}: {error.format_message()}"]
    except click.UsageError as error:
        return [f"{name}: {error.format_message()}"]
    return [f"{name}: {word} is one too many" for word in left]


def _of_nextflow(words: list[str]) -> list[str]:
    found, given, place = [], {}, 2
    if words[:2] != ["run", "."]:
        return [f"nextflow {' '.join(words[:2])}: a reader starts it with nextflow run ."]
    while place < len(words):
        word, value = words[place], next(iter(words[place + 1 : place + 2]), "")
        place += 1
        if word in OMITTED:
            continue
        if word.startswith("--"):
            has_value = bool(value) and value not in OMITTED and not value.startswith("-")
            given[word[2:]] = value if has_value else "true"
            place += has_value
        elif word in NEXTFLOW:
            place += NEXTFLOW[word]
            if word == "-profile":
                found += [f"-profile {name}: no such profile" for name in value.split(",")
                          if name not in profiles()]  # fmt: skip
        else:
            found.append(f"nextflow run: {word} is no option")
    if given.get("help", "full") not in ("true", "full", *properties(SCHEMA)):
        found.append(f"nextflow run --help: no parameter {given['help']}")
    # Both have a default on a command line, and none in a launch form, which is what the schema is for.
    given = {"outdir": "results", "state_dir": "cordon_state"} | given
    return found + [str(problem) for problem in check_parameters(given, SCHEMA)[1]]


@cache
def profiles() -> set[str]:
    """The profiles of the pipeline."""
    files = ROOT / "conf" / "profiles.config", ROOT / "nextflow.config"
    texts = [re.findall(r"^profiles \{\n(.*?)^\}", file.read_text(), re.M | re.S) for file in files]
    return {
        name for text in texts for inner in text for name in re.findall(r"^    '?([\w-]+)'? \{", inner, re.M)
    }


def _of_make(words: list[str]) -> list[str]:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    variables = set(re.findall(r"^([A-Z]+) \?=", makefile, re.M))
    found = []
    for word in words:
        name, assigns, value = word.partition("=")
        if word not in OMITTED and name not in (variables if assigns else targets):
            found.append(f"make: no {'variable' if assigns else 'target'} {name}")
        if assigns and name == "ARGS":
            found += _of_nextflow(["run", ".", *shlex.split(value)])
        if assigns and name in ("IMAGES", "BUNDLE"):
            known = {"local", "train-cuda", *(path.name for path in (ROOT / "containers").iterdir())}
            found += [f"make: no {name} {part}" for part in value.split() if part not in known]
    return found


def shape(line: str) -> str:
    """``line`` with what another run's noise, keys and times may change made alike."""
    line = re.sub(r"\b([0-9a-f]{12,}|\d{4}-\d\d-\d\d-[0-9a-f]+)\b", "#", line)
    line = re.sub(r"\b(PASS|CORDONLowScore|CORDONReview|CORDONRepeat)\b", "FILTER", line)
    return " ".join(re.sub(r"((?<!\S)-)?\d+(\.\d+)?(e-?\d+)?", "#", line).split())


def unlike(shown: str, real: str) -> list[str]:
    """The lines that a page shows and that ``real`` has not, in that order.

    A line of `…` alone stands for lines left out, one that ends in `…` for what begins alike.
    """
    lines = iter(map(shape, real.splitlines()))
    missing = []
    for line in filter(None, map(shape, shown.splitlines())):
        if line == "…":
            continue
        if line.endswith("…"):
            begins = line.removesuffix("…").rstrip()
            there = any(each.startswith(begins) for each in lines)
        else:
            there = line in lines
        if not there:
            missing.append(line)
    return missing


def played(block: Block, folder: Path) -> str:
    """What the shell prints when it runs a block in ``folder``; it must end well."""
    path = f"{ROOT}/.venv/bin:{os.environ['PATH']}:{ROOT}/tools/bin"
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text], cwd=folder, env=os.environ | {"PATH": path},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    return run.stdout
