"""The aggregator's image as a container, and as a VM of QEMU's: no SEV-SNP processor, TEST ONLY evidence."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from attestation_lab import firmware
from conftest import ROOT
from consortium import Consortium, plan
from cordon import __version__
from cordon.attestation.client import fetch
from cordon.attestation.emulator import Emulator
from cordon.attestation.policy import Policy
from cordon.attestation.template import launch_measurement
from docker_lab import docker, made

FOLDER = ROOT / "containers" / "aggregator"
USER = "65532:65532"
EMULATOR = tuple(f"emulator/{name}" for name in ("ark.key", "ark.pem", "ask.key", "ask.pem"))

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def image() -> str:
    tag = "cordon-aggregator:test"
    made(FOLDER / "build", "aggregator", tag)
    return tag


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a VM starts: vmlinuz, initrd, cmdline."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not on this machine")
    folder = tmp_path_factory.mktemp("machine")
    made(FOLDER / "measured", folder)
    return folder


@pytest.mark.timeout(400)
def test_the_image_has_no_shell_nothing_setuid_and_its_own_user(image: str, tmp_path: Path) -> None:
    about = json.loads(docker("image", "inspect", image).stdout)[0]["Config"]
    assert about["User"] == USER
    assert about["Labels"]["org.opencontainers.image.version"] == __version__
    assert about["Labels"]["org.opencontainers.image.title"] == "cordon-aggregator"
    assert about["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", about["Labels"]["org.opencontainers.image.revision"])
    for shell in ("/bin/sh", "/bin/bash", "sh"):
        assert docker("run", "--rm", "--entrypoint", shell, image, check=False).returncode == 127
    container = docker("create", image).stdout.strip()
    try:
        docker("export", "--output", tmp_path / "root.tar", container)
    finally:
        docker("rm", container)
    with tarfile.open(tmp_path / "root.tar") as archive:
        members = archive.getmembers()
    programs = {Path(m.name).name for m in members if m.mode & 0o111 and not m.isdir() and "/bin/" in m.name}
    assert programs == {"python3", "python3.11"}
    files = [m for m in members if m.isfile()]
    assert not [m.name for m in files if m.mode & (stat.S_ISUID | stat.S_ISGID)]
    assert not [
        m.name for m in files if (m.mode & 0o022 or m.uid) and not m.name.startswith(("etc/", "dev/"))
    ]
    folders = {Path(m.name).name for m in members if Path(m.name).parent.name in ("dist-packages", "lib")}
    assert {"cordon", "flwr", "numpy"} <= folders
    assert not {"apt", "dpkg", "pip", "torch", "pyarrow", "pysam", "opacus"} & folders


@pytest.mark.federation
@pytest.mark.timeout(400)
def test_two_sites_train_with_the_container_that_may_write_nothing_but_its_state(
    image: str, tmp_path: Path
) -> None:
    emulator = Emulator.at(tmp_path / "emulator")
    policy = emulator.write_policy(tmp_path / "policy.toml")
    two = Consortium(tmp_path, ["north", "south"], host=None)
    given, state = tmp_path / "run" / "aggregator", tmp_path / "aggregator"
    (given / "plan.json").write_text(json.dumps(plan(1).to_dict()))
    state.mkdir()
    for folder in (given, state, tmp_path / "emulator"):
        subprocess.run(["chown", "-R", USER, folder], check=True)
    name = f"cordon-test-{os.getpid()}"
    docker(
        "run", "--detach", "--name", name, "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL",
        "--security-opt", "no-new-privileges", "--publish", f"127.0.0.1:{two.port}:9092",
        "--volume", f"{state}:/var/lib/cordon", "--volume", f"{given}:/run/given:ro",
        "--volume", f"{tmp_path / 'emulator'}:/run/emulator:ro", image, "--plan", "/run/given/plan.json",
        "--credentials", "/run/given", "--address", "0.0.0.0:9092", "--name", "127.0.0.1", "--state", ".",
        "--evidence", "emulator:/run/emulator", "--output", "model.safetensors", "--record", "record.json",
    )  # fmt: skip
    try:
        for site in ("north", "south"):
            two.start(site, policy=policy, deadline=120.0)
        check = json.loads(docker("image", "inspect", image).stdout)[0]["Config"]["Healthcheck"]["Test"]
        assert check[0] == "CMD"
        answered(lambda: docker("exec", name, *check[1:]))
        shell = docker("exec", name, "sh", "-c", "id", check=False)
        assert shell.returncode in (126, 127)
        assert docker("wait", name, timeout=200).stdout.strip() == "0", docker("logs", name).stdout
        assert [two.finish(site) for site in ("north", "south")] == [0, 0]
    finally:
        two.stop()
        docker("rm", "--force", name)
    assert "is attested: sev-snp" in two.log("north")
    models = [
        path.read_bytes()
        for path in (state / "model.safetensors", two.folder / "north" / "model.safetensors")
    ]
    assert models[0] == models[1]
    assert {row["decision"] for row in two.ledger()} == {"accepted"}


@pytest.mark.timeout(400)
def test_public_variants_are_refused_before_the_run(image: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(plan(1).to_dict()))
    tmp_path.chmod(0o755)
    done = docker(
        "run", "--rm", "--volume", f"{tmp_path}:/given:ro", image, "--plan", "/given/plan.json",
        "--credentials", "/given", "--address", "127.0.0.1:9092", "--state", "s", "--output", "m",
        "--record", "r", "--public_variants", "/given/plan.json", check=False,
    )  # fmt: skip
    assert (done.returncode, "pyarrow is not installed here" in done.stderr) == (2, True), done.stderr


class Machine:
    """A VM that `launch` starts from ``folder``; what it says, as it comes."""

    def __init__(self, folder: Path, port: int) -> None:
        environment = os.environ | {
            "CORDON_ADDRESS": f"127.0.0.1:{port}", "CORDON_VCPUS": "1", "CORDON_MEMORY": "2048",
        }  # fmt: skip
        self.said: list[str] = []
        self._process = subprocess.Popen(
            [str(FOLDER / "launch"), str(folder), "--test_only"], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace",
        )  # fmt: skip

    def hear(self, words: str) -> None:
        """Wait until the machine says ``words``."""
        output: IO[str] = self._process.stdout  # type: ignore[assignment]
        for line in output:
            self.said.append(line.rstrip())
            if words in line:
                return
        raise AssertionError(f"the machine never said {words!r}:\n" + "\n".join(self.said[-30:]))

    def end(self) -> int:
        for line in self._process.stdout or ():
            self.said.append(line.rstrip())
        return self._process.wait(timeout=60)

    def cut_power(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def folder(tmp_path: Path, machine: Path) -> Path:
    """What `launch` needs, for two sites; the machine is a TEST ONLY one."""
    for name in ("vmlinuz", "initrd"):
        (tmp_path / name).symlink_to(machine / name)
    (tmp_path / "cmdline").write_text((machine / "cmdline").read_text() + " cordon.test_only")
    for name, size in (("state", 128), ("results", 4)):
        with (tmp_path / f"{name}.img").open("wb") as disk:
            disk.truncate(size * 2**20)
    return tmp_path


def configure(folder: Path, consortium: Consortium) -> None:
    """The configuration as a tar file, made as the guide says."""
    given = folder / "given"
    (given / "keys").mkdir(parents=True)
    (given / "plan.json").write_text(json.dumps(plan(1).to_dict()))
    (given / "sites.csv").write_text((folder / "sites.csv").read_text())
    for site in consortium.sites:
        (given / "keys" / f"{site.name}.pub").write_text(site.public_key)
    (given / "aggregator.toml").write_text(
        'address = "10.0.2.15/24"\ngateway = "10.0.2.2"\nnames = ["127.0.0.1"]\njoin_deadline = 200\n'
    )
    command = ["tar", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-cf"]
    files = ["-C", str(given), "aggregator.toml", "keys", "plan.json", "sites.csv"]
    subprocess.run([*command, folder / "configuration.tar", *files, "-C", str(folder), *EMULATOR], check=True)


def answered(evidence: Callable[[], object], seconds: float = 60.0) -> object:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return evidence()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


@pytest.mark.timeout(1800)
def test_a_vm_proves_itself_and_finds_its_encrypted_ledger_again_after_a_power_cut(folder: Path) -> None:
    emulator = Emulator.at(folder / "emulator")
    policy = Policy.read(emulator.write_policy(folder / "policy.toml"))
    two = Consortium(folder, ["northern-hospital", "southern-hospital"], host=None)
    configure(folder, two)

    first = Machine(folder, two.port)
    try:
        first.hear("the aggregator listens on")
        found = answered(lambda: fetch(f"127.0.0.1:{two.port}", policy, timeout=30.0))
    finally:
        first.cut_power()
    assert found.found.test_only  # type: ignore[attr-defined]
    assert any("is new" in line for line in first.said)

    written = (folder / "state.img").read_bytes()
    assert written[:6] == b"LUKS\xba\xbe"
    assert any(written[2**24 :])
    assert b"SQLite format 3" not in written
    assert b"northern-hospital" not in written

    second = Machine(folder, two.port)
    try:
        second.hear("goes on with the ledger that it holds")
        second.hear("the aggregator listens on")
    finally:
        second.cut_power()

    with (folder / "state.img").open("rb+") as disk:
        disk.truncate(0)
        disk.truncate(2**27)
        disk.write(b"not what the machine left there")
    third = Machine(folder, two.port)
    assert third.end() == 0
    assert any("neither empty nor a state's volume" in line for line in third.said)


@pytest.mark.timeout(600)
def test_a_machine_that_is_not_test_only_stops_without_the_processor(folder: Path, machine: Path) -> None:
    Emulator.at(folder / "emulator")
    two = Consortium(folder, ["north", "south"], host=None)
    configure(folder, two)
    (folder / "cmdline").write_text((machine / "cmdline").read_text())
    alone = Machine(folder, two.port)
    assert alone.end() == 0
    assert any("error: the configuration holds emulator/" in line for line in alone.said)
    subprocess.run(["tar", "--delete", "-f", folder / "configuration.tar", *EMULATOR], check=True)
    alone = Machine(folder, two.port)
    assert alone.end() == 0
    assert any("error: This is no confidential VM" in line for line in alone.said)
    assert not any((folder / "state.img").read_bytes())


@pytest.mark.timeout(400)
def test_a_test_only_machine_has_another_measurement(machine: Path, tmp_path: Path) -> None:
    append = (machine / "cmdline").read_text()
    assert "test_only" not in append
    given = {
        "ovmf": firmware(tmp_path / "OVMF.fd"), "kernel": machine / "vmlinuz", "initrd": machine / "initrd",
        "vcpus": 4, "vcpu_type": "EPYC-Milan",
    }  # fmt: skip
    measured = {launch_measurement(**given, append=append + extra) for extra in ("", " cordon.test_only")}  # type: ignore[arg-type]
    assert len(measured) == 2
