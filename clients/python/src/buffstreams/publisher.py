"""The sender of the acked protocol."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from uuid import uuid4

from . import wire
from .wire import Connection, Fault, Frame


class Refused(Exception):
    """The receiver refused a message, a topic or the connection: code is a number of wire.CODES.

    Code 0: it claims what was never sent, and takes this publisher for another.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"buffstreams: {dict(enumerate(wire.CODES)).get(code, code)}: {reason!r}")
        self.code = code


class Undelivered(Exception):
    """The publisher closed with messages that no receiver has."""


@dataclass(slots=True)
class Message:
    """What is published."""

    payload: bytes
    uuid: str = field(default_factory=lambda: str(uuid4()))
    metadata: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class _Call:
    handled: bool  # is what it waits for, else received
    left: int
    done: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None

    def reached(self, error: Exception | None = None) -> None:
        self.left, self.error = self.left - 1, self.error or error
        if error or not self.left:
            self.done.set()


@dataclass(slots=True)
class _Entry:
    message: Message
    data: bytes
    size: int  # of the credit
    call: _Call
    received: bool = False
    again: bool = False  # another receiver, or instance of it, may have given it to a consumer


class _Stream:
    """A stream. Its number is its handle too, as it is opened once on a connection."""

    def __init__(self, topic: str, number: int) -> None:
        self.topic, self.number, self.tenure, self.given_up = topic, number, 1, False
        self.unsettled: dict[int, _Entry] = {}
        self.bytes = self.last = self.sent = 0  # unsettled; the last sequence, and the last sent
        self.retry, self.delay = 0.0, 1.0  # after LIMIT
        self.detach()

    def detach(self) -> None:
        self.asked = self.open = self.wanted = self.kicked = False  # for Opened; is; for credit
        self.next = self.cursor = self.at = 0  # received; to be sent; what the receiver expects
        self.limit = self.limit_bytes = self.used = self.used_bytes = 0
        self.touched = monotonic()

    def base(self) -> int:
        return next(iter(self.unsettled), self.last + 1)

    def waiting(self) -> dict[str, int]:
        """What a Want asks for."""
        entry, count = self.unsettled.get(self.cursor), self.last - self.cursor + 1
        return {"want_messages": count, "want_bytes": count * entry.size,
                "least_bytes": entry.size} if entry else {}

    def settle(self, sequence: int, error: Exception | None = None) -> _Entry | None:
        entry = self.unsettled.pop(sequence, None)
        if entry:
            self.bytes -= entry.size
            if error or entry.call.handled or not entry.received:
                entry.call.reached(error)
        return entry

    def progress(self, next: int, settled: list[int], most: int) -> None:
        """All below next was received. Settled are pairs of a first and a last."""
        for sequence in range(max(self.next, self.base()), next):
            entry = self.unsettled.get(sequence)
            if entry and not entry.received:
                entry.received = True
                if not entry.call.handled:
                    entry.call.reached()
        self.next = next
        for first, last in zip(settled[::2], settled[1::2], strict=True):
            if not 1 <= first <= last <= most:
                raise Fault("settled what was not sent")
            for sequence in range(max(first, self.base()), last + 1):
                self.settle(sequence)


class Publisher:
    """Publishes to a listener at "host:port" or "unix:///path"; to be used on one event loop.

    Of several addresses one is in use. The next one is when that closes, or can not be reached:
    what is not settled moves there. window and window_bytes bound what is unsettled of a topic:
    publish waits when they are full. on_failure gets each message that was refused, and why.
    """

    def __init__(self, *addresses: str, token: bytes = b"", tls: ssl.SSLContext | None = None,
                 insecure_token: bool = False, window: int = 16_384, window_bytes: int = 16 << 20,
                 on_failure: Callable[[str, Message, Exception], None] = lambda *_: None) -> None:
        private = tls and tls.verify_mode == ssl.CERT_REQUIRED or insecure_token
        if token and not private and not all(a.startswith("unix://") for a in addresses):
            raise ValueError("buffstreams: the token could be read: use TLS that verifies,"
                             " a unix socket or insecure_token=True")
        self.addresses, self.token, self.tls, self.on_failure = addresses, token, tls, on_failure
        self.window, self.window_bytes = window, window_bytes
        self.cause: Exception | None = None  # why there is no connection
        self._identity, self._secret = os.urandom(16), os.urandom(16)
        self._topics: dict[str, _Stream] = {}
        self._streams: dict[int, _Stream] = {}  # also those given up, until the connection ends
        self._numbers = self._at = 0  # of streams; of addresses
        self._draining = self._closed = False
        self._instance: bytes | None = None  # of the receiver that was met last
        self._conn: Connection | None = None
        self._task: asyncio.Task[None] | None = None

    async def publish(self, topic: str, *messages: Message, handled: bool = False,
                      timeout: float = 30.0) -> None:
        """Returns when the receiver's process holds the messages, or, with handled, when its
        consumers are done with them. After a TimeoutError they go on being sent."""
        if self._closed:
            raise Undelivered("buffstreams: the publisher is closed")
        self._task = self._task or asyncio.create_task(self._run())
        call = _Call(handled, len(messages))
        try:
            async with asyncio.timeout(timeout):
                for message in messages:
                    await self._append(topic, message, call)
                if messages:
                    await call.done.wait()
        except TimeoutError:
            why = self.cause or "no ack"
            raise TimeoutError(f"buffstreams: {topic!r}: {call.left} unconfirmed: {why}") from None
        if call.error:
            raise call.error

    async def _append(self, topic: str, message: Message, call: _Call) -> None:
        data = wire.encode_message(message.uuid, message.payload, message.metadata)
        size = wire.credit(data)
        while (s := self._topics.get(topic)) and s.unsettled and (
                len(s.unsettled) >= self.window or s.bytes + size > self.window_bytes):
            await asyncio.sleep(0.002)
        if s is None:
            self._numbers += 1
            s = self._topics[topic] = self._streams[self._numbers] = _Stream(topic, self._numbers)
        s.last, s.bytes, s.touched = s.last + 1, s.bytes + size, monotonic()
        s.unsettled[s.last] = _Entry(message, data, size, call)
        self._kick(s)

    async def close(self, timeout: float = 5.0) -> None:
        """Waits until all is settled, and releases the streams. Raises Undelivered if a message is
        in no receiver's hands."""
        self._closed = True
        await wire.until(lambda: not any(s.unsettled for s in self._topics.values()), timeout)
        left = sum(n >= s.next for s in self._topics.values() for n in s.unsettled)
        if self._conn and self._task:
            for s in self._topics.values():
                if s.open and all(n < s.next for n in s.unsettled):
                    self._conn.send("Release", s.number)
            self._conn.half_close()
            await asyncio.wait([self._task], timeout=min(0.5, timeout))
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        for s in list(self._topics.values()):
            self._give_up(s, Undelivered("buffstreams: the publisher closed"))
        if left:
            raise Undelivered(f"buffstreams: {left} messages were not delivered")

    async def _run(self) -> None:
        """Keeps up a connection."""
        delay = 0.1
        while not self._closed or any(s.unsettled for s in self._topics.values()):
            try:
                await self._session(self.addresses[self._at % len(self.addresses)])
            except Exception as error:
                self.cause = error
            if self._conn:
                delay = 0.1
            elif getattr(self.cause, "code", 0) in (wire.VERSION, wire.UNAUTHENTICATED):
                for entry in [e for s in self._topics.values() for e in s.unsettled.values()]:
                    entry.call.reached(self.cause)  # but it is kept
            self._at += self._draining or self._conn is None
            self._conn, self._draining = None, False
            self._streams = {s.number: s for s in self._topics.values()}
            for s in self._streams.values():
                s.detach()
            await asyncio.sleep(random.random() * delay)
            delay = min(2 * delay, 10.0)

    async def _session(self, address: str) -> None:
        """One connection, until it ends with an error."""
        async with asyncio.timeout(5):
            conn = await Connection.dial(address, self.tls)
        try:
            conn.send("Hello", version=1, max_frame=1 << 20, token=self.token,
                      agent="buffstreams-python", features=[b"move"])
            tick = ping = 0.0
            while True:
                f = await conn.read(0.25)
                if f and self._conn:
                    self._on_frame(conn, f)
                elif f:
                    self._greet(conn, f)
                if self._conn and monotonic() > tick:
                    tick = monotonic() + 0.25
                    if tick > ping:
                        ping = tick + conn.patience / 3
                        conn.send("Ping", id=2)
                    for s in list(self._streams.values()):
                        self._advance(s)
        except ValueError as error:
            conn.fail(error)
            raise
        finally:
            conn.writer.close()

    def _greet(self, conn: Connection, f: Frame) -> None:
        if f.kind == "Failure":
            raise Refused(f.code, f.reason)
        if f.kind != "Welcome" or f.version != 1 or f.max_frame < 65_600 or not f.max_message:
            raise Fault("a Welcome is missing, or out of range")
        conn.welcome(1 << 20, 30 if len(self.addresses) == 1 else 12, b"move" in f.features)
        self._conn, self._max_message, self._max_frame = conn, f.max_message, f.max_frame
        instance = f.instance if conn.moves else b""
        if self._instance not in (None, instance):  # another receiver: it has none of the streams
            for s in self._streams.values():
                s.tenure += 1
                for sequence, entry in s.unsettled.items():
                    entry.again |= sequence <= s.sent
        self._instance = instance

    def _on_frame(self, conn: Connection, f: Frame) -> None:
        if f.kind == "Ping":
            conn.send("Pong", f.handle, id=f.id)
        elif f.kind == "Goaway":
            self._draining = True
        elif f.kind == "Failure":
            raise Refused(f.code, f.reason)
        elif f.kind in ("Opened", "Ack", "Reject"):
            s = self._streams.get(f.handle)
            if not 0 < f.handle <= self._numbers or s and s.open == (f.kind == "Opened"):
                raise Fault(f"{f.kind} in a stream that is not in this state")
            if s and (f.kind == "Ack" or not s.given_up):
                getattr(self, f"_on_{f.kind.lower()}")(conn, s, f)
                self._kick(s)
        elif f.kind != "Pong":
            raise Fault(f"{f.kind} is for receivers")

    def _on_opened(self, conn: Connection, s: _Stream, f: Frame) -> None:
        most = max(s.base() - 1, s.sent)
        if f.code == wire.LIMIT:
            s.detach()
            s.retry, s.delay = monotonic() + s.delay, min(2 * s.delay, 30.0)
        elif f.code:
            self._give_up(s, Refused(f.code, f.reason))
        elif f.next < s.base() or len(f.settled) % 2:
            raise Fault("Opened with a position out of range")
        elif max(f.next - 1, *f.settled, 0) > most:
            s.open = True
            self._give_up(s, Refused(0, "it claims to have what was never sent"), keep=True)
        else:
            s.open, s.cursor, s.at, s.delay = True, f.next, f.next, 1.0
            s.progress(f.next, f.settled, most)

    def _on_ack(self, conn: Connection, s: _Stream, f: Frame) -> None:
        if not s.given_up:
            if f.next and not s.next <= f.next <= max(s.at, s.next):
                raise Fault("next falls, or exceeds what was sent")
            s.progress(f.next or s.next, f.settled, max(s.sent, s.next - 1, f.next - 1))
        if f.credit_messages:
            if f.credit_messages < s.limit or f.credit_bytes < s.limit_bytes:
                raise Fault("credit falls")
            s.limit, s.limit_bytes, s.wanted = f.credit_messages, f.credit_bytes, False
            s.touched = monotonic()

    def _on_reject(self, conn: Connection, s: _Stream, f: Frame) -> None:
        if f.sequence > s.sent:
            raise Fault("a Reject of what was not sent")
        if f.sequence:
            conn.send("RejectSeen", s.number, sequence=f.sequence)
            self._refuse(s, f.sequence, Refused(f.code, f.reason))
        else:
            conn.send("Release", s.number)
            self._give_up(s, Refused(f.code, f.reason))

    def _refuse(self, s: _Stream, sequence: int, error: Exception) -> None:
        entry = s.settle(sequence, error)
        if entry:
            asyncio.get_running_loop().call_soon(self.on_failure, s.topic, entry.message, error)

    def _give_up(self, s: _Stream, error: Exception, keep: bool = False) -> None:
        """Ends a stream. One that is kept returns the credit that it still gets."""
        self._topics.pop(s.topic, None)
        s.given_up = True
        if not keep:
            del self._streams[s.number]
        for sequence in list(s.unsettled):
            self._refuse(s, sequence, error)

    def _kick(self, s: _Stream) -> None:
        if not s.kicked:
            s.kicked = True
            asyncio.get_running_loop().call_soon(self._advance, s)

    def _advance(self, s: _Stream) -> None:
        """Opens a stream, sends what credit and the socket allow, and asks for more."""
        conn, now, s.kicked = self._conn, monotonic(), False
        if conn is None or self._draining or self._streams.get(s.number) is not s:
            return
        if not s.asked and (s.unsettled or s.tenure > 1) and now >= s.retry:
            s.asked, s.cursor, s.wanted = True, s.base(), bool(s.unsettled)  # a tenure voids others
            conn.send("Open", s.number, publisher=self._identity, epoch=1, secret=self._secret,
                      stream=s.number, topic=s.topic, base=s.base(), **s.waiting(),
                      tenure=s.tenure if conn.moves else 0)
        full = False
        while s.open and not full:
            full = conn.writer.transport.get_write_buffer_size() > 1 << 18
            if full or not (batch := self._batch(s)):
                break
            flags = wire.PROMPT | (wire.GAP if s.cursor != s.at else 0) | (
                wire.AGAIN if batch[0].again and conn.moves else 0)
            conn.send("Publish", s.number, first=s.cursor, flags=flags,
                      messages=[entry.data for entry in batch])
            s.used, s.used_bytes = s.used + len(batch), s.used_bytes + sum(e.size for e in batch)
            s.cursor = s.at = s.cursor + len(batch)
            s.sent, s.touched = max(s.sent, s.at - 1), now
        if not s.open or full or s.wanted:
            return
        if s.cursor <= s.last or s.limit > s.used and now - s.touched > 0.25:  # not used: returned
            conn.send("Want", s.number, **s.waiting(), seen_messages=s.limit)
            s.limit, s.limit_bytes, s.wanted = s.used, s.used_bytes, s.cursor <= s.last
        elif not s.unsettled and not s.given_up and now - s.touched > 300:
            conn.send("Release", s.number)
            del self._streams[s.number], self._topics[s.topic]

    def _batch(self, s: _Stream) -> list[_Entry]:
        """The next messages that fit into a frame and the credit. Passes over what is settled."""
        while s.cursor <= s.last:
            e = s.unsettled.get(s.cursor)
            if e and len(e.data) <= self._max_message and e.size + 64 <= self._max_frame:
                break
            self._refuse(s, s.cursor, Refused(wire.LIMIT, "larger than the receiver takes"))
            s.cursor += 1
        batch: list[_Entry] = []
        size = 0
        while (e := s.unsettled.get(s.cursor + len(batch))) and len(batch) < 1024:
            size += e.size
            if s.used + len(batch) >= s.limit or s.used_bytes + size > s.limit_bytes or batch and (
                    size > 65_000 or e.again != batch[0].again or len(e.data) > self._max_message):
                break
            batch.append(e)
        return batch
