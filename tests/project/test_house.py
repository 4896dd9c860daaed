"""Tests of how the package is built: each wing names what others take of it, and the rooms can be printed.

That imports run downwards is a contract of import-linter, in pyproject.toml (`make lint`).
"""

import ast
import re
import subprocess
import sys
from collections import defaultdict

import grimp
import pytest

from conftest import ROOT

SOURCE = ROOT / "src"
TOOLS = [path for path in ROOT.glob("tools/*") if path.is_file() and "python" in path.read_text()[:40]]
COMMANDS = [*ROOT.glob("bin/*.py"), *ROOT.glob("containers/**/*.py"), *TOOLS]


def wing(module):
    """The wing that ``module`` stands in: a package right below cordon or the federation."""
    parts = module.split(".")
    inner = parts[:3]
    return ".".join(inner if parts[1:2] == ["federation"] and package(inner) else parts[:2])


def package(parts):
    return SOURCE.joinpath(*parts).is_dir() and len(parts) > 1


@pytest.fixture(scope="module")
def taken():
    """The modules of each wing that other wings and commands import."""
    graph = grimp.build_graph("cordon", cache_dir=None)
    found = defaultdict(set)
    for module in graph.modules:
        found[wing(module)] |= set()
        for other in graph.find_modules_directly_imported_by(module):
            if wing(other) != wing(module):
                found[wing(other)].add(other)
    for path in COMMANDS:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cordon"):
                for name in node.names:
                    whole = f"{node.module}.{name.name}"
                    module = whole if whole in graph.modules else node.module
                    found[wing(module)].add(module)
    return {name: modules for name, modules in found.items() if package(name.split("."))}


def test_each_wing_says_what_it_is_for_and_names_what_others_take_of_it(taken):
    for name, modules in taken.items():
        first, *rest = ast.get_docstring(
            ast.parse(SOURCE.joinpath(*name.split("."), "__init__.py").read_text())
        ).splitlines()
        assert first.endswith("."), name
        (public,) = re.findall(r"^Public: (.*?)\.$", "\n".join(rest), re.DOTALL | re.MULTILINE)
        expected = sorted(module.removeprefix(f"{name}.") for module in modules - {name})
        assert re.findall("``([^`]+)``", public) == expected, name


def test_the_rooms_are_few_and_their_imports_go_in_no_circle():
    done = subprocess.run([sys.executable, ROOT / "tools/house"], capture_output=True, text=True, check=True)
    rooms = [line.split(" | ")[0].strip("| ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert {"privacy", "ledger", "federation/aggregator", "variants"} <= set(rooms)
    assert len(rooms) - 1 <= 30
    assert "circles: none" in done.stdout
