"""The receiver of the acked protocol."""

from __future__ import annotations

import asyncio
import hmac
import os
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from . import wire
from .wire import Connection, Fault, Frame

TABLE = 65_536  # publishers, streams, topics: each


class Delivery:
    """A message, to be answered once: by ack, nack or reject, at any time."""

    __slots__ = ("topic", "uuid", "payload", "metadata", "redelivered", "taken", "_stream", "_sequence", "_size")

    def __init__(self, stream: _Stream, sequence: int, data: bytes) -> None:
        self.uuid, self.payload, self.metadata = wire.decode_message(data)
        self.topic, self.redelivered, self.taken = stream.topic.name, False, False
        self._stream, self._sequence, self._size = stream, sequence, wire.chunk_size(data)

    def ack(self) -> None:
        if self.current():
            del self._stream.unsettled[self._sequence]
            self._stream.settled.append(self._sequence)
            self._stream.release(1, self._size)

    def nack(self, delay: float = 0.1) -> None:
        """Delivers the message again, after a delay in seconds."""
        asyncio.get_running_loop().call_later(delay, self._again)

    def reject(self, reason: str) -> None:
        """Gives the message up: the publisher is told that it failed."""
        if self.current():
            self._stream.reject(self._sequence, wire.FAILED, reason, self._size)

    def current(self) -> bool:
        """Whether an answer still counts: not if the publisher has taken the message elsewhere."""
        return self._stream.unsettled.get(self._sequence) is self

    def _again(self) -> None:
        self.redelivered = True
        if self.current() and self._stream.revoked:
            self.drop(True)
        elif self.current():
            self._stream.topic.put(self)

    def drop(self, returned: bool) -> None:
        self._stream.unsettled[self._sequence] = returned
        self._stream.release(1, self._size)


class _Topic:
    def __init__(self, name: str, window: int, window_bytes: int) -> None:
        self.name, self.room, self.room_bytes, self.window, self.window_bytes = name, window, window_bytes, window, window_bytes
        self.ready: deque[Delivery] = deque()
        self.arrived = asyncio.Event()
        self.consumers = self.streams = 0
        self.wanting: dict[_Stream, None] = {}  # in order of asking

    def put(self, delivery: Delivery) -> None:
        self.ready.append(delivery)
        self.arrived.set()

    def grant(self) -> None:
        """Gives credit to those that ask for it, in order, while there is room."""
        while self.consumers and self.wanting:
            s = next(iter(self.wanting))
            if self.room < 1 or self.room_bytes < s.least:
                return
            del self.wanting[s]
            s.share = min(2 * s.share, 1 / 8)  # of the window: one that goes on gets more each time
            messages, size = max(s.want, int(self.window * s.share)), max(s.want_bytes, int(self.window_bytes * s.share))
            s.grant(min(messages, max(1, self.room // 2)), min(max(size, s.least), max(s.least, self.room_bytes // 2)))


class _Stream:
    """What is known of a stream: all below next was received, and is settled from base on if it is not in unsettled."""

    def __init__(self, topic: _Topic, base: int) -> None:
        self.topic, self.next, self.base, self.handle = topic, base, base, 0
        # A Frame is a Reject that was not confirmed; a bool a message that was dropped: was it given back?
        self.unsettled: dict[int, Delivery | Frame | bool] = {}
        self.beyond: list[int] = []  # settled at or above next: pairs
        self.tenure, self.revoked, self.awaited = 0, False, False
        self.conn: Connection | None = None
        self.settled: list[int] = []  # since the last Ack
        self.leaving = self.kept = False  # released early; its sender keeps what it sent
        self.share = 1 / 512
        self.told = self.granted = self.granted_bytes = self.got = self.got_bytes = self.want = self.want_bytes = self.least = 0
        self.dirty: Callable[[_Stream], None] = lambda s: None

    def release(self, messages: int, size: int) -> None:
        self.topic.room += messages
        self.topic.room_bytes += size
        self.topic.grant()
        self.dirty(self)

    def reject(self, sequence: int, code: int, reason: str, size: int) -> None:
        frame = self.unsettled[sequence] = Frame("Reject", self.handle, sequence=sequence, code=code, reason=reason[:128])
        if self.conn:
            self.conn.send(frame)
        self.release(1, size)

    def grant(self, messages: int, size: int) -> None:
        self.topic.room -= messages
        self.topic.room_bytes -= size
        self.granted += messages
        self.granted_bytes += size
        self.dirty(self)

    def take_back(self) -> None:
        self.topic.wanting.pop(self, None)
        messages, size = self.granted - self.got, self.granted_bytes - self.got_bytes
        self.told = self.granted = self.got
        self.granted_bytes = self.got_bytes
        self.topic.room += messages
        self.topic.room_bytes += size

    def detach(self) -> None:
        self.take_back()
        self.conn, self.told, self.granted, self.granted_bytes, self.got, self.got_bytes = None, 0, 0, 0, 0, 0
        self.topic.grant()

    def ask(self, f: Frame) -> None:
        self.want, self.want_bytes, self.least = f.want_messages, f.want_bytes, f.least_bytes
        if self.want:
            self.topic.wanting[self] = None
        self.topic.grant()

    def ranges(self) -> list[int]:
        """What is settled from base on."""
        pairs, first = [], self.base
        for sequence in [*sorted(k for k in self.unsettled if k >= first), self.next]:
            if first < sequence:
                pairs += [first, sequence - 1]
            first = sequence + 1
        return pairs + [n for a, b in zip(self.beyond[::2], self.beyond[1::2]) if a >= self.next for n in (a, b)]

    def held(self) -> list[Delivery]:
        return [d for d in self.unsettled.values() if isinstance(d, Delivery)]

    def holds(self) -> bool:
        return any(isinstance(d, Delivery) for d in self.unsettled.values())

    def restart(self) -> None:
        """Begins a new tenure with what is settled alone: the stream has been elsewhere."""
        pairs = self.ranges()
        for delivery in self.held():
            delivery.drop(False)
        self.next, self.beyond = (pairs[1] + 1, pairs[2:]) if pairs and pairs[0] == self.base else (self.base, pairs)
        self.unsettled, self.settled, self.revoked, self.awaited = {}, [], False, False

    def revoke(self, at_once: bool) -> Frame:
        """Takes back what no consumer has, and says what became of the stream."""
        self.revoked, self.want = True, 0
        self.take_back()
        for delivery in self.held():
            if not delivery.taken:
                delivery.drop(True)
        held = self.held()
        for delivery in held if at_once else ():
            delivery.drop(False)
        self.awaited = bool(held) and not at_once
        returned = wire.ranges(k for k, d in self.unsettled.items() if d is True)
        return Frame("Returned", self.handle, next=self.next, returned=returned[:4096], in_hand=len(held))

    def ack(self) -> Frame:
        ack, self.settled = Frame("Ack", self.handle, next=self.next, settled=wire.ranges(self.settled)), []
        if self.granted > self.told and not self.revoked:  # told again it could cross a Want, and give back what that returns
            self.told, ack.credit_messages, ack.credit_bytes = self.granted, self.granted, self.granted_bytes
        return ack


@dataclass
class _Publisher:
    secret: bytes
    principal: str
    epoch: int
    streams: dict[tuple[int, str], _Stream]


@dataclass
class _Peer:
    """A connection's own state."""

    principal: str
    handles: dict[int, tuple[bytes, tuple[int, str], _Stream]]
    pings: list[float]
    ponged: asyncio.Event
    moves: bool


class Listener:
    """Receives what publishers send to one address, "host:port" or "unix:///path"; to be used on one event loop.

    authenticate gets the token and the connection, and returns a name for the principal, or None to refuse it. window and
    window_bytes bound what a topic holds.
    """

    def __init__(self, address: str, *, tls: ssl.SSLContext | None = None, max_message: int = 1 << 20,
                 authenticate: Callable[[bytes, Connection], str | None] = lambda token, conn: "",
                 window: int = 16_384, window_bytes: int = 16 << 20) -> None:
        self.address, self.tls, self.max_message, self.authenticate = address, tls, max_message, authenticate
        self.window, self.window_bytes = window, max(window_bytes, max_message + 16)
        self._topics: dict[str, _Topic] = {}
        self._publishers: dict[bytes, _Publisher] = {}
        self._peers: dict[Connection, _Peer | None] = {}
        self._dirty: dict[_Stream, None] = {}
        self._closing, self._instance = False, os.urandom(16)

    async def start(self) -> None:
        """Begins to listen. port says where, if the address had port 0."""
        loop = asyncio.get_running_loop()
        self._server = await (
            loop.create_unix_server(self._accept, self.address[7:], ssl=self.tls) if self.address.startswith("unix://")
            else loop.create_server(self._accept, *wire.host_port(self.address), ssl=self.tls, backlog=1024))
        self.port = 0 if self.address.startswith("unix://") else self._server.sockets[0].getsockname()[1]
        self._ticker = asyncio.create_task(self._tick())

    async def subscribe(self, topic: str) -> AsyncIterator[Delivery]:
        """Iterates over the messages of a topic, until the listener closes. Subscribers of a topic share its messages."""
        t = self._topic(topic)
        t.consumers += 1
        t.grant()
        try:
            taken = 0
            while True:
                while not t.ready:
                    if self._closing:
                        return
                    t.arrived.clear()
                    await t.arrived.wait()
                taken += 1
                if taken % 64 == 0:
                    await asyncio.sleep(0)  # the connections have work to do too
                    if not t.ready:
                        continue
                delivery = t.ready.popleft()
                if delivery.current() and not delivery._stream.kept:
                    delivery.taken = True
                    yield delivery
        finally:
            t.consumers -= 1

    async def close(self, timeout: float = 5.0) -> None:
        """Drains: what publishers do not keep is handled, and what handlers have in hand may end, within timeout seconds."""
        end = time.monotonic() + timeout
        self._server.close()
        peers = {conn: peer for conn, peer in self._peers.items() if peer}
        for conn in peers:
            conn.send(Frame("Goaway", reason="closing"))
            conn.send(Frame("Ping", id=1))
        waits = [asyncio.ensure_future(peer.ponged.wait()) for peer in peers.values()]
        if waits:
            await asyncio.wait(waits, timeout=min(1.0, timeout))
        for peer in peers.values():
            for _, _, s in peer.handles.values():
                s.kept = peer.ponged.is_set()
        self._closing = True
        for t in self._topics.values():
            t.arrived.set()
        while time.monotonic() < end and any(d.taken or not s.kept for p in self._publishers.values()
                                             for s in p.streams.values() for d in s.held()):
            await asyncio.sleep(0.005)
        self._flush()
        for conn in list(self._peers):
            conn.half_close()
        waits = [asyncio.ensure_future(conn.ended.wait()) for conn in list(self._peers)]
        if waits:
            await asyncio.wait(waits, timeout=0.5)
        for conn in list(self._peers):
            conn.transport.abort()
        self._ticker.cancel()
        await asyncio.gather(self._ticker, return_exceptions=True)

    def _topic(self, name: str) -> _Topic:
        if name not in self._topics:
            self._topics[name] = _Topic(name, self.window, self.window_bytes)
        return self._topics[name]

    def _accept(self) -> Connection:
        conn = Connection(self._greet, self._lost, 4096)
        conn.on_writable = lambda: conn.transport.resume_reading()
        self._peers[conn] = None
        return conn

    def _lost(self, conn: Connection) -> None:
        peer = self._peers.pop(conn, None)
        for publisher, key, s in peer.handles.values() if peer else ():
            if s.conn is conn:
                s.detach()
                if s.leaving:
                    self._forget(publisher, key)

    def _greet(self, conn: Connection, f: Frame) -> None:
        if f.kind != "Hello":
            raise Fault(wire.PROTOCOL, f"{f.kind} before Hello")
        if f.version < 1:
            raise Fault(wire.VERSION, "version 0")
        if f.max_frame < wire.LEAST_FRAME:
            raise Fault(wire.PROTOCOL, "max_frame")
        principal = self.authenticate(f.token, conn)
        if principal is None:
            raise Fault(wire.UNAUTHENTICATED, "not let in")
        if len(self._peers) > 16_384:
            raise Fault(wire.LIMIT, "connections")
        moves = "move" in f.features
        self._peers[conn] = _Peer(principal, {}, [], asyncio.Event(), moves)
        conn.on_frame, conn.max_frame = self._on_frame, max(self.max_message, 65_536) + 64
        conn.send(Frame("Welcome", version=1, max_frame=conn.max_frame, max_message=self.max_message,
                        features=["move"] if moves else [], instance=self._instance if moves else b""))

    def _on_frame(self, conn: Connection, f: Frame) -> None:
        peer = self._peers[conn]
        assert peer
        if conn.paused:
            conn.transport.pause_reading()
        if f.kind == "Open":
            self._on_open(conn, peer, f)
        elif f.kind in ("Publish", "Want", "RejectSeen"):
            if f.handle not in peer.handles:
                raise Fault(wire.PROTOCOL, f"handle {f.handle} is not open")
            s = peer.handles[f.handle][2]
            if s.conn is conn and s.revoked and f.kind != "RejectSeen":
                if f.kind == "Publish":
                    raise Fault(wire.PROTOCOL, "a Publish in a stream that was revoked")
            elif s.conn is conn:
                s.leaving = False
                {"Publish": self._on_publish, "Want": self._on_want, "RejectSeen": self._on_reject_seen}[f.kind](s, f)
        elif f.kind == "Revoke":
            self._on_revoke(conn, peer, f)
        elif f.kind == "Release":
            opened = peer.handles.get(f.handle)
            if opened and opened[2].conn is conn:
                opened[2].leaving = any(not isinstance(d, bool) for d in opened[2].unsettled.values())  # unless something follows
                if not opened[2].leaving:
                    del peer.handles[f.handle]
                    self._forget(*opened[:2])
        elif f.kind == "Ping":
            now = time.monotonic()
            peer.pings = [*peer.pings[-1000:], now]
            if len(peer.pings) > 1000 and now - peer.pings[0] < 1:
                raise Fault(wire.PROTOCOL, "too many pings")
            conn.send(Frame("Pong", id=f.id, handle=f.handle))
        elif f.kind == "Pong":
            if f.id == 1:
                peer.ponged.set()
        elif f.kind != "Failure":
            raise Fault(wire.PROTOCOL, f"{f.kind} is for senders")
        else:
            conn.transport.close()

    def _refusal(self, conn: Connection, peer: _Peer, f: Frame) -> tuple[int, str]:
        if len(f.publisher) != 16 or len(f.secret) != 16 or len(f.topic.encode()) > 1024:
            return wire.PROTOCOL, "publisher, secret or topic"
        if not (f.epoch and f.stream and f.base):
            return wire.PROTOCOL, "epoch, stream or base is 0"
        p = self._publishers.get(f.publisher)
        if p and (not hmac.compare_digest(p.secret, f.secret) or p.principal != peer.principal or f.epoch < p.epoch):
            return wire.FENCED, "another secret, principal, or a newer epoch"
        s = p.streams.get((f.stream, f.topic)) if p and p.epoch == f.epoch else None
        if s and 0 < f.tenure < s.tenure:
            return wire.FENCED, "the stream has moved"
        if len(peer.handles) >= TABLE or not p and not self._make_room() or f.topic not in self._topics and len(self._topics) >= TABLE:
            return wire.LIMIT, "streams, publishers or topics"
        return 0, ""

    def _make_room(self) -> bool:
        """Forgets the oldest publisher that is away and owes nothing, if the table is full."""
        if len(self._publishers) < TABLE:
            return True
        for key, p in self._publishers.items():
            if not any(s.conn or s.unsettled for s in p.streams.values()):
                del self._publishers[key]
                return True
        return False

    def _on_open(self, conn: Connection, peer: _Peer, f: Frame) -> None:
        if not f.handle or f.handle in peer.handles:
            raise Fault(wire.PROTOCOL, "a handle that is open, or 0")
        code, reason = self._refusal(conn, peer, f)
        if code:
            known = self._publishers.get(f.publisher)
            epoch = known.epoch if code == wire.FENCED and known and hmac.compare_digest(known.secret, f.secret) else 0
            return conn.send(Frame("Opened", f.handle, code=code, reason=reason, last_epoch=epoch))
        p = self._publishers.setdefault(f.publisher, _Publisher(f.secret, peer.principal, f.epoch, {}))
        key = (f.stream, f.topic)
        if f.epoch > p.epoch:  # the older ones end
            p.epoch = f.epoch
            for old in {s.conn for s in p.streams.values() if s.conn and s.conn is not conn}:
                self._cut(old)
        s = p.streams.get(key)
        if s is None:
            s = p.streams[key] = _Stream(self._topic(f.topic), f.base)
            s.dirty = self._mark
        elif s.conn and s.conn is not conn:
            self._cut(s.conn)
        elif s.conn:
            del peer.handles[s.handle]
            s.detach()
        if s.revoked or f.tenure > s.tenure > 0:
            s.restart()
        s.base, s.next, s.tenure = max(s.base, f.base), max(s.next, f.base), f.tenure or s.tenure
        s.conn, s.handle, s.settled, s.leaving = conn, f.handle, [], False
        peer.handles[f.handle] = (f.publisher, key, s)
        pairs = s.ranges()
        conn.send(Frame("Opened", f.handle, next=s.next, settled=pairs[:4096], last_epoch=p.epoch))
        for at in range(4096, len(pairs), 4096):
            conn.send(Frame("Ack", f.handle, settled=pairs[at : at + 4096]))
        for reject in [r for r in s.unsettled.values() if isinstance(r, Frame)]:
            reject.handle = f.handle
            conn.send(reject)
        s.ask(f)

    def _cut(self, conn: Connection) -> None:
        self._lost(conn)
        conn.transport.abort()

    def _forget(self, publisher: bytes, key: tuple[int, str]) -> None:
        """Forgets a stream, and its publisher with the last; one that holds messages goes with the last of them."""
        s = self._publishers[publisher].streams[key]
        if s.holds():
            s.dirty = lambda s: None if s.conn or s.holds() else self._forget(publisher, key)
            return
        s.detach()
        del self._publishers[publisher].streams[key]
        if not self._publishers[publisher].streams:
            del self._publishers[publisher]

    def _on_publish(self, s: _Stream, f: Frame) -> None:
        last = f.first + len(f.messages) - 1
        if not 1 <= len(f.messages) <= 4096 or not 1 <= f.first <= last <= 2**64 - 2:
            raise Fault(wire.PROTOCOL, "a Publish out of range")
        sizes = [wire.chunk_size(m) for m in f.messages]
        s.got += len(f.messages)
        s.got_bytes += sum(sizes)
        if s.got > s.granted or s.got_bytes > s.granted_bytes:
            raise Fault(wire.PROTOCOL, "a Publish beyond the credit")
        if f.first > s.next:
            if not f.flags & wire.GAP:
                raise Fault(wire.PROTOCOL, f"sequences from {s.next} are missing")
            s.next = f.first
        if any(max(a, s.next) <= last and f.first <= b for a, b in zip(s.beyond[::2], s.beyond[1::2])):
            raise Fault(wire.PROTOCOL, "a sequence that is settled")
        for sequence, data, size in zip(range(f.first, last + 1), f.messages, sizes):
            if sequence < s.next:  # we have it
                s.topic.room, s.topic.room_bytes = s.topic.room + 1, s.topic.room_bytes + size
                continue
            s.next = sequence + 1
            try:
                if len(data) > self.max_message:
                    s.reject(sequence, wire.LIMIT, "larger than max_message", size)
                    continue
                delivery = Delivery(s, sequence, data)
            except (Fault, ValueError) as error:
                s.reject(sequence, wire.UNDECODABLE, str(error), size)
                continue
            delivery.redelivered = bool(f.flags & wire.AGAIN)
            s.unsettled[sequence] = delivery
            s.topic.put(delivery)
        if s.want and not s.topic.wanting and s.granted - s.got < s.topic.window * s.share / 2:
            s.topic.wanting[s] = None  # a stream that goes on need not ask each time
        s.topic.grant()
        self._mark(s)

    def _on_revoke(self, conn: Connection, peer: _Peer, f: Frame) -> None:
        if not peer.moves or not f.handle:
            raise Fault(wire.PROTOCOL, "a Revoke without the feature, or with handle 0")
        p, key = self._publishers.get(f.publisher), (f.stream, f.topic)
        s = p.streams.get(key) if p and hmac.compare_digest(p.secret, f.secret) and p.principal == peer.principal and f.epoch >= p.epoch else None
        if s is None or p and f.epoch == p.epoch and s.tenure >= f.tenure:
            return conn.send(Frame("Returned", f.handle))
        here = s.conn is conn and s.handle == f.handle
        if s.conn and s.conn is not conn:
            self._cut(s.conn)
        elif s.conn and not here:
            del peer.handles[s.handle]
        s.conn, s.handle = conn, f.handle
        peer.handles[f.handle] = (f.publisher, key, s)
        settled = [] if here else s.ranges()
        answer = s.revoke(bool(f.at_once))
        if here:
            conn.send(s.ack())
        answer.settled = settled[:4096]
        conn.send(answer)

    def _on_want(self, s: _Stream, f: Frame) -> None:
        if f.seen_messages == s.granted:
            s.take_back()
            s.ask(f)

    def _on_reject_seen(self, s: _Stream, f: Frame) -> None:
        if isinstance(s.unsettled.get(f.sequence), Frame):
            del s.unsettled[f.sequence]

    def _mark(self, s: _Stream) -> None:
        if not self._dirty:
            asyncio.get_running_loop().call_soon(self._flush)
        self._dirty[s] = None

    def _flush(self) -> None:
        """Tells of what was received, settled and granted."""
        streams, self._dirty = self._dirty, {}
        for s in streams:
            if s.conn and not s.conn.transport.is_closing():
                s.conn.send(s.ack())
                if s.awaited and not s.holds():
                    s.conn.send(s.revoke(False))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1)
            now = time.monotonic()
            for conn, peer in list(self._peers.items()):
                if now - conn.heard > (30 if peer else 5):
                    conn.transport.abort()
                elif peer and conn.buffer and now - conn.said > 3:
                    conn.send(Frame("Pong"))
