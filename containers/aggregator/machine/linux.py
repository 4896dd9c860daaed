"""System calls that Python has no name for: mounting, kernel modules, power."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
POWER_OFF = 0x4321FEDC
MAGIC = (0xFEE1DEAD, 672274793)
PR_SET_NO_NEW_PRIVS = 38
SYS_FINIT_MODULE = 313  # x86-64

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: Path, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2); OSError where it fails."""
    target.mkdir(parents=True, exist_ok=True)
    arguments = (source.encode(), bytes(target), kind.encode(), ctypes.c_ulong(flags), options.encode())
    _checked(_libc.mount(*arguments), f"mounting {source} at {target}")


def read_only(target: Path) -> None:
    """Mount ``target`` anew, read-only."""
    arguments = (None, bytes(target), None, ctypes.c_ulong(MS_REMOUNT | MS_RDONLY), None)
    _checked(_libc.mount(*arguments), f"mounting {target} read-only")


def unmount(target: Path) -> None:
    _checked(_libc.umount2(bytes(target), 0), f"unmounting {target}")


def load_module(path: Path) -> None:
    """finit_module(2) of an uncompressed module."""
    with path.open("rb") as handle:
        _checked(
            _libc.syscall(SYS_FINIT_MODULE, handle.fileno(), b"", 0), f"loading the kernel module {path.stem}"
        )


def never_gain_privileges() -> None:
    """From here on no program that this process starts has more rights than it."""
    _checked(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def power_off() -> None:
    os.sync()
    _libc.reboot(ctypes.c_int(POWER_OFF))


def arguments() -> dict[str, str]:
    """The kernel's command line, which is measured: ``name=value``, or a name alone."""
    words = (word.partition("=") for word in Path("/proc/cmdline").read_text().split())
    return {name: value for name, _, value in words}
