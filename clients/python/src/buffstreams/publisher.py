"""The sender of the acked protocol."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import ssl
import time
import uuid as uuids
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import wire
from .wire import Connection, Fault, Frame

BATCH_BYTES, BATCH_MESSAGES, RANGES = 65_000, 1024, 2048


class Refused(Exception):
    """The receiver refused a message, a topic or the connection; code is a number of wire.CODES."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{wire.CODES[code] if code < len(wire.CODES) else code}: {reason!r}")
        self.code = code


class NeverSent(Refused):
    """The receiver claims what was never sent, and would drop it: it takes this sender for another."""


class PublishTimeout(TimeoutError):
    """Messages did not reach their confirm level in time. They go on being sent."""


class Undelivered(Exception):
    """The publisher closed with messages that no receiver has."""


@dataclass(slots=True)
class Message:
    payload: bytes
    uuid: str = field(default_factory=lambda: str(uuids.uuid4()))
    metadata: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class _Call:
    done: asyncio.Future[None]
    handled: bool
    left: int

    def reached(self, error: Exception | None = None) -> None:
        self.left -= 1
        if error and not self.done.done():
            self.done.set_exception(error)
        elif not self.left and not self.done.done():
            self.done.set_result(None)


@dataclass(slots=True)
class _Entry:
    message: Message
    chunk: bytes
    call: _Call
    received: bool = False
    again: bool = False  # an earlier instance of the receiver may have given it to a consumer


class _Stream:
    """A stream. Its number is its handle too, as it is opened once on a connection."""

    def __init__(self, topic: str, handle: int) -> None:
        self.topic, self.handle = topic, handle
        self.unsettled: dict[int, _Entry] = {}
        self.bytes = self.last = self.sent = self.received = 0  # sequences: of the last message, sent ever, received ever
        self.room, self.tenure = asyncio.Event(), 1
        self.retry, self.delay, self.touched = 0.0, 1.0, time.monotonic()
        self.detach()

    def detach(self) -> None:
        self.asked = self.open = self.wanted = False  # Open is out, Opened is here, a Want has no answer yet
        self.next, self.cursor, self.at = 0, 0, 0  # acked as received, to be sent, what the receiver expects
        self.limit_messages = self.limit_bytes = self.used_messages = self.used_bytes = 0

    def pop(self, sequence: int, error: Exception | None = None) -> _Entry | None:
        entry = self.unsettled.pop(sequence, None)
        if entry:
            self.bytes -= len(entry.chunk)
            self.room.set()
            if error or not entry.received or entry.call.handled:
                entry.call.reached(error)
        return entry

    def settle(self, pairs: list[int], most: int) -> None:
        for first, last in zip(pairs[::2], pairs[1::2]):
            if not 1 <= first <= last <= most:
                raise Fault(wire.PROTOCOL, "settled what was not sent")
            for sequence in range(max(first, self.base()), last + 1):
                self.pop(sequence)

    def receive(self, next: int) -> None:
        self.next = next
        for sequence in range(max(self.received + 1, self.base()), next):
            entry = self.unsettled.get(sequence)
            if entry and not entry.received:
                entry.received = True
                if not entry.call.handled:
                    entry.call.reached()
        self.received = max(self.received, next - 1)

    def base(self) -> int:
        return next(iter(self.unsettled), self.last + 1)


class Publisher:
    """Publishes to a listener, at "host:port" or "unix:///path"; to be used on one event loop.

    Of several addresses one is in use. The next one is when that closes, or can not be reached: what is not settled moves there.
    window and window_bytes bound what is unsettled of a topic: publish waits when they are full. on_failure gets what was
    refused when publish had returned, or would go on waiting for others.
    """

    def __init__(self, *addresses: str, token: bytes = b"", tls: ssl.SSLContext | None = None, insecure_token: bool = False,
                 window: int = 16_384, window_bytes: int = 16 << 20,
                 on_failure: Callable[[str, Message, Exception], None] = lambda topic, message, error: None) -> None:
        verified = tls and tls.verify_mode == ssl.CERT_REQUIRED
        if token and not verified and not insecure_token and not all(a.startswith("unix://") for a in addresses):
            raise ValueError("buffstreams: the token could be read: use TLS that verifies, a unix socket or insecure_token=True")
        self.addresses, self.token, self.tls, self.on_failure = addresses, token, tls, on_failure
        self.window, self.window_bytes = window, window_bytes
        self.identity, self.secret = os.urandom(16), os.urandom(16)
        self.cause: Exception | None = None  # why there is no connection
        self._streams: dict[str, _Stream] = {}
        self._handles: dict[int, _Stream | None] = {}  # of the connection; None: given up, its credit is returned
        self._numbers = 0
        self._conn: Connection | None = None
        self._draining = self._closed = self._moves = False
        self._at = 0  # of addresses
        self._instance: bytes | None = None  # of the receiver that was met last; empty: it has none
        self._dirty: dict[str, _Stream] = {}
        self._work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def address(self) -> str:
        """The address in use."""
        return self.addresses[self._at % len(self.addresses)]

    async def publish(self, topic: str, *messages: Message, handled: bool = False, timeout: float = 30.0) -> None:
        """Returns when the receiver's process holds the messages, or, with handled, when its consumers are done with them."""
        if self._closed:
            raise Undelivered("buffstreams: the publisher is closed")
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._tick())]
        call = _Call(asyncio.get_running_loop().create_future(), handled, len(messages))
        call.done.add_done_callback(lambda done: done.cancelled() or done.exception())  # it is no surprise if publish gave up
        try:
            async with asyncio.timeout(timeout):
                for message in messages:
                    await self._append(topic, message, call)
                if messages:
                    await asyncio.shield(call.done)
        except TimeoutError:
            raise PublishTimeout(f"buffstreams: {topic!r} at {self.address}: {call.left} unconfirmed: {self.cause or 'no ack'}") from None

    async def _append(self, topic: str, message: Message, call: _Call) -> None:
        chunk = wire.encode_message(message.uuid, message.payload, message.metadata)
        while True:
            stream = self._streams.get(topic)
            if stream is None:
                self._numbers += 1
                stream = self._streams[topic] = _Stream(topic, self._numbers)
            if len(stream.unsettled) < self.window and (stream.bytes + len(chunk) <= self.window_bytes or not stream.unsettled):
                break
            stream.room.clear()
            await stream.room.wait()
        stream.last += 1
        stream.unsettled[stream.last] = _Entry(message, chunk, call)
        stream.bytes += len(chunk)
        stream.touched = time.monotonic()
        self._kick(stream)

    async def close(self, timeout: float = 5.0) -> None:
        """Waits until all is settled, releases the streams, and raises Undelivered if a message is in no receiver's hands."""
        self._closed = True
        end = time.monotonic() + timeout
        while any(s.unsettled for s in self._streams.values()) and time.monotonic() < end:
            await asyncio.sleep(0.01)
        left = sum(sequence >= s.next for s in self._streams.values() for sequence in s.unsettled)
        conn = self._conn
        if conn:
            for stream in self._streams.values():
                if stream.open and stream.next > stream.last:
                    conn.send(Frame("Release", stream.handle))
            conn.half_close()
            await asyncio.wait([asyncio.ensure_future(conn.ended.wait())], timeout=min(0.5, timeout))
            conn.transport.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for stream in list(self._streams.values()):
            self._give_up(stream, Undelivered("buffstreams: the publisher closed"))
        if left:
            raise Undelivered(f"buffstreams: {left} messages to {self.address} were not delivered")

    async def _run(self) -> None:
        delay, refusals = 0.1, 0  # in a row
        while True:
            await self._work.wait()
            try:
                async with asyncio.timeout(5):
                    conn = await self._connect()
                self._conn, self._draining, delay, refusals = conn, False, 0.1, 0
                self._kick_all()
                await conn.ended.wait()
                self._at += self._draining
            except (OSError, Refused) as error:
                self._at += 1
                self.cause = error if str(error) else OSError("no answer in time")
                refusals += isinstance(error, Refused) and error.code in (wire.VERSION, wire.UNAUTHENTICATED)
                if refusals == len(self.addresses):
                    refusals = 0
                    for call in {id(e.call): e.call for s in self._streams.values() for e in s.unsettled.values()}.values():
                        call.reached(error)  # but what it has is kept
            self._conn = None
            await asyncio.sleep(random.random() * delay)
            delay = min(2 * delay, 10.0)
            if not any(s.unsettled for s in self._streams.values()):
                self._work.clear()

    async def _connect(self) -> Connection:
        welcome: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        welcome.add_done_callback(lambda done: done.cancelled() or done.exception())

        def greeted(conn: Connection, frame: Frame) -> None:
            if frame.kind == "Failure":
                welcome.set_exception(Refused(frame.code, frame.reason))
            elif frame.kind != "Welcome":
                raise Fault(wire.PROTOCOL, f"{frame.kind} before the Welcome")
            elif frame.version != 1 or frame.max_frame < wire.LEAST_FRAME or not frame.max_message:
                raise Fault(wire.PROTOCOL, "a Welcome out of range")
            else:
                conn.on_frame, conn.max_message, conn.peer_frame = self._on_frame, frame.max_message, frame.max_frame
                conn.on_writable = self._kick_all
                self._meet(frame.instance if "move" in frame.features else b"")
                welcome.set_result(frame)

        def lost(conn: Connection) -> None:
            if not welcome.done():
                welcome.set_exception(OSError("the connection ended in the greeting"))
            for stream in self._streams.values():
                stream.detach()
            self._handles.clear()

        loop, conn = asyncio.get_running_loop(), Connection(greeted, lost, 1 << 20)
        if self.address.startswith("unix://"):
            await loop.create_unix_connection(lambda: conn, self.address[7:], ssl=self.tls, server_hostname="" if self.tls else None)
        else:
            await loop.create_connection(lambda: conn, *wire.host_port(self.address), ssl=self.tls)
        try:
            conn.send(Frame("Hello", version=1, max_frame=1 << 20, token=self.token, agent="buffstreams-python", features=["move"]))
            await welcome
        except BaseException:
            conn.transport.close()
            raise
        return conn

    def _meet(self, instance: bytes) -> None:
        """Begins a new tenure of each stream where the receiver is another process than before: it has nothing of them."""
        self._moves = bool(instance)
        if self._instance not in (None, instance):
            for s in self._streams.values():
                s.tenure += 1
                for sequence, entry in s.unsettled.items():
                    entry.again |= sequence <= s.sent
        self._instance = instance

    def _on_frame(self, conn: Connection, f: Frame) -> None:
        if f.kind == "Ping":
            conn.send(Frame("Pong", id=f.id, handle=f.handle))
        elif f.kind == "Goaway":
            self._draining = True
        elif f.kind == "Failure":
            self.cause = Refused(f.code, f.reason)
            conn.transport.close()
        elif f.kind in ("Opened", "Ack", "Reject"):
            if f.handle not in self._handles and not 0 < f.handle <= self._numbers:
                raise Fault(wire.PROTOCOL, f"{f.kind} for a handle that was not asked for")
            stream = self._handles.get(f.handle)
            if stream:
                getattr(self, "_on_" + f.kind.lower())(conn, stream, f)
            elif f.kind == "Ack" and f.credit_messages and f.handle in self._handles:
                conn.send(Frame("Want", f.handle, seen_messages=f.credit_messages))
        elif f.kind != "Pong":
            raise Fault(wire.PROTOCOL, f"{f.kind} is for receivers")

    def _on_opened(self, conn: Connection, s: _Stream, f: Frame) -> None:
        if s.open:
            raise Fault(wire.PROTOCOL, "Opened twice")
        if f.code:
            del self._handles[s.handle]
            s.detach()
            if f.code == wire.LIMIT:
                s.retry, s.delay = time.monotonic() + s.delay, min(2 * s.delay, 30.0)
            else:
                self._give_up(s, Refused(f.code, f.reason))
            return
        most = max(s.base() - 1, s.sent)
        if f.next < s.base() or len(f.settled) % 2 or any(not 1 <= a <= b for a, b in zip(f.settled[::2], f.settled[1::2])):
            raise Fault(wire.PROTOCOL, "Opened with a position out of range")
        if f.next > most + 1 or any(last > most for last in f.settled):
            self._handles[s.handle] = None
            self._give_up(s, NeverSent(0, "the receiver claims what was never sent"))
            return
        s.open, s.cursor, s.at, s.delay = True, f.next, f.next, 1.0
        s.settle(f.settled, most)
        s.receive(f.next)
        self._kick(s)

    def _on_ack(self, conn: Connection, s: _Stream, f: Frame) -> None:
        if not s.open or f.next and not s.next <= f.next <= max(s.at, s.next) or len(f.settled) % 2:
            raise Fault(wire.PROTOCOL, "an Ack out of range")
        if f.next:
            s.receive(f.next)
        s.settle(f.settled, max(s.sent, s.next - 1))
        if f.credit_messages:
            if f.credit_messages < s.limit_messages or f.credit_bytes < s.limit_bytes:
                raise Fault(wire.PROTOCOL, "credit falls")
            s.limit_messages, s.limit_bytes, s.wanted, s.touched = f.credit_messages, f.credit_bytes, False, time.monotonic()
        self._kick(s)

    def _on_reject(self, conn: Connection, s: _Stream, f: Frame) -> None:
        if not s.open or f.sequence > s.sent:
            raise Fault(wire.PROTOCOL, "a Reject of what was not sent")
        error = Refused(f.code, f.reason)
        if not f.sequence:
            conn.send(Frame("Release", s.handle))
            del self._handles[s.handle]
            return self._give_up(s, error)
        entry = s.pop(f.sequence, error)
        conn.send(Frame("RejectSeen", s.handle, sequence=f.sequence))
        if entry:
            self.on_failure(s.topic, entry.message, error)

    def _give_up(self, s: _Stream, error: Exception) -> None:
        self._streams.pop(s.topic, None)
        for sequence in list(s.unsettled):
            entry = s.pop(sequence, error)
            if entry:
                self.on_failure(s.topic, entry.message, error)
        s.detach()

    def _kick(self, s: _Stream) -> None:
        self._work.set()
        if not self._dirty:
            asyncio.get_running_loop().call_soon(self._flush)
        self._dirty[s.topic] = s

    def _kick_all(self) -> None:
        for stream in self._streams.values():
            self._kick(stream)

    def _flush(self) -> None:
        streams, self._dirty, conn = list(self._dirty.values()), {}, self._conn
        for s in streams:
            if conn and not self._draining and not conn.transport.is_closing() and self._streams.get(s.topic) is s:
                if s.open:
                    self._send(conn, s)
                elif not s.asked and (s.unsettled or s.tenure > 1) and time.monotonic() >= s.retry:  # another tenure voids older copies here
                    s.asked, s.wanted, first = True, bool(s.unsettled), s.unsettled.get(s.base())
                    self._handles[s.handle] = s
                    conn.send(Frame("Open", s.handle, publisher=self.identity, epoch=1, secret=self.secret, stream=s.handle, topic=s.topic,
                                    base=s.base(), want_messages=len(s.unsettled), want_bytes=s.bytes,
                                    least_bytes=len(first.chunk) if first else 0, tenure=s.tenure if self._moves else 0))

    def _send(self, conn: Connection, s: _Stream) -> None:
        """Sends what credit and the socket allow, and asks for more."""
        while s.cursor <= s.last and not conn.paused:
            first, size, again = 0, 0, False
            chunks: list[bytes] = []
            while s.cursor <= s.last and len(chunks) < BATCH_MESSAGES:
                entry = s.unsettled.get(s.cursor)
                if entry and self._too_large(conn, entry):
                    error = Refused(wire.LIMIT, "larger than the receiver takes")
                    s.pop(s.cursor, error)
                    self.on_failure(s.topic, entry.message, error)
                    entry = None
                if not entry:
                    if chunks:
                        break
                    s.cursor += 1
                    continue
                n = len(entry.chunk)
                if chunks and entry.again != again:
                    break
                if s.used_messages >= s.limit_messages or s.used_bytes + n > s.limit_bytes or chunks and size + n > BATCH_BYTES:
                    break
                first, again = first or s.cursor, entry.again
                chunks.append(entry.chunk)
                size, s.cursor, s.used_messages, s.used_bytes = size + n, s.cursor + 1, s.used_messages + 1, s.used_bytes + n
            if not chunks:
                break
            flags = wire.PROMPT | (wire.GAP if first != s.at else 0) | (wire.AGAIN if again and self._moves else 0)
            s.at, s.sent, s.touched = s.cursor, max(s.sent, s.cursor - 1), time.monotonic()
            conn.send(Frame("Publish", s.handle, first=first, flags=flags, messages=chunks))
        entry = s.unsettled.get(s.cursor)
        if entry and not s.wanted and not conn.paused:
            waiting = s.last - s.cursor + 1
            self._want(conn, s, waiting, waiting * len(entry.chunk), len(entry.chunk))

    @staticmethod
    def _too_large(conn: Connection, entry: _Entry) -> bool:
        return len(entry.chunk) > conn.max_message + 1 + len(wire.varint(conn.max_message)) or len(entry.chunk) + 64 > conn.peer_frame

    def _want(self, conn: Connection, s: _Stream, messages: int, size: int, least: int) -> None:
        conn.send(Frame("Want", s.handle, want_messages=messages, want_bytes=size, least_bytes=least, seen_messages=s.limit_messages))
        s.limit_messages, s.limit_bytes, s.wanted, s.touched = s.used_messages, s.used_bytes, messages > 0, time.monotonic()

    async def _tick(self) -> None:
        """Pings, credit that is not used, streams that are idle or wait."""
        while True:
            await asyncio.sleep(0.25)
            now, conn = time.monotonic(), self._conn
            if not conn:
                continue
            patience = 30 if len(self.addresses) == 1 else 12
            if now - conn.heard > patience:
                conn.transport.abort()
            elif max(now - conn.heard, now - conn.said) > patience / 3:
                conn.send(Frame("Ping", id=2))
            for s in list(self._streams.values()):
                if s.unsettled and not s.asked:
                    self._kick(s)
                elif s.open and s.cursor > s.last and s.limit_messages > s.used_messages and now - s.touched > 0.25:
                    self._want(conn, s, 0, 0, 0)
                elif s.open and not s.unsettled and now - s.touched > 300:
                    conn.send(Frame("Release", s.handle))
                    del self._handles[s.handle], self._streams[s.topic]


class RoundRobin:
    """Publishes to several listeners in turn, call by call. The turns of one that is gone go to the next one."""

    def __init__(self, *addresses: str, **options: Any) -> None:
        """Options are those of a Publisher."""
        self.publishers = [Publisher(*addresses[i:], *addresses[:i], **options) for i in range(len(addresses))]
        self._turn = itertools.cycle(self.publishers)

    async def publish(self, topic: str, *messages: Message, handled: bool = False, timeout: float = 30.0) -> None:
        await next(self._turn).publish(topic, *messages, handled=handled, timeout=timeout)

    async def close(self, timeout: float = 5.0) -> None:
        errors = await asyncio.gather(*(p.close(timeout) for p in self.publishers), return_exceptions=True)
        for error in errors:
            if error:
                raise error
