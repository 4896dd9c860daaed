"""Tests of cordon.attestation.policy and .template."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from attestation_lab import NOW, REPORT_DATA, authority, firmware, needs_real, virtee
from cordon.attestation.certificates import amd_roots, fingerprint
from cordon.attestation.emulator import MEASUREMENT, Emulator
from cordon.attestation.policy import Policy
from cordon.attestation.template import launch_measurement, template
from cordon.attestation.verify import verify
from cordon.errors import AttestationError, UserError

DIGEST = '"' + "ab" * 48 + '"'
SHORT = '"' + "ab" * 32 + '"'
GOOD = f"""
[sev_snp]
roots = ["amd-milan"]
measurements = [{DIGEST}]
minimum_tcb.milan = {{bootloader = 3, tee = 0, snp = 8, microcode = 115}}
"""


def read(folder: Path, text: str) -> Policy:
    path = folder / "policy.toml"
    path.write_text(text)
    return Policy.read(path)


def test_a_policy_is_read(tmp_path: Path) -> None:
    policy = read(tmp_path, "not_after = 2027-01-01T00:00:00Z\n" + GOOD)
    held = policy.sev_snp
    assert held is not None
    assert held.roots == {key: name for key, name in amd_roots().items() if name == "amd-milan"}
    assert held.measurements == {b"\xab" * 48}
    assert held.minimum_tcb == {"milan": {"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115}}
    assert (held.debug, held.migration_agent, held.max_vmpl, policy.test_only) == (False, False, 0, False)
    assert policy.not_after == datetime(2027, 1, 1, tzinfo=UTC)


def test_the_fingerprints_of_amds_roots_are_the_published_keys() -> None:
    # SHA-256 of the SubjectPublicKeyInfo of the ARKs at AMD's key distribution service, by openssl.
    assert amd_roots() == {
        "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9": "amd-milan",
        "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831": "amd-genoa",
        "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08": "amd-turin",
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "pins nothing"),
        ("no toml", "cannot be read as TOML"),
        ("x = " + "[" * 5000, "cannot be read as TOML"),
        ("#" * 300_000, "is larger than"),
        ("more = 1\n" + GOOD, "unknown: more"),
        (GOOD + "dbug = true", "unknown: sev_snp.dbug"),
        (GOOD + 'debug = "yes"', "sev_snp.debug must be true or false"),
        (GOOD + "max_vmpl = 4", "sev_snp.max_vmpl must be a whole number from 0 to 3"),
        (GOOD + "max_vmpl = true", "sev_snp.max_vmpl must be a whole number"),
        (GOOD + "minimum_guest_svn = -1", "minimum_guest_svn must be a whole number"),
        (GOOD + f"host_data = {DIGEST}", "host_data must be 64 hexadecimal digits"),
        (GOOD + "crls = ['none.crl']", "sev_snp.crls"),
        (GOOD.replace(DIGEST, SHORT), "sev_snp.measurements must be 96 hexadecimal digits"),
        (GOOD.replace(DIGEST, '"' + "ab " * 32 + '"'), "sev_snp.measurements must be 96 hexadecimal digits"),
        (GOOD.replace(DIGEST, "7"), "sev_snp.measurements must be a list of texts"),
        (GOOD.replace(f"[{DIGEST}]", "[]"), "sev_snp.measurements is an empty list"),
        (GOOD.replace('"amd-milan"', ""), "sev_snp.roots is an empty list"),
        (GOOD.replace("amd-milan", "amd-rome"), "none of amd-milan, amd-genoa, amd-turin"),
        (GOOD.replace("amd-milan", "none.pem"), "sev_snp.roots"),
        (GOOD.replace("amd-milan", "sha256:12"), "sev_snp.roots must be 64 hexadecimal digits"),
        (GOOD.replace("tcb.milan", "tcb.rome"), "sev_snp.minimum_tcb must have a table"),
        (GOOD.replace("tee = 0, ", ""), "for milan must give each of bootloader, tee, snp, microcode"),
        (GOOD.replace("tee = 0", "tee = 0, fmc = 1"), "for milan must give each of"),
        (GOOD.replace("= 115", "= 256"), "whole number from 0 to 255"),
        ("not_after = 2027\n" + GOOD, "not_after must be a date and time"),
        ("test_only = true\n" + GOOD, "test_only together with AMD's root amd-milan"),
        ("test_only = true\n[intel]\nmrenclave = [" + SHORT + "]", "test_only goes with an emulator's root"),
        ("sev_snp = 7", "sev_snp must be a table"),
        ("[intel]", "intel pins no code"),
        (f"[intel]\nmrsigner = [{SHORT}]", "Give isv_prod_id"),
        (f"[intel]\nmrtd = [{DIGEST}]", "Give rtmr1 (kernel) and rtmr2"),
        (f"[intel]\nmrenclave = [{SHORT}]\ntcb_statuses = ['Revoked']", "must be some of UpToDate"),
        (f"[intel]\nmrenclave = [{SHORT}]\ntcb_statuses = []", "tcb_statuses is an empty list"),
        (GOOD.replace("minimum", "providers = []\nminimum"), "providers is an empty list"),
        (GOOD.replace("minimum", "id_key_digests = []\nminimum"), "id_key_digests is an empty list"),
        (GOOD.replace("minimum", "crls = []\nminimum"), "crls is an empty list"),
        (GOOD.replace("minimum", "platform_info = []\nminimum"), "platform_info is an empty list"),
        (GOOD.replace("minimum", 'platform_info = ["SMT"]\nminimum'), "'SMT', which is none of smt, tsme"),
        (GOOD.replace("minimum", "mitigations = [64]\nminimum"), "must be a whole number from 0 to 63"),
        (GOOD.replace("minimum", "mitigations = [true]\nminimum"), "must be a list of whole numbers"),
        (f"[intel]\nmrenclave = [{SHORT}]\nmrsigner = []", "mrsigner is an empty list"),
    ],
)
def test_a_wrong_policy_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path, text)
    assert reason in str(caught.value)
    assert "policy.toml" in str(caught.value)


def test_test_only_refuses_amds_root_by_its_fingerprint_too(tmp_path: Path) -> None:
    for key in amd_roots():
        with pytest.raises(UserError, match="test_only together with AMD's root"):
            read(tmp_path, "test_only = true\n" + GOOD.replace("amd-milan", f"sha256:{key}"))


def test_a_root_may_be_a_file_or_a_fingerprint(tmp_path: Path) -> None:
    emulator = Emulator(authority())
    (tmp_path / "ark.pem").write_bytes(emulator.authority.ark.public_bytes(Encoding.PEM))
    path = emulator.write_policy(tmp_path / "policy.toml", roots='["ark.pem"]')
    found = verify(emulator.collect(REPORT_DATA), Policy.read(path), report_data=REPORT_DATA)
    assert found.root == "ark.pem, TEST ONLY"
    path.write_text(path.read_text().replace("ark.pem", f"sha256:{fingerprint(emulator.authority.ark)}"))
    assert verify(emulator.collect(REPORT_DATA), Policy.read(path), report_data=None).test_only
    path.write_text(path.read_text().replace("test_only = true", ""))
    with pytest.raises(AttestationError, match="TEST ONLY"):
        verify(emulator.collect(REPORT_DATA), Policy.read(path), report_data=None)


def test_an_intel_policy_is_read(tmp_path: Path) -> None:
    text = f"[intel]\nmrtd = [{DIGEST}]\nrtmr1 = [{DIGEST}]\nrtmr2 = [{DIGEST}]\nsmt = true"
    held = read(tmp_path, text).intel
    assert held is not None
    assert (held.tcb_statuses, held.smt, held.dynamic_platform) == (("UpToDate",), True, False)
    assert set(held.rtmrs) == {"rtmr1", "rtmr2"}


def test_the_template_pins_nothing_until_it_is_filled_in(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"sev_snp\.measurements is an empty list"):
        read(tmp_path, template())
    held = read(tmp_path, template(MEASUREMENT.hex())).sev_snp
    assert held is not None
    assert set(held.minimum_tcb) == {"milan", "genoa", "turin"}
    assert held.measurements == {MEASUREMENT}


@needs_real
def test_the_template_of_a_report_accepts_that_report(tmp_path: Path) -> None:
    evidence = virtee()
    policy = read(tmp_path, template(report=evidence.report, product="milan"))
    verify(evidence, policy, report_data=None, now=NOW)
    with pytest.raises(UserError, match="does not name its processor"):
        template(report=evidence.report)


def test_the_commented_keys_of_the_template_are_known(tmp_path: Path) -> None:
    """Every commented key, uncommented, is one that the reader knows."""
    known = {}
    for line in template(MEASUREMENT.hex()).splitlines():
        name, sign, _ = line.removeprefix("# ").partition(" = ")
        if line.startswith("# ") and sign and name.replace("_", "").isalnum() and name.islower():
            known[name] = line
    assert len(known) >= 17
    for name in known:
        section = {"not_before": "", "not_after": ""}.get(name)
        intel = name in template().split("# [intel]")[1]
        text = f"{name} = []\n" if section == "" else f"[{'intel' if intel else 'sev_snp'}]\n{name} = 1e9\n"
        assert tomllib.loads(text)
        with pytest.raises(UserError) as caught:
            read(tmp_path, text)
        assert ": unknown: " not in str(caught.value)


def test_the_launch_measurement_is_that_of_sev_snp_measure(tmp_path: Path) -> None:
    ovmf, kernel, initrd = firmware(tmp_path / "OVMF.fd"), tmp_path / "kernel", tmp_path / "initrd"
    kernel.write_bytes(b"kernel")
    initrd.write_bytes(b"initrd")
    given = {"ovmf": ovmf, "kernel": kernel, "initrd": initrd, "append": "console=ttyS0", "vcpus": 2}
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    code = "import sys; from sevsnpmeasure.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "--mode", "snp", "--vcpu-type", "EPYC-Milan", *words]
    expected = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    measured = launch_measurement(**given, vcpu_type="EPYC-Milan")  # type: ignore[arg-type]

    assert measured == expected
    assert len(measured) == 96
    for change in (
        {"append": "console=ttyS1"},
        {"vcpus": 3},
        {"kernel": initrd},
        {"vcpu_type": "EPYC-Genoa"},
    ):
        assert launch_measurement(**({"vcpu_type": "EPYC-Milan"} | given | change)) != expected  # type: ignore[arg-type]


def test_firmware_that_cannot_measure_is_refused(tmp_path: Path) -> None:
    plain = tmp_path / "OVMF.fd"
    plain.write_bytes(bytes(65536))
    given = {"kernel": None, "initrd": None, "append": "", "vcpus": 1}
    with pytest.raises(UserError, match="cannot be measured"):
        launch_measurement(ovmf=plain, vcpu_type="EPYC-v4", **given)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no type of vCPU"):
        launch_measurement(ovmf=plain, vcpu_type="6502", **given)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="Give --kernel"):
        launch_measurement(ovmf=plain, vcpu_type="EPYC-v4", **(given | {"append": "quiet"}))  # type: ignore[arg-type]
