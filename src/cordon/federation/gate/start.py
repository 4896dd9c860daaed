"""A SuperLink that is reached through a gate alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from cordon.federation.flower import processes
from cordon.federation.flower.bounds import ANY, WORDS, Bound
from cordon.federation.flower.tasks import Tasks, noticing_loss, register, until
from cordon.federation.gate.limits import Bounds

# What the gate is told of an operator's credentials, where they are there.
GIVEN = {"--certificate": "server.crt", "--key": "server.key"}


@contextmanager
def gated_superlink(
    credentials: Path, host: str, port: int, workdir: Path, *, enrolment: Path | None = None,
    evidence: str = "", names: Sequence[str] = (), keys: Sequence[str] = (), answers: Bound = ANY,
) -> Iterator[Tasks]:  # fmt: skip
    """A SuperLink on loopback behind a gate at ``host:port``, both ready; they end with the block.

    It knows the SuperNodes' ``keys`` (PEM) before the gate opens: one whose key is not known yet is turned
    away, and ends. A site's answer may come to ``answers``, and what is more is taken by neither.

    The gate shows ``credentials``' server.crt. Where there is none it makes a key of its own, for
    ``names`` or else ``host``, and leaves the certificate that sites must pin in ``workdir/gate.crt``.
    ``evidence`` says what attests the key: ``guest``, ``emulator:FOLDER``, or nothing. Where an
    ``enrolment`` is given, only the keys in it come in.
    """
    import httpx

    from cordon.federation.gate.listener import bound

    bound(host, port).close()
    shown = workdir / "gate.crt"
    shown.unlink(missing_ok=True)
    with processes.superlink(workdir, answers) as (tasks, certificate, link):
        with noticing_loss(lambda: link.exit_status() is None, httpx.HTTPError):
            register(tasks, keys)
        command = [
            processes.PYTHON, "-m", "cordon.federation.gate.app", "--address", f"{host}:{port}",
            "--upstream", f"https://{tasks.address}", "--upstream_certificate", str(certificate),
            "--certificate_output", str(shown), "--evidence", evidence,
            "--max_body", str(min(Bounds.body, answers.bytes + WORDS)),
        ]  # fmt: skip
        for name in names:
            command += ["--name", name]
        if enrolment is not None:
            command += ["--enrolment", str(enrolment)]
        for option, file in GIVEN.items():
            if (credentials / file).exists():
                command += [option, str(credentials / file)]
        log = workdir / "gate.log"
        with processes.Process(command, workdir / "flower", log) as gate, closing(tasks):
            until(
                shown.exists,
                f"the gate did not start. See {log}.",
                alive=lambda: gate.exit_status() is None,
            )
            tasks.alive = lambda: link.exit_status() is None and gate.exit_status() is None
            yield tasks
