"""A `policy.toml` to start from, and the launch measurement that it pins."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cordon.attestation.snp_report import TCB_LAYOUT, Report, tcb_parts
from cordon.errors import UserError

# Zero accepts any firmware: to be raised to what the provider's hosts report.
UNKNOWN_TCB = dict.fromkeys(("fmc", "bootloader", "tee", "snp", "microcode"), 0)

TEMPLATE = """\
# Which confidential VMs may be the aggregator of this consortium. Every site keeps its own copy.
# A key that Cordon does not know is an error, and so are an empty list and a digest of the wrong length.

# When this policy holds; leave out for always.
# not_before = 2026-01-01T00:00:00Z
# not_after = 2027-01-01T00:00:00Z

# true accepts an emulator's TEST ONLY root, and no other: for tests and demos alone.
test_only = false

[sev_snp]
# Roots: amd-milan, amd-genoa, amd-turin (they come with Cordon), sha256:HEX of a root's public key, or
# the path of a PEM file beside this one.
roots = [{roots}]

# Launch measurements (SHA-384, 96 digits) of the images that may run.
measurements = [{measurements}]

# A guest that its host may debug, or that a migration agent may move, protects nothing.
debug = false
migration_agent = false

# Highest VM privilege level that may have asked for the report: 0, unless a paravisor sits at 0.
max_vmpl = 0
minimum_guest_svn = 0

# Digests (SHA-384) of the keys that signed the guest's ID block; leave out to accept any or none.
# id_key_digests = []
# author_key_digests = []

# What the launch set; leave out to accept anything.
# family_id = "32 digits"
# image_id = "32 digits"
# host_data = "64 digits"

# What the host's hardware may have switched on: AMD's names, and bit8 to bit63 for what has none yet. Leave
# out to accept what AMD documents for the report's version.
# platform_info = ["smt", "tsme", "ecc", "rapl_disabled", "ciphertext_hiding_dram", "alias_check_complete",
#                  "iommu_write_safe", "tio"]
# What it must have switched on, and the numbers of mitigations that its firmware must have (from version 5).
# platform_info_required = ["alias_check_complete"]
# mitigations = [0, 1]
# What newer firmware reports and this version of Cordon cannot judge, in the words of the refusal.
# unknown = ["guest_policy bit 26"]

# Providers to which AMD leased a key (VLEK); leave out to accept any.
# providers = ["..."]

# AMD's revocation lists, paths beside this file; with any, one must be current when a site connects.
# crls = ["milan.crl"]

# The least security version of each part of the firmware, by product; a product without is refused.
{minimum_tcb}
# [intel]
# tcb_statuses = ["UpToDate"]
# mrtd = ["96 digits"]       # TDX: firmware, with
# rtmr1 = ["96 digits"]      # kernel, and
# rtmr2 = ["96 digits"]      # command line and initrd; rtmr0 and rtmr3 too, where they are known
# mrenclave = ["64 digits"]  # SGX: the enclave, or its signer:
# mrsigner = ["64 digits"]   # with isv_prod_id and minimum_isv_svn
# isv_prod_id = 0
# minimum_isv_svn = 0
# dynamic_platform = false   # true where the provider's platforms are of several packages,
# cached_keys = false        # keep keys at Intel's service, or
# smt = false                # run hyperthreads: most clouds do all three
"""
DEFAULT_ROOTS = ("amd-milan", "amd-genoa", "amd-turin")


def template(measurement: str | None = None, report: bytes | None = None, product: str | None = None) -> str:
    """`policy.toml` with comments; of ``report`` and ``product``, its measurement and its TCB.

    A report is not verified here: what it says is for the operator to compare. ``measurement``
    (96 hexadecimal digits) goes before the report's own.
    """
    roots: tuple[str, ...] = DEFAULT_ROOTS
    minimum: Mapping[str, Mapping[str, int]] = {
        name: {part: UNKNOWN_TCB[part] for part in layout} for name, layout in TCB_LAYOUT.items()
    }
    if report is not None:
        held = Report.parse(report)
        name = held.product or product
        if name not in TCB_LAYOUT:
            raise UserError("A report of version 2 does not name its processor. Give --product.")
        roots, minimum = (f"amd-{name}",), {name: tcb_parts(held.reported_tcb, name)}
        measurement = measurement or held.measurement.hex()
    tables = []
    for name, parts in minimum.items():
        lines = [f"[sev_snp.minimum_tcb.{name}]", *(f"{part} = {value}" for part, value in parts.items())]
        tables.append("\n".join(lines) + "\n")
    return TEMPLATE.format(
        roots=", ".join(f'"{name}"' for name in roots),
        measurements=f'"{measurement}"' if measurement else "",
        minimum_tcb="\n".join(tables),
    )


def launch_measurement(
    *, ovmf: Path, kernel: Path | None, initrd: Path | None, append: str, vcpus: int, vcpu_type: str,
    vmm: str = "QEMU", guest_features: int = 1,
) -> str:  # fmt: skip
    """The SEV-SNP launch measurement (96 hexadecimal digits) of a VM, by `sev-snp-measure`.

    Kernel, initrd and command line are measured where the hypervisor boots them directly with kernel
    hashes; otherwise the firmware alone is. Raises UserError where the firmware cannot measure them.
    """
    from sevsnpmeasure import guest, vcpu_types  # type: ignore[import-untyped]
    from sevsnpmeasure.sev_mode import SevMode  # type: ignore[import-untyped]
    from sevsnpmeasure.vmm_types import VMMType  # type: ignore[import-untyped]

    if vcpu_type not in vcpu_types.CPU_SIGS:
        raise UserError(f"{vcpu_type}: is no type of vCPU. Known are {', '.join(vcpu_types.CPU_SIGS)}.")
    if kernel is None and (initrd or append):
        raise UserError("--initrd and --append are measured with a kernel alone. Give --kernel.")
    try:
        digest = guest.calc_launch_digest(
            SevMode.SEV_SNP, vcpus, vcpu_types.CPU_SIGS[vcpu_type], str(ovmf),
            str(kernel) if kernel else None, str(initrd) if initrd else None, append, guest_features,
            vmm_type=VMMType[vmm],
        )  # fmt: skip
    except (ValueError, RuntimeError, AssertionError, IndexError, KeyError) as error:
        raise UserError(
            f"{ovmf}: cannot be measured: {error}. Give an OVMF built for SEV-SNP, "
            "and with kernel hashes where there is a kernel."
        ) from None
    return bytes(digest).hex()
