"""List what pip installed, with licences and hashes: ``installed.py REPORT FOLDER [LISTED]``.

LISTED is such a list, to which these are added; it may be empty. REPORT is of ``pip install --report``,
which knows the hashes; FOLDER is where the packages are, which know their licences (pip's report lacks
those of Metadata 2.4).
"""

import json
import sys
from collections.abc import Iterator
from email.message import Message
from importlib.metadata import distributions
from pathlib import Path
from typing import Any


def licence(metadata: Message) -> str | None:
    """The licence as its package states it; some put its whole text where the name belongs."""
    if expression := metadata["License-Expression"]:
        return str(expression)
    stated = (metadata["License"] or "").strip()
    classified = [line for line in metadata.get_all("Classifier", []) if line.startswith("License ::")]
    if classified and (not stated or "\n" in stated):
        return " AND ".join(line.rpartition(" :: ")[2] for line in classified)
    return stated.partition("\n")[0] or None


def installed(report: dict[str, Any], folder: Path) -> Iterator[dict[str, str | None]]:
    """Name, version, licence and the archive's SHA-256 of each distribution, by name."""
    found = {each.metadata["Name"]: each.metadata for each in distributions(path=[str(folder)])}
    for entry in sorted(report["install"], key=lambda entry: str(entry["metadata"]["name"]).lower()):
        name, archive = entry["metadata"]["name"], entry["download_info"]["archive_info"]
        yield {
            "name": name, "version": entry["metadata"]["version"], "licence": licence(found[name]),
            "sha256": archive.get("hashes", {}).get("sha256") or archive["hash"].removeprefix("sha256="),
        }  # fmt: skip


if __name__ == "__main__":
    pip_report, packages, *before = map(Path, sys.argv[1:])
    listed = [entry for path in before for entry in json.loads(path.read_text() or "[]")]
    print(json.dumps([*listed, *installed(json.loads(pip_report.read_text()), packages)], indent=1))
