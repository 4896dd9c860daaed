"""One end of a session: its connections' bytes into one file as frames, and out of the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from cordon.errors import Unreachable
from cordon.transport.mailbox import (
    ALIVE,
    CLOSE,
    DATA,
    END,
    MOST_PAYLOAD,
    OPEN,
    BadMailbox,
    Frame,
    Inbox,
    Outbox,
)

# Seconds between two looks at a mailbox: just after something moved, and when nothing does.
SOON, SELDOM = 0.01, 0.25
# A writer without anything to say says so (seconds); one that says nothing for longer is gone.
ALIVE_EVERY, SILENCE = 10.0, 60.0
# The relay's answer to a new connection, or a peer to take what is for it, is waited for so long (seconds).
ANSWER_TIME = 25.0
MOST_CONNECTIONS = 64
# What is not in the file yet (bytes): beyond it, connections wait.
MOST_UNWRITTEN = 2**22

Dial = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@dataclass
class Connection:
    """A TCP connection at this end; ``greeting`` goes to it once the other end has opened its own."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    greeting: bytes = b""
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    moved: float = field(default_factory=time.monotonic)


class Link:
    """Moves bytes between connections and a session's mailbox.

    The relay's end can ``dial``; the site's, which cannot, opens the connections. After ``silence`` seconds
    without a frame the session counts as over (None: never).
    """

    def __init__(
        self, inbox: Inbox, outbox: Outbox, *, dial: Dial | None = None, silence: float | None = None
    ) -> None:
        self._inbox, self._outbox = inbox, outbox
        self._dial, self._silence = dial, silence
        self._connections: dict[int, Connection | None] = {}  # None: the relay is still dialling
        self._highest = 0
        self._unwritten = bytearray()
        self.ending = False
        self._stirred, self._to_write, self._room = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def size(self) -> int:
        """Bytes in the session's two files, as far as this end knows."""
        return self._inbox.position + self._outbox.size + len(self._unwritten)

    @property
    def connections(self) -> int:
        return len(self._connections)

    def _resume(self) -> None:
        """Go on after a relay that ended: the connections that it held are closed.

        Both files are read from their beginning; nothing in them is sent again. What no relay has answered
        yet is as new.
        """
        own = Inbox(self._outbox.path)
        answers = list(own.rest())
        self._outbox.cut(own.position)
        if not answers:
            return
        seen = list(self._inbox.rest())
        closed = {frame.connection for frame in (*answers, *seen) if frame.kind == CLOSE}
        held = {frame.connection for frame in answers if frame.kind == OPEN} - closed
        opened = {frame.connection for frame in seen if frame.kind == OPEN} - closed
        self._highest = max((frame.connection for frame in seen), default=0)
        self.ending = any(frame.kind == END for frame in seen)
        for number in sorted(held):
            self._put(Frame(number, CLOSE))
        self._connections = dict.fromkeys(sorted(opened - held))
        if len(self._connections) > 2 * MOST_CONNECTIONS:
            raise BadMailbox(f"{len(self._connections)} connections are opened at once")

    async def run(self) -> str:
        """Move bytes until the session is over, and say why; BadMailbox and OSError end it too."""
        try:
            if self._dial is not None:
                await asyncio.to_thread(self._resume)
            return await self._move()
        finally:
            self._outbox.close()

    async def open(self, connection: Connection) -> None:
        """Carry ``connection`` until either end closes it; Unreachable where the other end has none."""
        if len(self._connections) >= MOST_CONNECTIONS:
            raise Unreachable("too many connections at once. Try again.")
        self._highest += 1
        number = self._highest
        self._connections[number] = connection
        self._put(Frame(number, OPEN))
        try:
            async with asyncio.timeout(ANSWER_TIME):
                await connection.opened.wait()
        except TimeoutError:
            self._drop(number, tell=True)
            raise Unreachable("no relay answers. Start one for this folder: cordon relay") from None
        if number not in self._connections:
            raise Unreachable("the relay cannot reach the aggregator. Its own log says why.")
        await self._carry(number, connection)

    def end(self) -> None:
        """Say that the session is over; `run` then ends."""
        for number in list(self._connections):
            self._drop(number, tell=True)
        self.ending = True
        self._put(Frame(0, END))

    def close_idle(self, seconds: float) -> None:
        """Close the connections on which nothing moved for so long."""
        for number, connection in list(self._connections.items()):
            if connection and time.monotonic() - connection.moved > seconds:
                self._drop(number, tell=True)

    async def _move(self) -> str:
        writing, reading = asyncio.create_task(self._write()), asyncio.create_task(self._read())
        for number, connection in self._connections.items():
            if connection is None:
                self._start(self._answer(number))
        try:
            await asyncio.wait((writing, reading), return_when=asyncio.FIRST_COMPLETED)
            return await reading if reading.done() else await writing
        finally:
            self.ending = True
            for number in list(self._connections):
                self._drop(number, tell=True)
            for task in (reading, *self._tasks):
                task.cancel()
            self._to_write.set()
            self._room.set()  # who waits for it finds its connection gone
            await asyncio.gather(writing, reading, *self._tasks, return_exceptions=True)

    async def _carry(self, number: int, connection: Connection) -> None:
        """From the peer into the mailbox, until either end closes."""
        with suppress(OSError):
            while content := await connection.reader.read(MOST_PAYLOAD):
                connection.moved = time.monotonic()
                while len(self._unwritten) > MOST_UNWRITTEN and number in self._connections:
                    self._room.clear()
                    await self._room.wait()
                if number not in self._connections:
                    return
                self._put(Frame(number, DATA, content))
        self._drop(number, tell=True)

    async def _write(self) -> str:
        while self._unwritten or not self.ending:
            with suppress(TimeoutError):
                async with asyncio.timeout(ALIVE_EVERY):
                    await self._to_write.wait()
            self._to_write.clear()
            content = bytes(self._unwritten) or Frame(0, ALIVE).encoded()
            self._unwritten.clear()
            self._room.set()
            await asyncio.to_thread(self._outbox.append, content)
        return "it is over"

    async def _read(self) -> str:
        pause, heard = SOON, time.monotonic()
        if self.ending:
            return "the site ended it"
        while True:
            found = await asyncio.to_thread(self._inbox.read)
            for frame in found:
                if frame.kind == END:
                    return "the site ended it"
                await self._take(frame)
            if found:
                pause, heard = SOON, time.monotonic()
                continue
            if self._silence is not None and time.monotonic() - heard > self._silence:
                return f"the site was silent for {self._silence:g} s"
            self._stirred.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stirred.wait()
                    pause = SOON
            pause = min(1.2 * pause, SELDOM)

    async def _take(self, frame: Frame) -> None:
        if frame.kind == ALIVE:
            return
        if frame.kind == OPEN and self._dial is not None:
            if frame.connection <= self._highest or len(self._connections) >= 2 * MOST_CONNECTIONS:
                raise BadMailbox(f"connection {frame.connection} is opened twice, or is one too many")
            self._highest = frame.connection
            self._connections[frame.connection] = None
            self._start(self._answer(frame.connection))
            return
        if frame.connection > self._highest:
            raise BadMailbox(f"connection {frame.connection} was never opened")
        connection = self._connections.get(frame.connection)
        if frame.kind == CLOSE:
            self._drop(frame.connection)
        elif connection is None:
            return  # this end closed it, and the other did not know yet
        elif frame.kind == OPEN:
            connection.writer.write(connection.greeting)
            connection.opened.set()
        else:
            await self._give(frame, connection)

    async def _give(self, frame: Frame, connection: Connection) -> None:
        connection.moved = time.monotonic()
        connection.writer.write(frame.payload)
        try:
            async with asyncio.timeout(ANSWER_TIME):
                await connection.writer.drain()
        except (TimeoutError, OSError):
            self._drop(frame.connection, tell=True)

    async def _answer(self, number: int) -> None:
        """The relay's part of a new connection."""
        assert self._dial is not None
        try:
            async with asyncio.timeout(ANSWER_TIME):
                connection = Connection(*await self._dial())
        except (TimeoutError, OSError, Unreachable):
            self._drop(number, tell=True)
            return
        if number not in self._connections:  # the site gave up meanwhile
            connection.writer.close()
            return
        self._connections[number] = connection
        self._put(Frame(number, OPEN))
        await self._carry(number, connection)

    def _drop(self, number: int, *, tell: bool = False) -> None:
        if number not in self._connections:
            return
        connection = self._connections.pop(number)
        if connection is not None and (connection.opened.is_set() or self._dial is not None):
            connection.writer.close()
        elif connection is not None:
            connection.opened.set()  # and `open` says that there is none
        if tell:
            self._put(Frame(number, CLOSE))

    def _put(self, frame: Frame) -> None:
        self._unwritten += frame.encoded()
        self._to_write.set()
        self._stirred.set()

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
