"""List what pip installed, with licences and hashes: ``installed.py REPORT``, of ``pip install --report``."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LONGEST_NAME = 100


def licence(metadata: dict[str, Any]) -> str | None:
    """The licence as its package states it; some put its whole text where the name belongs."""
    named = metadata.get("license_expression") or metadata.get("license") or ""
    if named and "\n" not in named and len(named) <= LONGEST_NAME:
        return str(named)
    classified = [line for line in metadata.get("classifier", []) if line.startswith("License ::")]
    return " AND ".join(line.rpartition(" :: ")[2] for line in classified) or None


def installed(report: dict[str, Any]) -> Iterator[dict[str, str | None]]:
    """Name, version, licence and the wheel's SHA-256 of each distribution, by name."""
    for entry in sorted(report["install"], key=lambda entry: str(entry["metadata"]["name"]).lower()):
        metadata, archive = entry["metadata"], entry["download_info"]["archive_info"]
        yield {
            "name": metadata["name"], "version": metadata["version"], "licence": licence(metadata),
            "sha256": archive.get("hashes", {}).get("sha256") or archive["hash"].removeprefix("sha256="),
        }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps([*installed(json.loads(Path(sys.argv[1]).read_text()))], indent=1))
