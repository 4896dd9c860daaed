"""Tests of containers/aggregator: what the VM takes from its host and refuses, and how its bytes are made."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import io
import os
import shutil
import struct
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from attestation_lab import REPORT_DATA, authority
from conftest import ROOT
from cordon.attestation.emulator import Emulator
from cordon.errors import AttestationError, UserError
from cordon.federation.credentials import enrol
from cordon.federation.plan import Site, read_enrolment
from machine import configuration, disks, init, network, volume

FOLDER = ROOT / "containers" / "aggregator"
SETTINGS = b'address = "10.0.2.15/24"\ngateway = "10.0.2.2"\nnames = ["aggregator.example.org"]\n'
FILES = {"aggregator.toml": SETTINGS, "plan.json": b"{}", "sites.csv": b"site,declared_patients,weight\n"}
# What cryptsetup 2.6.1 wrote for volume.make, salts and digests shortened.
HEADER: dict[str, Any] = {
    "keyslots": {
        "0": {
            "type": "luks2", "key_size": 64, "af": {"type": "luks1", "stripes": 4000, "hash": "sha256"},
            "area": {
                "type": "raw", "offset": "32768", "size": "258048", "encryption": "aes-xts-plain64",
                "key_size": 64,
            },
            "kdf": {"type": "pbkdf2", "hash": "sha256", "iterations": 1000, "salt": "irsyauM="},
        }
    },
    "tokens": {},
    "segments": {
        "0": {
            "type": "crypt", "offset": "16777216", "size": "dynamic", "iv_tweak": "0",
            "encryption": "aes-xts-plain64", "sector_size": 4096,
        }
    },
    "digests": {
        "0": {
            "type": "pbkdf2", "keyslots": ["0"], "segments": ["0"], "hash": "sha256", "iterations": 1000,
            "salt": "zRijPy4=", "digest": "ZHsMVr8=",
        }
    },
    "config": {"json_size": "12288", "keyslots_size": "16744448"},
}  # fmt: skip


def script(name: str, folder: Path = FOLDER) -> Any:
    """A script of the image's build as a module."""
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def packed(*members: tarfile.TarInfo, **files: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in members:
            archive.addfile(member)
    return stream.getvalue()


def parsed(test_only: bool = False, **changes: bytes) -> configuration.Configuration:
    files = {name: content for name, content in (FILES | changes).items() if content}
    return configuration.parse(packed(**files), files, test_only=test_only)


def test_a_disk_is_found_by_its_serial_number(tmp_path: Path) -> None:
    for name, serial in (("vda", "state\n"), ("vdb", "configuration\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "serial").write_text(serial)
    (tmp_path / "vdc").mkdir()
    assert disks.find("configuration", tmp_path, Path("/dev")) == Path("/dev/vdb")
    assert disks.find("results", tmp_path, Path("/dev")) is None


def test_what_is_written_to_a_disk_comes_out_of_it_as_a_tar_file(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(2**20))
    disks.write(disk, {"model": b"m" * 1000, "record": b""})
    assert disks.unpack(disks.read(disk)) == {"model": b"m" * 1000, "record": b""}
    assert disk.stat().st_size == 2**20
    with pytest.raises(UserError, match="too few"):
        disks.write(disk, {"model": bytes(2**20)})


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_tar_file_of_the_host_holds_plain_files_alone(kind: bytes) -> None:
    member = tarfile.TarInfo("plan.json")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(UserError, match="no plain file"):
        disks.unpack(packed(member))


@pytest.mark.parametrize("name", ["/etc/passwd", "../plan.json", "keys/../../x"])
def test_a_tar_file_of_the_host_names_nothing_outside(name: str) -> None:
    with pytest.raises(UserError, match="no plain file"):
        disks.unpack(packed(**{name: b""}))


def test_what_is_no_tar_file_or_holds_a_name_twice_is_refused() -> None:
    with pytest.raises(UserError, match="not a tar file"):
        disks.unpack(b"\x01" * 10240)
    twice = packed(**{"plan.json": b"1"})[:1024] + packed(**{"plan.json": b"2"})
    with pytest.raises(UserError, match="twice"):
        disks.unpack(twice)


def test_a_configuration_says_where_to_listen_and_who_takes_part(tmp_path: Path) -> None:
    held = parsed(**{"aggregator.toml": SETTINGS + b"round_deadline = 30\nmin_sites = 3\n"})
    assert str(held.settings.interface.ip) == "10.0.2.15"
    assert (held.settings.min_sites, held.settings.round_deadline) == (3, 30.0)
    enrol([Site("north", 6, 1.0)], None, state=tmp_path / "state", outdir=tmp_path / "out")
    (site,) = read_enrolment(tmp_path / "out" / "aggregator" / "enrolment.json")
    (tmp_path / "keys").mkdir()
    (tmp_path / "sites.csv").write_text("site,declared_patients,weight\nnorth,6,1\n")
    with pytest.raises(UserError, match=r"lacks keys/north\.pub"):
        configuration.enrolment(tmp_path)
    (tmp_path / "keys" / "north.pub").write_text(site.public_key)
    assert configuration.enrolment(tmp_path) == [site]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("plan.json", b"", "lacks plan.json"),
        ("server.key", b"x", "holds server.key"),
        ("keys/.pub", b"x", "holds keys/.pub"),
        ("keys/a/b.pub", b"x", "holds keys/a/b.pub"),
        ("emulator/ark.key", b"x", "holds emulator/ark.key"),
        ("aggregator.toml", b"address = 1", "not a str"),
        ("aggregator.toml", b'address = "10.0.2.15/99"', "not a valid netmask"),
        ("aggregator.toml", b'address = "10.0.2.15/24"\ngateway = "here"', "here"),
        ("aggregator.toml", b'address = "10.0.2.15/24"\nport = 22', "port 22"),
        ("aggregator.toml", b'address = "10.0.2.15/24"\nmin_sites = true', "min_sites = True is not a int"),
        ("aggregator.toml", b'address = "10.0.2.15/24"\nnames = "a"', "not a list"),
        ("aggregator.toml", b'address = "10.0.2.15/24"\nevidence = ""', "no setting is called evidence"),
        ("aggregator.toml", b"port = 9092", "address"),
        ("aggregator.toml", b"\xff", "aggregator.toml"),
    ],
)
def test_a_configuration_with_anything_amiss_is_refused(name: str, content: bytes, problem: str) -> None:
    with pytest.raises(UserError) as refusal:
        parsed(**{name: content})
    assert problem in str(refusal.value)


def test_an_emulators_keys_are_for_test_only_machines() -> None:
    assert "emulator/ark.key" in parsed(test_only=True, **{"emulator/ark.key": b"x"}).files


def test_only_the_configuration_that_the_vm_was_launched_for_is_used() -> None:
    held = parsed()
    content = packed(**FILES)
    assert held.digest == hashlib.sha256(content).digest()
    launched = Emulator(authority(), host_data=held.digest).report(REPORT_DATA)
    configuration.check_bound(held, launched)
    for host_data in (bytes(32), hashlib.sha256(content + b"\0").digest()):
        with pytest.raises(AttestationError, match="was launched with"):
            configuration.check_bound(held, Emulator(authority(), host_data=host_data).report(REPORT_DATA))


@pytest.mark.parametrize("test_only", [False, True])
def test_the_aggregators_command_has_only_options_that_it_knows(test_only: bool) -> None:
    spec = importlib.util.spec_from_file_location("aggregate", ROOT / "bin" / "aggregate.py")
    assert spec is not None
    assert spec.loader is not None
    aggregate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(aggregate)
    known = {option for parameter in aggregate.main.params for option in parameter.opts}
    line = init.command(parsed(**{"pretrained.safetensors": b"x"}), test_only)
    given = [word for word in line[2:] if word.startswith("--")]
    assert set(given) <= known
    evidence = line[line.index("--evidence") + 1]
    assert evidence.startswith("emulator:") == test_only
    assert test_only or evidence == "guest"
    line = init.command(parsed(**{"vcek.der": b"x"}), False)
    assert line[line.index("--evidence") + 1] == "guest:/run/cordon/vcek.der"
    assert line[line.index("--name") + 1] == "aggregator.example.org"


def test_the_header_that_this_image_makes_is_taken() -> None:
    volume.check_header(HEADER)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        # CVE-2025-59054: a header of the host's that encrypts nothing.
        (("segments", "0", "encryption"), "cipher_null-ecb"),
        (("keyslots", "0", "area", "encryption"), "cipher_null-ecb"),
        (("segments", "0", "type"), "linear"),
        (("segments", "0", "offset"), "0"),
        (("segments", "0", "size"), "4096"),
        (("segments", "0", "integrity"), {"type": "hmac(sha256)"}),
        (("segments", "0", "flags"), ["backup-final"]),
        (("segments", "1"), {"type": "crypt"}),
        (("keyslots", "1"), HEADER["keyslots"]["0"]),
        (("keyslots", "0", "type"), "reencrypt"),
        (("keyslots", "0", "key_size"), 1),
        (("tokens", "0"), {"type": "systemd-tpm2"}),
        (("config", "requirements"), {"mandatory": ["online-reencrypt-v2"]}),
        (("digests", "0", "segments"), []),
        (("digests",), {}),
        (("segments",), None),
    ],
)
def test_a_header_of_another_make_is_refused(path: tuple[str, ...], value: object) -> None:
    header = copy.deepcopy(HEADER)
    place = header
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(volume.VolumeError, match="is not this image's"):
        volume.check_header(header)


def test_a_disk_that_was_written_to_is_not_taken_for_new(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as handle:
        handle.truncate(volume.HEADER_BYTES + 4096)
    assert volume.is_empty(disk)
    with disk.open("rb+") as handle:
        handle.seek(volume.HEADER_BYTES - 1)
        handle.write(b"\x01")
    assert not volume.is_empty(disk)
    with pytest.raises(volume.VolumeError, match="neither empty nor a state's volume"):
        volume.open_volume(disk, bytes(32), tmp_path / "header")


def test_the_structures_of_the_network_are_those_of_linux() -> None:
    asked = network.request("eth0", network.sockaddr("10.0.2.15"))
    assert len(asked) == 40
    assert asked[:4] == b"eth0"
    assert asked[16:24] == struct.pack("=H", 2) + bytes(2) + bytes((10, 0, 2, 15))
    route = network.route("10.0.2.2")
    assert len(route) == 120
    # struct rtentry: destination, gateway and mask behind eight bytes, then the flags.
    assert route[24:32] == struct.pack("=H", 2) + bytes(2) + bytes((10, 0, 2, 2))
    assert route[8:24] == route[40:56] == struct.pack("=H", 2) + bytes(14)
    assert struct.unpack_from("=H", route, 56) == (0x1 | 0x2,)


def test_every_package_of_the_image_is_pinned_with_its_hash() -> None:
    pinned = script("pinned", FOLDER.parent)
    lock = (ROOT / "requirements.lock").read_text()
    names = pinned.listed((FOLDER / "packages.txt").read_text())
    entries = list(pinned.pinned(lock, names))
    assert len(entries) == len(names) > 40
    assert all(
        entry.startswith(f"{name}==") and entry.count("==") == 1
        for name, entry in zip(names, entries, strict=True)
    )
    assert not {"torch", "pyarrow", "pysam", "pip"} & {*names}
    with pytest.raises(KeyError, match="left-pad"):
        list(pinned.pinned(lock, ["left-pad"]))
    with pytest.raises(KeyError, match="has no hash"):
        list(pinned.pinned("six==1.0\n", ["six"]))


def tree(root: Path, names: list[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "link").symlink_to("usr/a")
    return root


def test_the_initrd_depends_on_its_content_alone(tmp_path: Path) -> None:
    initrd = script("initrd")
    names = ["usr/a", "usr/b/c", "etc/d"]
    one, other = tree(tmp_path / "one", names), tree(tmp_path / "other", names[::-1])
    os.utime(other / "usr" / "a", (1, 1))
    content = b"".join(initrd.archive(one))
    assert content == b"".join(initrd.archive(other))
    (other / "usr" / "a").chmod(0o755)
    assert content != b"".join(initrd.archive(other))
    if shutil.which("cpio"):
        listed = subprocess.run(["cpio", "-t", "--quiet"], input=content, capture_output=True, check=True)
        found = listed.stdout.decode().splitlines()
        assert found == ["etc", "etc/d", "link", "usr", "usr/a", "usr/b", "usr/b/c", "dev/console"]


def test_the_root_file_system_gets_the_libraries_and_no_privileges(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "program"
    program.parent.mkdir()
    shutil.copyfile(os.path.realpath(sys.executable), program)
    program.chmod(0o4777)
    script("rootfs").assemble(root := tmp_path / "root", [program])
    copied = root / program.relative_to("/")
    assert copied.stat().st_mode & 0o7777 == 0o755
    assert list(root.rglob("libc.so.6"))
    assert (root / "lib64").readlink() == Path("usr/lib64")


def test_a_vcek_that_was_given_stands_in_for_a_host_that_gives_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cordon.attestation import guest
    from cordon.federation.gate import app

    emulator = Emulator(authority())
    asked: list[tuple[bytes, ...]] = []

    def collect(report_data: bytes, *, certificates: tuple[bytes, ...]) -> Any:
        asked.append(certificates)
        return emulator.collect(report_data)

    monkeypatch.setattr(guest, "collect", collect)
    (tmp_path / "vcek.der").write_bytes(b"certificate")
    for provider in (f"guest:{tmp_path / 'vcek.der'}", "guest"):
        made = app.evidence_source(provider, b"key")
        assert made is not None
        assert "sev-snp" in made(bytes(32))
    assert asked == [(b"certificate",), ()]
