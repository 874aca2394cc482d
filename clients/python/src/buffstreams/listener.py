"""The receiver of the acked protocol."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from hmac import compare_digest
from time import monotonic
from typing import Any

from . import wire
from .wire import Connection, Fault, Frame

TABLE = 65_536  # streams of a connection, publishers, topics


class Delivery:
    """A message, to be answered once: by ack, nack or reject, at any time."""

    __slots__ = ("topic", "uuid", "payload", "metadata", "redelivered", "_state", "_stream",
                 "_sequence", "_size")

    def __init__(self, stream: _Stream, sequence: int, data: bytes, size: int, again: bool) -> None:
        self.uuid, self.payload, self.metadata = wire.decode_message(data)
        self.topic, self.redelivered, self._state = stream.topic.name, again, "ready"
        self._stream, self._sequence, self._size = stream, sequence, size

    def ack(self) -> None:
        """Says that the message is handled."""
        if self.current():
            del self._stream.unsettled[self._sequence]
            self._stream.settled.append(self._sequence)
            self._stream.drop(self, "settled")

    def nack(self, delay: float = 0.1) -> None:
        """Delivers the message again, after a delay in seconds."""
        asyncio.get_running_loop().call_later(delay, self._again)

    def reject(self, reason: str) -> None:
        """Gives the message up: the publisher is told that it failed."""
        if self.current():
            del self._stream.unsettled[self._sequence]
            self._stream.reject(self._sequence, wire.FAILED, reason)
            self._stream.drop(self, "settled")

    def current(self) -> bool:
        """Whether an answer still counts: not if the publisher has taken the message elsewhere."""
        return self._state in ("ready", "taken")

    def _again(self) -> None:
        self.redelivered = True
        if self.current() and self._stream.revoked:
            self._stream.drop(self, "returned")
        elif self.current():
            self._state = "ready"
            self._stream.topic.ready.put_nowait(self)


class _Topic:
    def __init__(self, name: str, window: int, window_bytes: int) -> None:
        self.name, self.consumers, self.window, self.window_bytes = name, 0, window, window_bytes
        self.room, self.room_bytes = window, window_bytes  # neither held nor granted
        self.ready: asyncio.Queue[Delivery | None] = asyncio.Queue()  # None: the listener closes
        self.wanting: dict[_Stream, None] = {}  # credit, in order of asking

    def give(self, messages: int, size: int) -> None:
        """Gets room back, and grants it to the streams that want some, in turn."""
        self.room, self.room_bytes = self.room + messages, self.room_bytes + size
        for s in list(self.wanting) if self.consumers else ():
            if self.room < 1 or self.room_bytes < s.least:
                break
            del self.wanting[s]
            messages = min(max(s.want, self.window // 32), max(1, self.room // 2))
            size = min(max(s.want_bytes, self.window_bytes // 32), self.room_bytes // 2)
            size = max(size, s.least)
            self.room, self.room_bytes = self.room - messages, self.room_bytes - size
            s.granted, s.granted_bytes = s.granted + messages, s.granted_bytes + size
            s.kick()


@dataclass
class _Publisher:
    id: bytes
    secret: bytes
    principal: str
    epoch: int
    streams: dict[tuple[int, str], _Stream] = field(default_factory=dict)

    def is_of(self, peer: _Peer, f: Frame) -> bool:
        return compare_digest(self.secret, f.secret) and self.principal == peer.principal


class _Stream:
    """A stream. Below next, or high, all is settled but what is unsettled, rejected or a hole."""

    def __init__(self, publisher: _Publisher, number: int, topic: _Topic, base: int) -> None:
        self.publisher, self.number, self.topic, self.tenure = publisher, number, topic, 0
        self.base = self.next = self.high = base
        self.unsettled: dict[int, Delivery] = {}  # held, or dropped without being settled
        self.rejects: dict[int, dict[str, Any]] = {}  # not confirmed
        self.holes: set[int] = set()  # from next to high: what was given up when the stream moved
        self.revoked = self.awaited = self.kicked = self.kept = False
        self.conn: _Peer | None = None
        self.handle = self.told = self.granted = self.granted_bytes = self.got = self.got_bytes = 0
        self.want = self.want_bytes = self.least = 0
        self.settled: list[int] = []  # since the last Ack

    def attach(self, conn: _Peer | None, handle: int = 0) -> None:
        """Goes on with a connection, or without one. Credit is counted anew."""
        if self.conn:
            del self.conn.handles[self.handle]
        if conn:
            conn.handles[handle] = self
        self.take_back()
        self.told = self.granted = self.granted_bytes = self.got = self.got_bytes = 0
        self.conn, self.handle, self.settled = conn, handle, []
        self.kept = self.kept and conn is None

    def take_back(self) -> None:
        """Takes back credit that was not used."""
        messages, size = self.granted - self.got, self.granted_bytes - self.got_bytes
        self.told = self.granted = self.got
        self.granted_bytes, self.want = self.got_bytes, 0
        self.topic.wanting.pop(self, None)
        self.topic.give(messages, size)

    def ask(self, f: Frame) -> None:
        self.want, self.want_bytes = f.want_messages, f.want_bytes
        self.least = min(f.least_bytes, self.topic.window_bytes)
        if self.want:
            self.topic.wanting[self] = None
            self.topic.give(0, 0)

    def held(self) -> list[Delivery]:
        return [delivery for delivery in self.unsettled.values() if delivery.current()]

    def drop(self, delivery: Delivery, state: str) -> None:
        """Holds a message no longer: it is settled, returned or void."""
        delivery._state = state
        self.topic.give(1, delivery._size)
        self.kick()

    def reject(self, sequence: int, code: int, reason: str) -> None:
        self.rejects[sequence] = {"sequence": sequence, "code": code, "reason": reason[:128]}
        if self.conn:
            self.conn.send("Reject", self.handle, **self.rejects[sequence])

    def ranges(self) -> list[int]:
        """What is settled from base on."""
        found, first = [], self.base
        end = max(self.next, self.high)
        for sequence in sorted({*self.unsettled, *self.rejects, *self.holes, end}):
            if first < sequence:
                found += [first, sequence - 1]
            first = max(first, sequence + 1)
        return found

    def take(self, sequence: int) -> bool:
        """Whether a message that arrives is new."""
        new = sequence >= self.next
        self.holes.discard(sequence)
        self.next = max(self.next, sequence + 1)
        return new

    def restart(self) -> None:
        """Begins a new tenure with what is settled alone: the stream has been elsewhere."""
        for delivery in self.held():
            self.drop(delivery, "void")
        open = {*self.holes, *self.unsettled, *self.rejects}
        self.holes, self.high = {n for n in open if n >= self.base}, max(self.next, self.high)
        self.next = min(self.holes, default=self.high)
        self.unsettled, self.rejects, self.revoked, self.awaited = {}, {}, False, False

    def revoke(self, at_once: bool, settled: list[int]) -> None:
        """Takes back what no consumer has, and says what became of the stream."""
        self.revoked = True
        self.take_back()
        in_hand = [delivery for delivery in self.held() if delivery._state == "taken"]
        for delivery in self.held():
            if at_once or delivery._state == "ready":
                self.drop(delivery, "returned" if delivery._state == "ready" else "void")
        self.awaited = bool(in_hand) and not at_once
        returned = wire.ranges(n for n, d in self.unsettled.items() if d._state == "returned")
        if self.conn:
            self.conn.send("Returned", self.handle, next=self.next, settled=settled[:4096],
                           returned=returned[:4096], in_hand=len(in_hand))

    def kick(self) -> None:
        if not self.kicked:
            self.kicked = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Tells of what was received, settled and granted."""
        self.kicked, settled, credit = False, wire.ranges(self.settled), {}
        if self.granted > self.told and not self.revoked:  # told again, it could cross a Want
            credit = {"credit_messages": self.granted, "credit_bytes": self.granted_bytes}
        self.told, self.settled = self.granted, []
        if self.conn:
            self.conn.send("Ack", self.handle, next=self.next, settled=settled,
                           **credit)
            if self.awaited and not self.held():
                self.revoke(False, [])


class _Peer(Connection):
    principal, ponged = "", False

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self.handles: dict[int, _Stream] = {}
        self.pings: deque[float] = deque(maxlen=1000)

    def end(self) -> None:
        """Ends the connection. Its streams keep everything but credit."""
        for s in list(self.handles.values()):
            s.attach(None)
        self.writer.transport.abort()


class Listener:
    """Receives what publishers send to "host:port" or "unix:///path"; to be used on one event loop.

    authenticate gets the token and the connection, and returns a name for the principal, or None
    to refuse it. window and window_bytes bound what a topic holds; its streams share them.
    """

    def __init__(self, address: str, *, tls: ssl.SSLContext | None = None,
                 authenticate: Callable[[bytes, Connection], str | None] = lambda *_: "",
                 max_message: int = 1 << 20, window: int = 16_384,
                 window_bytes: int = 16 << 20) -> None:
        self.address, self.tls, self.authenticate = address, tls, authenticate
        self.max_message, self.window = max_message, (window, max(window_bytes, max_message + 16))
        self._topics: dict[str, _Topic] = {}
        self._publishers: dict[bytes, _Publisher] = {}
        self._peers: set[_Peer] = set()
        self._instance = os.urandom(16)

    async def start(self) -> None:
        """Begins to listen. port says where, if the address had port 0."""
        limit, self.port = 5 if self.tls else None, 0
        if self.address.startswith("unix://"):
            self._server = await asyncio.start_unix_server(
                self._serve, self.address[7:], ssl=self.tls, ssl_handshake_timeout=limit)
            return
        self._server = await asyncio.start_server(
            self._serve, *wire.host_port(self.address), ssl=self.tls, ssl_handshake_timeout=limit,
            backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def subscribe(self, topic: str) -> AsyncIterator[Delivery]:
        """Iterates over the messages of a topic, until the listener closes. Subscribers of a topic
        share its messages."""
        t, taken = self._topic(topic), 0
        t.consumers += 1
        t.give(0, 0)
        try:
            while delivery := t.ready.get_nowait() if t.ready.qsize() else await t.ready.get():
                if delivery.current() and not delivery._stream.kept:
                    delivery._state, taken = "taken", taken + 1
                    yield delivery
                if taken % 64 == 0:
                    await asyncio.sleep(0)  # the connections have work to do too
            t.ready.put_nowait(None)  # for the next consumer
        finally:
            t.consumers -= 1

    async def close(self, timeout: float = 5.0) -> None:
        """Drains: what publishers do not keep is handled, and what handlers have in hand may end,
        within timeout seconds."""
        self._server.close()
        end, peers = monotonic() + timeout, [peer for peer in self._peers if peer.greeted]
        for peer in peers:
            peer.send("Goaway", reason="closing")
            peer.send("Ping", id=1)
        await wire.until(lambda: all(peer.ponged or peer not in self._peers for peer in peers),
                         min(1.0, timeout))
        for peer in peers:
            for s in peer.handles.values():
                s.kept = peer.ponged
        for topic in self._topics.values():
            topic.ready.put_nowait(None)
        await wire.until(lambda: not any(self._in_hand()), end - monotonic())
        for peer in self._peers:
            for s in peer.handles.values():
                s.flush()
            peer.half_close()
        await wire.until(lambda: not self._peers, 0.5)
        for peer in list(self._peers):
            peer.end()

    def _in_hand(self) -> Iterator[Delivery]:
        """What is to be handled before the end: what consumers have, or no publisher keeps."""
        for s in (s for p in self._publishers.values() for s in p.streams.values()):
            yield from (d for d in s.held() if d._state == "taken" or not s.kept)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = _Peer(reader, writer)
        self._peers.add(peer)
        try:
            while not writer.is_closing():
                f = await peer.read(3)
                if f and peer.greeted:
                    self._on_frame(peer, f)
                elif f:
                    self._greet(peer, f)
                if writer.transport.get_write_buffer_size() > 1 << 18:
                    async with asyncio.timeout(10):
                        await writer.drain()
        except ValueError as error:
            peer.fail(error)
        except OSError:
            pass  # it has ended, or is silent
        finally:
            self._peers.discard(peer)
            for s in list(peer.handles.values()):
                s.attach(None)
            writer.close()

    def _topic(self, name: str) -> _Topic:
        return self._topics.setdefault(name, _Topic(name, *self.window))

    def _greet(self, peer: _Peer, f: Frame) -> None:
        if f.kind != "Hello" or f.version and f.max_frame < 65_600:
            raise Fault("no Hello, or its max_frame is below 65,600")
        principal = self.authenticate(f.token, peer)
        if f.version < 1:
            raise Fault("version 0", wire.VERSION)
        if principal is None:
            raise Fault("not let in", wire.UNAUTHENTICATED)
        peer.principal = principal
        peer.welcome(max(self.max_message, 65_536) + 64, 30, b"move" in f.features)
        peer.send("Welcome", version=1, max_frame=peer.max_frame, max_message=self.max_message,
                  features=[b"move"] if peer.moves else [],
                  instance=self._instance if peer.moves else b"")

    def _on_frame(self, peer: _Peer, f: Frame) -> None:
        s = peer.handles.get(getattr(f, "handle", 0))
        if f.kind == "Open":
            self._on_open(peer, f)
        elif f.kind == "Revoke":
            self._on_revoke(peer, f)
        elif f.kind == "Release":
            if s and not s.held() and not s.rejects:
                self._forget(s)
        elif f.kind == "Ping":
            if len(peer.pings) == 1000 and monotonic() - peer.pings[0] < 1:
                raise Fault("too many pings")
            peer.pings.append(monotonic())
            peer.send("Pong", f.handle, id=f.id)
        elif f.kind == "Pong":
            peer.ponged |= f.id == 1
        elif f.kind == "Failure":
            raise ConnectionError("the peer found a fault")
        elif f.kind not in ("Publish", "Want", "RejectSeen"):
            raise Fault(f"{f.kind} is for senders")
        elif s is None or s.revoked and f.kind == "Publish":
            raise Fault(f"handle {f.handle} is not open")
        elif f.kind == "Publish":
            self._on_publish(s, f)
        elif f.kind == "RejectSeen":
            s.rejects.pop(f.sequence, None)
        elif f.seen_messages == s.granted and not s.revoked:  # else a grant crossed it
            s.take_back()
            s.ask(f)

    def _refusal(self, peer: _Peer, f: Frame, p: _Publisher | None) -> int:
        if len(f.publisher) != 16 or len(f.secret) != 16 or len(f.topic.encode()) > 1024 or not (
                f.epoch and f.stream and f.base):
            return wire.PROTOCOL
        s = p.streams.get((f.stream, f.topic)) if p and p.epoch == f.epoch else None
        if p and (not p.is_of(peer, f) or f.epoch < p.epoch or s and 0 < f.tenure < s.tenure):
            return wire.FENCED
        topics = len(self._topics) + (f.topic not in self._topics)
        full = max(topics, len(peer.handles) + 1) > TABLE or not p and not self._make_room()
        return wire.LIMIT if full else 0

    def _make_room(self) -> bool:
        """Forgets the oldest publisher that is away and owes nothing, if there are too many."""
        for key, p in self._publishers.items() if len(self._publishers) >= TABLE else ():
            if not any(s.conn or s.unsettled or s.rejects for s in p.streams.values()):
                del self._publishers[key]
                return True
        return len(self._publishers) < TABLE

    def _on_open(self, peer: _Peer, f: Frame) -> None:
        if not f.handle or f.handle in peer.handles:
            raise Fault("a handle that is open, or 0")
        p = self._publishers.get(f.publisher)
        if code := self._refusal(peer, f, p):
            epoch = p.epoch if p and code == wire.FENCED and p.is_of(peer, f) else 0
            peer.send("Opened", f.handle, code=code, last_epoch=epoch)
            return
        if p is None:
            p = self._publishers[f.publisher] = _Publisher(f.publisher, f.secret,
                                                                     peer.principal, f.epoch)
        if f.epoch > p.epoch:
            p.epoch = f.epoch
            for older in {s.conn for s in p.streams.values() if s.conn and s.conn is not peer}:
                older.end()
        s = p.streams.setdefault((f.stream, f.topic),
                                 _Stream(p, f.stream, self._topic(f.topic), f.base))
        if s.conn and s.conn is not peer:
            s.conn.end()
        s.attach(peer, f.handle)
        s.base = max(s.base, f.base)
        if s.revoked or f.tenure > s.tenure > 0:
            s.restart()
        s.next, s.tenure = max(s.next, s.base), f.tenure or s.tenure
        settled = s.ranges()
        peer.send("Opened", f.handle, next=s.next, settled=settled[:4096],
                  last_epoch=p.epoch)
        for at in range(4096, len(settled), 4096):
            peer.send("Ack", f.handle, settled=settled[at : at + 4096])
        for reject in s.rejects.values():
            peer.send("Reject", f.handle, **reject)
        s.ask(f)

    def _forget(self, s: _Stream) -> None:
        s.attach(None)
        del s.publisher.streams[s.number, s.topic.name]
        if not s.publisher.streams:
            del self._publishers[s.publisher.id]

    def _on_publish(self, s: _Stream, f: Frame) -> None:
        last = f.first + len(f.messages) - 1
        if not 1 <= len(f.messages) <= 4096 or not 1 <= f.first <= last <= 2**64 - 2:
            raise Fault("a Publish out of range")
        again, sizes = bool(f.flags & wire.AGAIN), [wire.credit(message) for message in f.messages]
        got, got_bytes = s.got + len(sizes), s.got_bytes + sum(sizes)
        if got > s.granted or got_bytes > s.granted_bytes:
            raise Fault("a Publish beyond the credit")
        if f.first > s.next and not f.flags & wire.GAP:
            raise Fault(f"sequences from {s.next} are missing")
        if not s.holes.issuperset(range(max(f.first, s.next), min(last + 1, s.high))):
            raise Fault("a sequence that is settled")
        s.got, s.got_bytes = got, got_bytes
        s.holes, s.next = {hole for hole in s.holes if hole >= f.first}, max(s.next, f.first)
        for sequence, data, size in zip(range(f.first, last + 1), f.messages, sizes):
            if not s.take(sequence):
                s.topic.give(1, size)  # a duplicate
                continue
            try:
                if len(data) > self.max_message:
                    raise Fault("larger than max_message")
                s.unsettled[sequence] = Delivery(s, sequence, data, size, again)
                s.topic.ready.put_nowait(s.unsettled[sequence])
            except ValueError as error:
                large = len(data) > self.max_message
                s.reject(sequence, wire.LIMIT if large else wire.UNDECODABLE, str(error))
                s.topic.give(1, size)
        if s.want and not s.topic.wanting and s.granted - s.got < s.topic.window // 64:
            s.topic.wanting[s] = None  # a stream that goes on need not ask each time
        s.topic.give(0, 0)
        s.kick()

    def _on_revoke(self, peer: _Peer, f: Frame) -> None:
        if not peer.moves or not f.handle:
            raise Fault("a Revoke without the feature, or with handle 0")
        p = self._publishers.get(f.publisher)
        known = p and p.is_of(peer, f) and f.epoch >= p.epoch
        s = p.streams.get((f.stream, f.topic)) if p and known else None
        if s is None or p and f.epoch == p.epoch and s.tenure >= f.tenure:
            peer.send("Returned", f.handle)
            return
        settled: list[int] = []
        if s.conn is peer and s.handle == f.handle:
            s.flush()
        else:
            settled = s.ranges()
            if s.conn and s.conn is not peer:
                s.conn.end()
            s.attach(peer, f.handle)
        s.revoke(bool(f.at_once), settled)
