"""The offline bundle: checked before anything of it is used. A run from one: test_same_results.py."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import ROOT
from docker_lab import bundled


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without images."""
    return bundled(tmp_path_factory.mktemp("small") / "bundle")


def install(bundle: Path, folder: Path, engine: str = "none") -> subprocess.CompletedProcess[str]:
    return subprocess.run([bundle / "install", folder, engine], text=True, capture_output=True)


def test_the_pipeline_and_its_jars_are_put_in_their_place(small: Path, tmp_path: Path) -> None:
    done = install(small, tmp_path / "cordon")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cordon" / "main.nf").read_text() == (ROOT / "main.nf").read_text()
    jars = {path.name for path in (tmp_path / "cordon" / ".tools" / "nextflow").glob("*.jar")}
    assert jars == {path.name for path in (ROOT / ".tools" / "nextflow").glob("*.jar")}
    assert len(jars) > 40


@pytest.mark.parametrize("fault", ["changed", "added", "missing"])
def test_a_bundle_that_was_tampered_with_is_not_installed(small: Path, tmp_path: Path, fault: str) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(small, bundle)
    jar = next((bundle / "jars" / "nextflow").glob("*.jar"))
    if fault == "changed":
        jar.write_bytes(jar.read_bytes()[:-1] + b"!")
    elif fault == "added":
        (bundle / "jars" / "nextflow" / "more.jar").write_bytes(b"")
    else:
        jar.unlink()
    done = install(bundle, tmp_path / "cordon")
    assert done.returncode == 1
    assert ("more.jar" if fault == "added" else jar.name) in done.stdout + done.stderr
    assert not (tmp_path / "cordon" / "main.nf").exists()


def test_what_is_no_part_of_a_bundle_is_refused(tmp_path: Path) -> None:
    command = [ROOT / "tools" / "bundle", tmp_path / "b", "gtak4"]
    done = subprocess.run(command, text=True, capture_output=True)
    assert done.returncode == 2
    assert "gtak4 is no part of a bundle" in done.stderr
