"""Connections through a shared folder: the mailbox, a site's proxy on loopback, the relay."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from cordon.cli import main
from cordon.errors import UserError
from cordon.federation.flower.processes import free_port
from cordon.transport import connect, link, relay
from cordon.transport.connect import SharedFolderProxy
from cordon.transport.mailbox import (
    ALIVE,
    CLOSE,
    DATA,
    END,
    HEAD,
    MOST_PAYLOAD,
    OPEN,
    TO_RELAY,
    TO_SITE,
    BadMailbox,
    Frame,
    Inbox,
    Outbox,
    Session,
    frames,
    shared_folder,
)
from cordon.transport.relay import Relay

MEGABYTE = os.urandom(2**20)
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

a_frame = st.one_of(
    st.builds(Frame, st.integers(1, 2**32 - 1), st.just(DATA), st.binary(max_size=50)),
    st.builds(Frame, st.integers(1, 2**32 - 1), st.sampled_from([OPEN, CLOSE])),
    st.builds(Frame, st.just(0), st.sampled_from([ALIVE, END])),
)


@given(st.lists(a_frame, max_size=20), st.integers(0, 60))
def test_frames_are_read_as_written_and_an_unfinished_last_one_is_waited_for(written, missing):
    content = b"".join(frame.encoded() for frame in written)
    cut = content[: max(0, len(content) - missing)]
    found = list(frames(cut))
    assert found == written[: len(found)]
    assert list(frames(content)) == written
    rest = content[sum(len(frame.encoded()) for frame in found) :]
    assert found + list(frames(rest)) == written


@pytest.mark.parametrize(
    "head",
    [
        (1, 0, 0), (1, 9, 0), (0, DATA, 1), (0, OPEN, 0), (1, ALIVE, 0), (1, OPEN, 1), (1, CLOSE, 4),
        (1, DATA, MOST_PAYLOAD + 1), (0x47455420, 0x2F, 0x20485454),
    ],
)  # fmt: skip
def test_what_is_no_frame_is_refused_before_its_payload_is_awaited(head):
    with pytest.raises(BadMailbox, match="no frame"):
        list(frames(HEAD.pack(*head)))


def test_a_session_appears_whole_and_for_its_owner_alone(tmp_path):
    folder = shared_folder(tmp_path / "new" / "folder")
    session = Session.begin(folder, "north")
    assert Session.all_in(folder) == [session]
    assert session.name.startswith("north-")
    assert [oct(path.stat().st_mode & 0o777) for path in (folder, session.path)] == ["0o700", "0o700"]
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in session.path.iterdir()} == {
        TO_RELAY: "0o600", TO_SITE: "0o600",
    }  # fmt: skip
    (folder / "results").mkdir()
    assert Session.all_in(folder) == [session]
    session.remove()
    session.remove()
    assert [path.name for path in folder.iterdir()] == ["results"]


def test_a_folder_that_others_can_write_to_is_refused(tmp_path):
    tmp_path.chmod(0o770)
    with pytest.raises(UserError, match="chmod 700"):
        shared_folder(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="transport_dir"):
        shared_folder(tmp_path / "file")


def test_a_mailbox_that_is_a_link_to_another_file_is_not_followed(tmp_path):
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / TO_SITE).symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        Outbox(tmp_path / TO_SITE)
    with pytest.raises(OSError, match="symbolic links"):
        Inbox(tmp_path / TO_SITE).read()


class Lab:
    """A site's proxy and a relay over one folder, and an aggregator that sends back what it gets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "shared"
        self.said: list[str] = []
        self.accepted = 0
        self.relay: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def running(self, *, with_relay: bool = True) -> AsyncIterator[None]:
        echo = await asyncio.start_server(self._echo, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{echo.sockets[0].getsockname()[1]}"
        self.site = SharedFolderProxy(self.folder, self.address, "north")
        shared_folder(self.folder)
        server = await asyncio.start_server(self.site.answer, "127.0.0.1", 0, limit=8192)
        self.port = server.sockets[0].getsockname()[1]
        tending = asyncio.create_task(self.site.tend())
        if with_relay:
            self.start_relay()
        async with echo, server:
            try:
                yield
            finally:
                tending.cancel()
                await self.site.end()
                if self.relay:
                    await self.stop_relay()

    def start_relay(self) -> None:
        host, _, port = self.address.rpartition(":")
        self.relay = asyncio.create_task(Relay(self.folder, host, int(port), self.said.append).run())

    async def stop_relay(self) -> None:
        assert self.relay is not None
        self.relay.cancel()
        await asyncio.gather(self.relay, return_exceptions=True)
        self.relay = None

    async def ask(self, head: str) -> tuple[bytes, Streams]:
        """The head of what the proxy answers, and the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(head.encode())
        try:
            return await reader.readuntil(b"\r\n\r\n"), (reader, writer)
        except asyncio.IncompleteReadError as error:
            return error.partial, (reader, writer)

    async def connect(self) -> Streams:
        answer, streams = await self.ask(f"CONNECT {self.address} HTTP/1.1\r\nHost: {self.address}\r\n\r\n")
        assert answer == b"HTTP/1.1 200 Connection established\r\n\r\n"
        return streams

    async def echoed(self, streams: Streams, content: bytes) -> bytes:
        reader, writer = streams
        writer.write(content)
        return await reader.readexactly(len(content))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.02)

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        with contextlib.suppress(OSError):
            while content := await reader.read(65536):
                writer.write(content)
                await writer.drain()
        writer.close()


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def played(scene: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scene()

    asyncio.run(bounded())


def test_many_connections_share_a_session_and_each_gets_its_own_bytes(lab):
    async def scene() -> None:
        async with lab.running():
            all_streams = await asyncio.gather(*(lab.connect() for _ in range(20)))
            contents = [os.urandom(1000 * number) for number in range(1, 21)]
            found = await asyncio.gather(*map(lab.echoed, all_streams, contents))
            assert found == contents
            assert await lab.echoed(all_streams[0], MEGABYTE) == MEGABYTE
            for reader, writer in all_streams:
                writer.close()
                assert await reader.read() == b""
            assert len(Session.all_in(lab.folder)) == 1
            assert lab.accepted == 20
        assert not Session.all_in(lab.folder)

    played(scene)
    assert len([line for line in lab.said if "served" in line]) == 1


def test_an_end_of_a_connection_is_its_end_on_the_other_side(lab):
    async def scene() -> None:
        async with lab.running():
            reader, writer = await lab.connect()
            assert await lab.echoed((reader, writer), b"bye") == b"bye"
            writer.write_eof()
            assert await reader.read() == b""

    played(scene)


def test_only_the_own_address_is_connected_to_and_only_by_connect(lab):
    async def scene() -> None:
        async with lab.running():
            for target in ("127.0.0.1:22", "example.org:443", f"{lab.address}0", ""):
                answer, _ = await lab.ask(f"CONNECT {target} HTTP/1.1\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 403 ")
            answer, _ = await lab.ask(f"GET http://{lab.address}/ HTTP/1.1\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 405 ")
            answer, _ = await lab.ask(f"CONNECT {'x' * 100_000}")
            assert answer.startswith(b"HTTP/1.1 400 ") or answer == b""
        assert not lab.accepted

    played(scene)
    assert not lab.said


def test_another_user_of_the_machine_is_refused(lab, monkeypatch):
    monkeypatch.setattr(connect, "sender", lambda client, server: os.geteuid() + 1)

    async def scene() -> None:
        async with lab.running():
            answer, _ = await lab.ask(f"CONNECT {lab.address} HTTP/1.1\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 403 ")
        assert not Session.all_in(lab.folder)

    played(scene)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_a_real_other_user_is_refused(lab):
    async def scene() -> None:
        async with lab.running():
            host, _, port = f"127.0.0.1:{lab.port}".rpartition(":")
            script = (
                f"exec 3<>/dev/tcp/{host}/{port}; printf 'CONNECT {lab.address} HTTP/1.1\\r\\n\\r\\n' >&3; "
                "head --lines 1 <&3"
            )
            process = await asyncio.create_subprocess_exec(
                "/usr/bin/setpriv", "--reuid=65534", "--clear-groups", "/bin/bash", "-c", script,
                stdout=subprocess.PIPE,
            )  # fmt: skip
            out, _ = await process.communicate()
            assert b"403 Forbidden" in out

    played(scene)


def test_without_a_relay_a_connection_is_ended_without_an_answer(lab, monkeypatch):
    monkeypatch.setattr(link, "ANSWER_TIME", 0.2)

    async def scene() -> None:
        async with lab.running(with_relay=False):
            answer, _ = await lab.ask(f"CONNECT {lab.address} HTTP/1.1\r\n\r\n")
            assert answer == b""
            lab.start_relay()
            monkeypatch.setattr(link, "ANSWER_TIME", 20)
            await lab.until(lambda: bool(lab.said))
            assert await lab.echoed(await lab.connect(), b"late") == b"late"

    played(scene)


def test_an_aggregator_that_cannot_be_reached_ends_the_connection_and_is_named(lab):
    async def scene() -> None:
        async with lab.running(with_relay=False):
            reached, lab.address = lab.address, f"127.0.0.1:{free_port()}"
            lab.start_relay()
            for _ in range(3):
                answer, _ = await lab.ask(f"CONNECT {reached} HTTP/1.1\r\n\r\n")
                assert answer == b""

    played(scene)
    assert len([line for line in lab.said if "cannot be reached" in line]) == 1


@pytest.mark.parametrize("stopped", ["cleanly", "killed"])
def test_a_relay_that_starts_again_sends_nothing_twice_and_goes_on(lab, stopped):
    async def scene() -> None:
        async with lab.running(with_relay=False):
            command = [
                sys.executable,
                "-m",
                "cordon.cli",
                "relay",
                str(lab.folder),
                "--aggregator",
                lab.address,
            ]
            process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
            reader, writer = await lab.connect()
            assert await lab.echoed((reader, writer), b"first") == b"first"
            (session,) = Session.all_in(lab.folder)
            if stopped == "cleanly":
                process.terminate()
                assert await process.wait() == 0
            else:
                process.kill()
                await process.wait()
                # It says nothing more, and may leave a frame unfinished.
                Outbox(session.path / TO_SITE).append(Frame(1, DATA, b"lost").encoded()[:-2])
            lab.start_relay()
            assert await reader.read() == b""
            assert await lab.echoed(await lab.connect(), b"second") == b"second"
            assert Session.all_in(lab.folder) == [session]
            assert lab.accepted == 2
            after = list(frames((session.path / TO_SITE).read_bytes()))
            assert [frame.payload for frame in after if frame.kind == DATA] == [b"first", b"second"]
            assert [frame.connection for frame in after if frame.kind == CLOSE] == [1]

    played(scene)
    assert len([line for line in lab.said if "served again" in line]) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        os.urandom(5000),
        Frame(1, OPEN).encoded() * 2,
        Frame(7, DATA, b"never opened").encoded(),
        b"".join(Frame(number, OPEN).encoded() for number in range(1, 1000)),
    ],
)
def test_garbage_in_a_mailbox_ends_its_session_and_no_other(lab, garbage):
    async def scene() -> None:
        async with lab.running():
            streams = await lab.connect()
            bad = Session.begin(lab.folder, "bad")
            Outbox(bad.path / TO_RELAY).append(garbage)
            await lab.until(lambda: any("is not a site's" in line for line in lab.said))
            assert not bad.path.exists()
            assert await lab.echoed(streams, b"on") == b"on"

    played(scene)
    (line,) = (line for line in lab.said if "is not a site's" in line)
    assert line.startswith("session bad-")


def test_a_site_whose_mailbox_holds_garbage_begins_another_session(lab, monkeypatch):
    monkeypatch.setattr(connect, "PAUSE", 0)

    async def scene() -> None:
        async with lab.running():
            reader, _ = await lab.connect()
            (session,) = Session.all_in(lab.folder)
            Outbox(session.path / TO_SITE).append(b"garbage, and more of it")
            assert await reader.read() == b""
            assert await lab.echoed(await lab.connect(), b"on") == b"on"
            assert Session.all_in(lab.folder) != [session]

    played(scene)


def test_where_a_full_disk_ends_a_session_nobody_waits_for_it(lab, monkeypatch):
    """Connections that had more to send than the link holds end with it."""
    monkeypatch.setattr(connect, "PAUSE", 0)
    append, full = Outbox.append, threading.Event()

    def fails(outbox: Outbox, content: bytes) -> None:
        if full.is_set() and outbox.path.name == TO_RELAY:
            time.sleep(0.2)  # meanwhile more comes than is let in
            raise OSError(errno.ENOSPC, "No space left on device")
        append(outbox, content)

    monkeypatch.setattr(Outbox, "append", fails)
    monkeypatch.setattr(link, "MOST_UNWRITTEN", 2**16)

    async def scene() -> None:
        async with lab.running():
            reader, writer = await lab.connect()
            full.set()
            writer.write(MEGABYTE * 8)
            async with asyncio.timeout(20):
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
            full.clear()
            await lab.until(
                lambda: "answer" not in {task.get_coro().__name__ for task in asyncio.all_tasks()}
            )
            assert await lab.echoed(await lab.connect(), b"on") == b"on"

    played(scene)


def test_a_silent_sites_session_is_removed_and_what_others_left(lab, monkeypatch):
    monkeypatch.setattr(relay, "SILENCE", 0.3)
    shared_folder(lab.folder)
    left = Session.begin(lab.folder, "killed")
    (half := lab.folder / "half.session").mkdir()

    async def scene() -> None:
        async with lab.running():
            await lab.until(lambda: not left.path.exists() and not half.exists())

    played(scene)
    assert any("silent for 0.3 s" in line for line in lab.said)


def test_a_session_that_grew_is_renewed_without_breaking_a_connection_in_use(lab, monkeypatch):
    monkeypatch.setattr(connect, "RENEWED_FROM", 2**20)
    monkeypatch.setattr(connect, "IDLE", 0.3)

    async def scene() -> None:
        async with lab.running():
            reader, writer = await lab.connect()
            first = Session.all_in(lab.folder)
            assert await lab.echoed((reader, writer), MEGABYTE) == MEGABYTE
            assert await lab.echoed(await lab.connect(), b"new") == b"new"
            assert await reader.read() == b""  # idle: closed
            await lab.until(lambda: first[0] not in Session.all_in(lab.folder))
            assert len(Session.all_in(lab.folder)) == 1

    played(scene)


def test_the_relay_itself_goes_through_the_proxy_of_its_environment(tmp_path, monkeypatch):
    from proxy_lab import GIVEN, PASSWORD, USER, ConnectProxy

    proxy = ConnectProxy(f"{USER}:{PASSWORD}")
    with proxy.running() as port, socket.create_server(("127.0.0.1", 0)) as server:
        proxy.known["aggregator.test"] = "127.0.0.1"
        address = f"aggregator.test:{server.getsockname()[1]}"

        async def scene(url: str) -> tuple[bytes, str]:
            monkeypatch.setenv("HTTPS_PROXY", url)
            said: list[str] = []
            made = Relay(tmp_path, "aggregator.test", server.getsockname()[1], said.append)
            try:
                _, writer = await made._dial()
            except Exception:
                return b"", said[-1]
            writer.write(b"through")
            await writer.drain()
            peer, _ = await asyncio.to_thread(server.accept)
            return await asyncio.to_thread(peer.recv, 99), ""

        assert asyncio.run(scene(f"http://{GIVEN}@127.0.0.1:{port}"))[0] == b"through"
        assert proxy.asked == {address: 1}
        _, said = asyncio.run(scene(f"http://127.0.0.1:{port}"))
        assert "407" in said
        assert PASSWORD not in said


@pytest.mark.stress
def test_cordon_relay_serves_until_a_signal_and_alone(tmp_path):
    command = [sys.executable, "-m", "cordon.cli", "relay", str(tmp_path / "shared"), "--aggregator"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    first = subprocess.Popen([*command, "127.0.0.1:9", "--json"], **pipes)
    try:
        assert first.stderr is not None
        assert "its sessions reach 127.0.0.1:9, and nothing else" in first.stderr.readline()
        second = subprocess.run([*command, "127.0.0.1:9"], capture_output=True, text=True)
        assert second.returncode == 2
        assert "another relay serves" in second.stderr
    finally:
        first.terminate()
    said, _ = first.communicate(timeout=20)
    assert first.returncode == 0
    assert json.loads(said) == {"folder": str(tmp_path / "shared"), "bytes": 0}
    assert CliRunner().invoke(main, ["relay", str(tmp_path), "--aggregator", "nowhere"]).exit_code == 2
