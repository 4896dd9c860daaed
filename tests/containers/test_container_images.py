"""The images of the pipeline's tasks: what is in them, who they run as, and that their commands work."""

from __future__ import annotations

import email
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from certificate_lab import left_by_a_run
from conftest import ROOT, Lab, Read
from cordon import __version__
from cordon.auditing.certificate import verify
from cordon.model.released import load
from docker_lab import about, docker, image
from pipeline_lab import environment

IMAGES = ["python", "train", "gatk4"]
# A container has no entry for this user, as for whoever starts a pipeline.
STRANGER = ("--rm", "--network", "none", "--user", "12345:6789")
COMMANDS = sorted((ROOT / "bin").glob("*.py"))
# What scores with a model: with PyTorch where it looks at images.
SCORING = {"AGGREGATE", "CALIBRATE_SCORES", "SCORE_VARIANTS"}
# It has 1.4 GB, a Debian of 0.2 GB among it; PyTorch, Opacus and what they bring would be 1.3 GB more.
LIGHT_BYTES = 1_500_000_000


def script(name: str, folder: str = "") -> Any:
    """A script of the builds as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "containers" / folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def in_image(name: str, command: str, *options: object) -> str:
    shell = ("/bin/bash", "-euo", "pipefail", "-c")
    return docker("run", *STRANGER, *options, image(name), *shell, command).stdout


def test_every_process_has_an_image_that_is_built_here_or_a_public_one() -> None:
    version = re.search(r"^ *version = '(.+)'", (ROOT / "nextflow.config").read_text(), re.M)
    assert version is not None
    assert version[1] == __version__
    named = [
        (path, container)
        for path in sorted((ROOT / "modules").rglob("*.nf")) + sorted((ROOT / "conf").rglob("*.config"))
        for line in re.findall(r"""\bcontainer *=? +(.*['"].+['"].*)""", path.read_text())
        for container in re.findall(r"""['"]([^'"]*[:/][^'"]*)['"]""", line)
    ]
    processes = list((ROOT / "modules").rglob("main.nf"))
    assert {path for path, _ in named} >= {*processes}
    for path, container in named:
        ours = re.fullmatch(r"cordon-(\w+):\$\{(?:workflow\.)?manifest\.version\}(-cuda)?", container)
        if ours:
            assert (ROOT / "containers" / ours[1] / "build").exists(), path
            assert ours[2] is None or ours[1] == "train", path
        else:
            assert re.fullmatch(r"docker\.io/google/deepvariant:[\d.]+(-gpu)?", container), (path, container)


def test_the_images_hold_what_the_project_depends_on_and_nothing_of_its_extras() -> None:
    pinned = script("pinned")
    lock = (ROOT / "requirements.lock").read_text()
    light = {*pinned.chosen(lock, str(ROOT / "pyproject.toml"))}
    needed = {*pinned.chosen(lock, f"{ROOT / 'pyproject.toml'}[train]")}
    assert {"flwr", "pysam", "pyarrow", "numpy"} <= light < needed
    assert not {"torch", "opacus", "sympy", "triton"} & light
    assert not {name for name in light if name.startswith(("nvidia", "cuda"))}
    cuda = {*pinned.listed((ROOT / "containers" / "python" / "cuda_only.txt").read_text())}
    assert {"torch", "flwr", "opacus", "pysam", "nvidia-cudnn-cu13", "triton"} <= needed
    assert not {"pytest", "mypy", "ruff", "pip-tools"} & needed
    assert cuda <= needed
    nvidia = {name for name in needed - cuda if name.startswith(("nvidia", "cuda", "triton"))}
    assert nvidia == {"nvidia-cuda-runtime", "nvidia-cuda-cupti"}


def test_what_a_package_came_with_is_followed_to_its_end() -> None:
    lock = (
        "a==1 \\\n    --hash=sha256:0\n    # via cordon (pyproject.toml)\n"
        "b==1\n    # via a\nc==1\n    # via\n    #   b\n    #   d\nd==1\n"
    )
    pinned = script("pinned")
    assert pinned.needed(lock, ["a"]) == ["a", "b", "c"]
    assert pinned.needed(lock, ["d"]) == ["c", "d"]


def test_licences_are_names_and_not_texts() -> None:
    def licence(*lines: str) -> str | None:
        metadata = email.message_from_string("\n".join(lines))
        return script("installed").licence(metadata)  # type: ignore[no-any-return]

    mit = "Classifier: License :: OSI Approved :: MIT License"
    assert licence("License-Expression: BSD-3-Clause", "License: BSD", mit) == "BSD-3-Clause"
    assert (
        licence("License: Permission is", "  hereby granted", mit, "Classifier: Topic :: Internet")
        == "MIT License"
    )
    assert licence("License: MIT License", "  ", "  Copyright (c)") == "MIT License"
    assert licence("License: Apache-2.0") == "Apache-2.0"
    assert licence("Name: six") is None


@pytest.mark.pipeline
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_labelled_belongs_to_nobody_and_has_nothing_setuid(name: str) -> None:
    found = about(image(name))["Config"]
    labels = {key.removeprefix("org.opencontainers.image."): text for key, text in found["Labels"].items()}
    assert labels["title"] == f"cordon-{name}"
    assert labels["version"] == __version__
    assert labels["licenses"] == "Apache-2.0"
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", labels["revision"])
    assert found["User"] == "65532:65532"
    assert not found["Entrypoint"]
    listed = docker(
        "run", "--rm", "--network", "none", "--user", "0", image(name), "/bin/bash", "-c",
        "find / -xdev -type f -perm /6000; find /opt /usr -xdev ! -type l -perm /o+w",
    ).stdout  # fmt: skip
    assert listed == ""


@pytest.mark.pipeline
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", IMAGES)
def test_what_only_a_build_needs_is_not_in_an_image(name: str) -> None:
    assert in_image(name, "compgen -c | grep -E '^(gcc|cc|ld|make|pip|pip3)$' || true") == ""
    listed = {
        line.split()[0] for line in in_image(name, "cat /usr/share/cordon/debian_packages.txt").splitlines()
    }
    assert "libc6" in listed
    assert not [package for package in listed if package.startswith("gcc") and package != "gcc-12-base"]
    assert not {package for package in listed if package.endswith("-dev")}
    assert in_image(name, "find /build /var/lib/apt/lists -type f 2>/dev/null || true") == ""


@pytest.mark.pipeline
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", IMAGES)
def test_the_health_check_passes_and_what_nextflow_asks_for_is_there(name: str) -> None:
    words = about(image(name))["Config"]["Healthcheck"]["Test"]
    assert words[0] == "CMD"
    docker("run", *STRANGER, "--read-only", "--tmpfs", "/tmp", image(name), *words[1:])
    # What .command.run calls, and the tasks' own scripts.
    tools = "awk bash cat date grep gzip ls mkdir mktemp ps sed sort tail tee zgrep"
    assert len(in_image(name, f"for tool in {tools}; do command -v $tool; done").split()) == len(
        tools.split()
    )
    assert in_image(name, "echo $HOME $USER; touch $HOME/mine; ps --no-headers -o uid | sort -u").split() == [
        "/tmp", "cordon", "12345",
    ]  # fmt: skip


@pytest.mark.pipeline
@pytest.mark.parametrize(
    ("profile", "model", "train", "gpu"),
    [
        ("test", "logistic", {"TRAIN_SITE", "AUDIT_MODEL"}, set()),
        ("test", "pileup_cnn", {"TRAIN_SITE", "AUDIT_MODEL", *SCORING}, set()),
        ("test,gpu", "pileup_cnn", {"AGGREGATE"}, {"TRAIN_SITE", "AUDIT_MODEL", *SCORING} - {"AGGREGATE"}),
    ],
)
def test_tasks_that_need_pytorch_get_the_image_that_has_it_and_no_others_do(
    profile: str, model: str, train: set[str], gpu: set[str], tmp_path: Path
) -> None:
    given = ["-profile", profile, "--model", model, "--outdir", "results"]
    done = subprocess.run(
        ["nextflow", "inspect", "-format", "json", str(ROOT), *given],
        cwd=tmp_path, env=environment(), text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, set[str]] = {}
    for process in json.loads(done.stdout)["processes"]:
        found.setdefault(process["container"], set()).add(process["name"].rpartition(":")[2])
    light = found.pop(f"cordon-python:{__version__}")
    assert {"CHECK_INPUTS", "PLAN_RUN", "LABEL_VARIANTS", "EVALUATE_SCORES", "REPORT", "MULTIQC"} <= light
    assert found.pop(f"cordon-gatk4:{__version__}") == {"GATK4_HAPLOTYPECALLER"}
    assert found.pop(f"cordon-train:{__version__}") == train
    assert found.pop(f"cordon-train:{__version__}-cuda", set()) == gpu
    assert found == {}
    assert light.isdisjoint(train | gpu)
    assert light | train | gpu >= {"TRAIN_SITE", "AUDIT_MODEL", *SCORING}


@pytest.mark.pipeline
@pytest.mark.timeout(900)
def test_the_light_image_has_no_pytorch_is_small_and_is_under_the_one_that_trains() -> None:
    program = (
        "from importlib.util import find_spec as find; print(find('torch'), find('opacus'), find('triton'))"
    )
    assert in_image("python", f'python3 -c "{program}"').split() == ["None"] * 3
    light, train = about(image("python")), about(image("train"))
    assert light["Size"] < LIGHT_BYTES < train["Size"]
    # Debian, two layers of what the build takes, and the packages: on the disk once. What follows is Cordon.
    assert light["RootFS"]["Layers"][:4] == train["RootFS"]["Layers"][:4]


@pytest.mark.pipeline
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["python", "train"])
def test_every_command_runs_in_the_image_with_the_package_that_is_installed_there(name: str) -> None:
    shown = in_image(
        name,
        'for command in /given/*.py; do $command --help >/dev/null; echo "${command##*/}"; done',
        "--read-only", "--tmpfs", "/tmp", "--volume", f"{ROOT / 'bin'}:/given:ro",
    )  # fmt: skip
    assert shown.split() == [path.name for path in COMMANDS]
    in_image(name, "python3 -m cordon.cli --help; cordon --help")
    where = in_image(name, "python3 -c 'import cordon; print(cordon.__version__, cordon.__file__)'")
    assert where.split() == [__version__, "/opt/cordon/lib/python3.11/site-packages/cordon/__init__.py"]


# A round of DP-SGD on a small table by each model, pileup_cnn's by Opacus and torch.func: with real noise,
# then a digest of what comes of a seed.
TRAINS = """
import hashlib
import numpy as np
from cordon.privacy.mechanisms import Randomness
from cordon.model.architectures import width
from cordon.model.initial_weights import initial_parameters
from cordon.training.dpsgd import descend, train
from cordon.training.settings import DPSGD
from cordon.training.units import Units

source = np.random.default_rng(1)
settings = DPSGD(noise_multiplier=1.0, sampling_rate=0.5, steps=3, clip_norm=1.0, learning_rate=0.5,
                 expected_batch=4.0, max_variants=8)
for model in ("logistic", "mlp", "pileup_cnn"):
    rows = source.integers(0, 9, (40, width(model, 5))).astype(np.float32)
    labels = source.integers(0, 2, 40).astype(np.float32)
    units = Units.group(rows, labels, [f"p{n // 5}" for n in range(40)], unit="patient")
    start = initial_parameters(model, 5)
    updates = [train(model, start, units, settings, threads=1).update for _ in range(2)]
    assert any((updates[0][name] != updates[1][name]).any() for name in start)
    again = descend(model, start, units, settings, Randomness(np.random.default_rng(2).bytes)).update
    print(model, hashlib.sha256(b"".join(value.tobytes() for value in again.values())).hexdigest())
"""


@pytest.mark.pipeline
@pytest.mark.timeout(900)
def test_without_cuda_models_train_and_their_numbers_are_those_of_the_wheels_with_it(tmp_path: Path) -> None:
    (tmp_path / "trains.py").write_text(TRAINS)
    tmp_path.chmod(0o755)
    threads = {"CORDON_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(tmp_path / "trains.py")]
    done = subprocess.run(command, env=os.environ | threads, check=True, text=True, capture_output=True)
    here = done.stdout
    there = in_image(
        "train", "python3 /given/trains.py", "--volume", f"{tmp_path}:/given:ro",
        *(f"--env={name}={value}" for name, value in threads.items()),
    )  # fmt: skip
    assert there == here
    assert here.count("\n") == 3


@pytest.mark.pipeline
@pytest.mark.timeout(900)
def test_without_cuda_every_symbol_of_pytorch_is_there_and_no_gpu_is_found() -> None:
    program = (
        "import torch, opacus\n"
        "print(torch.cuda.is_available(), float((torch.ones(64, 64) @ torch.ones(64, 64)).sum()))\n"
        "try: torch.ones(1).cuda()\n"
        "except RuntimeError as error: print(type(error).__name__)\n"
    )
    # LD_BIND_NOW has the loader look for every symbol at once, of the stand-ins too.
    shown = in_image("train", f"python3 -c '{program}'", "--env", "LD_BIND_NOW=1")
    assert shown.split() == ["False", "262144.0", "RuntimeError"]


@pytest.mark.pipeline
@pytest.mark.timeout(900)
def test_a_stand_in_that_is_called_says_which_image_to_take() -> None:
    program = 'import ctypes, torch; ctypes.CDLL(torch.__path__[0] + "/lib/libnccl.so.2").ncclGroupStart()'
    # Not as the container's first process, for which Linux ignores SIGABRT.
    shell = ("/bin/bash", "-c", f"python3 -c '{program}'; exit $?")
    done = docker("run", *STRANGER, image("train"), *shell, check=False)
    assert done.returncode == 134
    assert "ncclGroupStart: this Cordon has no CUDA" in done.stderr
    assert "-cuda" in done.stderr


@pytest.mark.pipeline
@pytest.mark.timeout(900)
def test_a_model_is_audited_in_the_image_with_real_noise(tmp_path: Path) -> None:
    """What a run of a seeded double cannot show, whose model every audit refuses."""
    left_by_a_run(tmp_path)
    in_image(
        "train",
        "/given/audit_model.py trained.parquet --held_out held_out.parquet --model model.safetensors "
        "--record federation.json --ledger ledger.sqlite --trainings 8 --certificate certificate.json "
        "--details audit.json",
        "--user", f"{os.getuid()}:{os.getgid()}", "--read-only", "--tmpfs", "/tmp",
        "--env", "OMP_NUM_THREADS=1", "--volume", f"{ROOT / 'bin'}:/given:ro",
        "--volume", f"{tmp_path}:/work", "--workdir", "/work",
    )  # fmt: skip
    content = verify(tmp_path / "certificate.json", load(tmp_path / "model.safetensors"))
    verdicts = {check["name"]: check["verdict"] for check in content["checks"]}
    assert {name for name, verdict in verdicts.items() if verdict == "passed"} >= {
        "claims", "noise", "neighbours", "sampling", "specified", "reserving", "egress", "step bound"
    }  # fmt: skip
    assert "failed" not in verdicts.values()


@pytest.mark.pipeline
@pytest.mark.timeout(900)
def test_gatk_calls_a_variant_in_its_image_with_its_native_libraries(lab: Lab) -> None:
    name, sequence = next(iter(lab.sequences.items()))
    place = 150
    other = "C" if sequence[place] != "C" else "G"
    bases = sequence[100:200]
    changed = bases[: place - 100] + other + bases[place - 99 :]
    lab.bam("s1.bam", [Read(100, bases=changed, contig=name) for _ in range(30)])
    prepare = [sys.executable, ROOT / "bin" / "prepare_reference.py", "--reference", lab.reference]
    subprocess.run([*prepare, "--outdir", lab.folder / "ref"], check=True, capture_output=True)
    # What commands write is for their owner alone, and here somebody else reads it.
    subprocess.run(["chmod", "-R", "a+rwX", lab.folder], check=True)
    done = docker(
        "run", *STRANGER, "--volume", f"{lab.folder}:/work", "--workdir", "/work", image("gatk4"),
        "/bin/bash", "-euo", "pipefail", "-c",
        "gatk --java-options -Xmx1g HaplotypeCaller --input s1.bam --reference ref/reference.fasta "
        "--output out.vcf.gz --tmp-dir . && zcat out.vcf.gz",
    )  # fmt: skip
    calls = [line.split("\t")[:5] for line in done.stdout.splitlines() if line.startswith(name)]
    assert [name, str(place + 1), ".", sequence[place], other] in calls
    assert 'Version="4.6.2.0"' in done.stdout
    assert "native PairHMM implementation" in done.stderr
    assert "Unable to load" not in done.stderr


@pytest.mark.pipeline
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("python", {"pkg:pypi/flwr", "pkg:pypi/pysam", "pkg:deb/debian/libc6", "pkg:deb/debian/python3.11"}),
        ("train", {"pkg:pypi/torch", "pkg:pypi/flwr", "pkg:deb/debian/libc6", "pkg:deb/debian/python3.11"}),
        ("gatk4", {"pkg:maven/org.broadinstitute/gatk", "pkg:deb/debian/openjdk-17-jre-headless"}),
        ("aggregator", {"pkg:pypi/flwr", "pkg:deb/debian/libc6", "pkg:deb/debian/libssl3"}),
    ],
)
def test_an_sbom_is_valid_and_names_what_is_in_the_image(name: str, wanted: set[str], tmp_path: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    sbom = script("sbom")
    sbom.main(image(name), tmp_path / "sbom.cdx.json")
    text = (tmp_path / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = json.loads(text)
    parts = {part["purl"].partition("@")[0]: part for part in found["components"]}
    assert wanted <= {*parts}
    assert found["metadata"]["component"]["version"] == __version__
    assert all("hashes" in part for url, part in parts.items() if not url.startswith("pkg:deb"))
    licensed = [part for url, part in parts.items() if url.startswith("pkg:pypi") and "licenses" in part]
    assert len(licensed) == sum(url.startswith("pkg:pypi") for url in parts)
    if name == "python":
        assert not {"pkg:pypi/torch", "pkg:pypi/opacus"} & {*parts}
    if name == "aggregator":
        assert not {"pkg:deb/debian/bash", "pkg:deb/debian/apt", "pkg:pypi/torch"} & {*parts}
    again = tmp_path / "again.cdx.json"
    sbom.main(image(name), again)
    assert again.read_text() == text
