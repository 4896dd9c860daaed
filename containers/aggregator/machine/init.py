"""The VM's first process: prepare the machine, run the aggregator as its own user, end the machine.

Nothing else runs in it, and nothing in it reads the console. The kernel's command line is measured:
``cordon.test_only`` there makes a machine without an SEV-SNP processor, whose evidence is the emulator's.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cordon.errors import CordonError, UserError
from cordon.federation.plan import write_enrolment
from machine import disks, linux, network, volume
from machine.configuration import VCEK, Configuration, check_bound, enrolment, parse

USER = 65532
STATE = Path("/var/lib/cordon")
HELD = Path("/run/cordon")
SEV_GUEST = Path("/dev/sev-guest")
MODULES = Path("/usr/lib/cordon/modules")
# A module for hardware that is not here says so; the machine goes on without.
OPTIONAL = frozenset({"aesni-intel", "sev-guest"})
TEST_ONLY_KEY = b"TEST ONLY: no SEV-SNP processor!"
RESTARTS, PAUSE = 3, 5.0
AGGREGATOR = ("/usr/bin/python3.11", "/usr/lib/cordon/aggregate.py")
LEDGER = ("/usr/bin/python3.11", "-m", "cordon.cli", "ledger", "export", "state/ledger.sqlite")
RESULTS = ("model.safetensors", "federation.json", "aggregator.ledger.jsonl")


def say(line: str) -> None:
    print(f"cordon: {line}", flush=True)


def main() -> None:
    """Run to the end, whatever comes, and switch the machine off."""
    try:
        ended = run()
        say(f"the aggregator ended with status {ended}")
    except CordonError as error:
        say(f"error: {error}")
    except Exception:
        say(f"failed: {traceback.format_exc()}")
    finally:
        linux.power_off()


def run() -> int:
    prepare()
    test_only = "cordon.test_only" in linux.arguments()
    if test_only:
        say("TEST ONLY: state and evidence of this machine protect and prove nothing")
    configuration = configured(test_only)
    interface = network.bring_up(configuration.settings.interface, configuration.settings.gateway)
    say(f"network: {interface} has {configuration.settings.address}")
    open_state(test_only)
    provide(configuration, test_only)
    linux.read_only(Path("/"))
    ended = aggregate(configuration, test_only)
    if ended == 0:
        hand_out()
    end_others()
    linux.unmount(STATE)
    volume.close()
    return ended


def prepare() -> None:
    """Mount what Linux itself provides, and load the modules, dependencies first."""
    hardened = linux.MS_NOSUID | linux.MS_NOEXEC | linux.MS_NODEV
    linux.mount("proc", Path("/proc"), "proc", hardened)
    linux.mount("sys", Path("/sys"), "sysfs", hardened)
    linux.mount("dev", Path("/dev"), "devtmpfs", linux.MS_NOSUID | linux.MS_NOEXEC)
    linux.mount("run", Path("/run"), "tmpfs", hardened, "mode=755")
    linux.mount("tmp", Path("/tmp"), "tmpfs", hardened, "mode=1777,size=25%")
    linux.mount("shm", Path("/dev/shm"), "tmpfs", hardened, "mode=1777,size=25%")
    HELD.mkdir(mode=0o755)
    for path in sorted(MODULES.glob("*.ko")):
        try:
            linux.load_module(path)
        except OSError as error:
            if path.stem.partition(".")[2] not in OPTIONAL:
                raise
            say(str(error))
    network.host_name("cordon-aggregator")


def configured(test_only: bool) -> Configuration:
    """The configuration, once it is known to be the one that the machine was launched for."""
    disk = disks.find("configuration")
    if disk is None:
        raise UserError("there is no disk with the serial number configuration. Attach the tar file as one.")
    content = disks.read(disk)
    configuration = parse(content, disks.unpack(content), test_only=test_only)
    say(f"configuration: SHA-256 {configuration.digest.hex()}")
    if not test_only:
        from cordon.attestation.guest import collect

        vcek = configuration.files.get(VCEK)
        check_bound(configuration, collect(bytes(64), certificates=(vcek,) if vcek else ()).report)
    return configuration


def open_state(test_only: bool) -> None:
    """The encrypted state at STATE, its owner the aggregator's user."""
    disk = disks.find("state")
    if disk is None:
        raise UserError("there is no disk with the serial number state. Attach one, empty at first.")
    if test_only:
        key = TEST_ONLY_KEY
    else:
        from cordon.attestation.guest import derived_key

        key = derived_key()
    opened = volume.open_volume(disk, key, HELD / "state.header")
    hardened = linux.MS_NOSUID | linux.MS_NOEXEC | linux.MS_NODEV
    linux.mount(str(opened), STATE, "ext4", hardened)
    os.chown(STATE, USER, USER)
    STATE.chmod(0o700)
    held = "goes on with the ledger that it holds" if (STATE / "state").exists() else "is new"
    say(f"state: encrypted with {volume.CIPHER}, {held}")


def provide(configuration: Configuration, test_only: bool) -> None:
    """Let the aggregator's user read the configuration, and ask the processor for reports."""
    for name, content in configuration.files.items():
        path = HELD / name
        path.parent.mkdir(mode=0o755, exist_ok=True)
        path.write_bytes(content)
        os.chown(path, USER, USER)
        path.chmod(0o400)
    # Readable for the aggregator as it is: public keys and declarations.
    write_enrolment(enrolment(HELD), HELD / "enrolment.json")
    if not test_only:
        os.chown(SEV_GUEST, USER, USER)
        SEV_GUEST.chmod(0o600)


def command(configuration: Configuration, test_only: bool) -> list[str]:
    """The aggregator's command line."""
    settings = configuration.settings
    evidence = f"guest:{HELD}/{VCEK}" if VCEK in configuration.files else "guest"
    line = [
        *AGGREGATOR, "--plan", f"{HELD}/plan.json", "--credentials", str(HELD),
        "--address", f"0.0.0.0:{settings.port}", "--state", "state",
        "--evidence", f"emulator:{HELD}/emulator" if test_only else evidence,
        "--min_sites", str(settings.min_sites), "--join_deadline", str(settings.join_deadline),
        "--round_deadline", str(settings.round_deadline), "--ban_after", str(settings.ban_after),
        "--output", RESULTS[0], "--record", RESULTS[1],
    ]  # fmt: skip
    for name in settings.names or (str(settings.interface.ip),):
        line += ["--name", name]
    if "pretrained.safetensors" in configuration.files:
        line += ["--pretrained", f"{HELD}/pretrained.safetensors"]
    return line


def aggregate(configuration: Configuration, test_only: bool) -> int:
    """The aggregator's exit status; where it was killed, it goes on from its checkpoint, a few times."""
    for _ in range(RESTARTS + 1):
        ended = as_user(command(configuration, test_only))
        if ended >= 0:
            break
        say(f"the aggregator was ended by signal {-ended}; starting it again")
        time.sleep(PAUSE)
    return ended


ENVIRONMENT = {
    "PATH": "/usr/bin", "HOME": str(STATE), "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}  # fmt: skip


def as_user(line: list[str], environment: Mapping[str, str] = ENVIRONMENT) -> int:
    """Run a command as the aggregator's user in STATE, and reap every process that ends meanwhile.

    Its exit status, or the negative number of the signal that ended it.
    """
    child = os.fork()
    if child == 0:
        try:
            os.chdir(STATE)
            os.setgroups([])
            os.setgid(USER)
            os.setuid(USER)
            linux.never_gain_privileges()
            os.umask(0o077)
            os.execve(line[0], line, dict(environment))
        finally:
            traceback.print_exc()
            os._exit(127)
    while True:
        ended, status = os.wait()
        if ended == child:
            return os.waitstatus_to_exitcode(status)


def end_others() -> None:
    """End what the aggregator left behind, so that its state can be closed."""
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with suppress(ChildProcessError):
        while True:
            os.wait()


def hand_out() -> None:
    """Copy what a run's end makes public to the results' disk, where there is one."""
    disk = disks.find("results")
    if disk is None:
        return
    as_user([*LEDGER, "--output", RESULTS[2]])
    disks.write(disk, {name: (STATE / name).read_bytes() for name in RESULTS if (STATE / name).exists()})
    say(f"results: {', '.join(RESULTS)} are on the disk")


def start() -> None:
    """What /init calls."""
    # The first process has no default for this: the machine ends when its aggregator does.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdin.close()
    main()
