"""The offline bundle: checked before anything of it is used, and enough to run without a network."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import ROOT
from docker_lab import image


def bundled(out: Path, *parts: str) -> Path:
    quickly = os.environ | {"ZSTD_CLEVEL": "1"}
    command = [ROOT / "tools" / "bundle", out, *parts]
    done = subprocess.run(command, env=quickly, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


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


@pytest.mark.pipeline
@pytest.mark.timeout(1800)
def test_a_consortium_runs_from_the_bundle_where_no_route_leads_out(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a network namespace and a second Docker daemon need root")
    if any(shutil.which(tool) is None for tool in ("dockerd", "unshare", "ip", "zstd")):
        pytest.skip("dockerd, unshare, ip or zstd is not on this machine")
    for name in ("python", "train", "gatk4"):
        image(name)
    bundle = bundled(tmp_path / "bundle", "python", "train", "gatk4")
    work = tmp_path / "work"
    work.mkdir()
    alone = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = [*alone, ROOT / "tests" / "offline", bundle, work]
    try:
        done = subprocess.run(command, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        results = work / "cordon" / "results"
        scored = sorted((results / "scored").glob("*.vcf.gz"))
        assert len(scored) == 4
        assert all("CORDON=" in gzip.decompress(path.read_bytes()).decode() for path in scored)
        assert (results / "report.html").exists()
        assert {path.name for path in (bundle / "sbom").iterdir()} == {
            "cordon-python.cdx.json", "cordon-train.cdx.json", "cordon-gatk4.cdx.json",
        }  # fmt: skip
    finally:
        # Images and layers of a second daemon are more than a temporary folder should keep.
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(bundle, ignore_errors=True)
