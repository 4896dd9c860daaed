"""What verification found."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Verified:
    """The facts of verified evidence; identities and digests are hexadecimal.

    ``measurement`` is the launch measurement (SEV-SNP), MRTD (TDX) or MRENCLAVE (SGX). ``tcb`` has the
    security version of each part (SEV-SNP) or is empty (Intel, whose levels are one ``tcb_status``).
    ``chip_id`` is the chip's (SEV-SNP) or the platform's PPID (Intel). ``test_only`` says that the root
    is an emulator's: then nothing is proved about any hardware. ``platform_info`` names what the hardware has
    switched on: AMD's bits, or those of ``dynamic_platform``, ``cached_keys`` and ``smt`` that Intel
    certified. The mitigations are AMD's, None before version 5. ``unknown`` is what this version of Cordon
    cannot judge.
    """

    kind: str
    product: str
    version: int
    measurement: str
    chip_id: str
    root: str
    test_only: bool
    report_data: str
    debug: bool
    tcb: Mapping[str, int] = dataclasses.field(default_factory=dict)
    tcb_status: str = ""
    advisories: tuple[str, ...] = ()
    signer: str = ""
    provider: str = ""
    vmpl: int = 0
    migration_agent: bool = False
    guest_svn: int = 0
    id_key_digest: str = ""
    author_key_digest: str = ""
    family_id: str = ""
    image_id: str = ""
    host_data: str = ""
    registers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    platform_info: tuple[str, ...] = ()
    launch_mitigations: tuple[int, ...] | None = None
    current_mitigations: tuple[int, ...] | None = None
    unknown: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what does not apply to this kind of evidence is left out."""
        return {
            name: value for name, value in dataclasses.asdict(self).items() if value not in ("", {}, (), None)
        }
