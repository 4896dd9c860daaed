"""What tests of container images share: Docker's command, images that are built once, bundles of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT


def docker(*words: object, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["docker", *map(str, words)], text=True, capture_output=True, timeout=timeout)
    assert not check or done.returncode == 0, done.stderr
    return done


def made(*command: object) -> str:
    """What a build prints; skip with the reason where Docker is missing or cannot build here."""
    if shutil.which("docker") is None:
        pytest.skip("Docker is not on this machine; tests/docker/start sets it up")
    if subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("Docker's daemon cannot be reached; tests/docker/start starts one")
    if docker("image", "inspect", "debian:12-slim", check=False).returncode:
        pytest.skip("debian:12-slim is not here; tests/docker/start makes it")
    done = subprocess.run([*map(str, command)], text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@cache
def image(name: str) -> str:
    """The tag of ``cordon-NAME:VERSION``, built from this tree: what has not changed is not built again."""
    tag, _, size = made(ROOT / "containers" / name / "build").rpartition(": ")
    assert int(size.removesuffix(" bytes\n")) == about(tag)["Size"]
    return tag


def about(tag: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("image", "inspect", tag).stdout)[0]
    return found


def bundled(out: Path, *parts: str) -> Path:
    """The offline bundle of ``parts``, in the folder ``out``, which is made."""
    quickly = os.environ | {"ZSTD_CLEVEL": "1"}
    command = [ROOT / "tools" / "bundle", out, *parts]
    done = subprocess.run(command, env=quickly, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out
