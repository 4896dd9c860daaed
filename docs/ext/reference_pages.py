"""Directives for what the code and the schemas say of themselves: parameters, columns, commands, modules.

Each makes reStructuredText of it while the site is built, so that no copy can grow old. They belong
inside an ``{eval-rst}`` block.
"""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
# Keys of a parameter's rule that limit it, in the words of the page.
LIMITS = {
    "minimum": "At least", "exclusiveMinimum": "Above", "maximum": "At most", "exclusiveMaximum": "Below",
}  # fmt: skip


class Generated(SphinxDirective):
    """Parses what ``lines`` gives as if it stood on the page; a change of ``sources`` builds it anew."""

    sources: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        for source in (*self.sources, __file__):
            self.env.note_dependency(str(ROOT / source))
        return self.parse_text_to_nodes("\n".join(self.lines()), allow_section_headings=True)


def heading(title: str, underline: str = "-") -> Iterator[str]:
    yield from ("", title, underline * len(title), "")


def indented(text: str) -> str:
    return f"   {text}"


class Parameters(Generated):
    """The pipeline's parameters by group, as `nextflow run . --help full` has them."""

    sources = ("nextflow_schema.json",)

    def lines(self) -> Iterator[str]:
        schema = json.loads((ROOT / self.sources[0]).read_text())
        yield ".. program:: nextflow run"
        for group in schema["$defs"].values():
            yield from heading(group["title"])
            yield group["description"]
            for name, rule in group["properties"].items():
                yield from parameter(name, rule)


def parameter(name: str, rule: dict[str, Any]) -> Iterator[str]:
    kinds = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
    kind = " or ".join("path" if "path" in rule.get("format", "") else each for each in kinds)
    yield from ("", f".. option:: --{name} <{kind}>", "")
    yield indented(f"{rule['description']} {rule.get('help_text', '')}".replace("*", r"\*"))
    facts = []
    if "enum" in rule:
        facts.append(f"One of {', '.join(f'``{value}``' for value in rule['enum'])}.")
    facts += [f"{words} {rule[key]:g}." for key, words in LIMITS.items() if key in rule]
    facts.append(f"Default: ``{rule['default']}``." if "default" in rule else "No default.")
    yield from ("", indented(" ".join(facts)))


class Columns(Generated):
    """The columns of a sheet, from its schema: ``.. columns:: modules/.../schema_input.json``."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        self.sources = (self.arguments[0],)
        rows = json.loads((ROOT / self.arguments[0]).read_text())["items"]
        yield from (".. list-table::", "   :header-rows: 1", "   :widths: 22 12 66", "")
        yield from ("   * - column", "     - needed", "     - what")
        for name, rule in rows["properties"].items():
            needed = "yes" if name in rows["required"] else "no"
            yield from (f"   * - ``{name}``", f"     - {needed}", f"     - {rule['description']}")
            if "enum" in rule:
                yield f"       One of: {', '.join(f'``{value}``' for value in rule['enum'] if value)}."


class PipelineCommands(Generated):
    """Every command of bin/, by its own help."""

    def lines(self) -> Iterator[str]:
        for path in sorted((ROOT / "bin").glob("*.py")):
            self.env.note_dependency(str(path))
            held = vars(import_module(path.stem)).items()
            (command,) = [name for name, value in held if isinstance(value, click.Command)]
            yield from ("", f".. click:: {path.stem}:{command}", f"   :prog: {path.name}", "")


class Modules(Generated):
    """The modules of a package: ``.. modules:: cordon.report``. A package in `cordon` has its own page."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        package = import_module(self.arguments[0])
        yield from (f".. automodule:: {package.__name__}", "   :no-members:", "")
        within = pkgutil.iter_modules if package.__name__ == "cordon" else pkgutil.walk_packages
        for found in within(package.__path__, f"{package.__name__}."):
            if not (found.ispkg and within is pkgutil.iter_modules):
                yield from (*heading(found.name), f".. automodule:: {found.name}")


def keep_drawings(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """A paragraph of a docstring that is drawn with lines stays as it is; bars are no substitutions."""
    if any("├──" in line for line in lines):
        start = next(index for index, line in enumerate(lines) if not line.strip()) + 1
        lines[start:] = ["::", "", *(indented(line) for line in lines[start:])]
        return
    lines[:] = [line.replace("|", r"\|") if "``" not in line else line for line in lines]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("parameters", Parameters)
    app.add_directive("columns", Columns)
    app.add_directive("pipeline-commands", PipelineCommands)
    app.add_directive("modules", Modules)
    app.connect("autodoc-process-docstring", keep_drawings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
