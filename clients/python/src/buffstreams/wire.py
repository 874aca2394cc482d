"""Frames of the acked protocol, and a connection that carries them."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from types import SimpleNamespace
from typing import Any

CODES = (" PROTOCOL VERSION UNAUTHENTICATED FORBIDDEN FENCED TOPIC_GONE LIMIT UNDECODABLE"
         " FAILED").split(" ")
(PROTOCOL, VERSION, UNAUTHENTICATED, FORBIDDEN, FENCED, TOPIC_GONE, LIMIT, UNDECODABLE,
 FAILED) = range(1, 10)
GAP, PROMPT, AGAIN = 1, 2, 4

SCHEMA = {  # the fields of each body, in the order of their numbers
    "Hello": "version max_frame token agent features",
    "Welcome": "version max_frame max_message features instance",
    "Open": "handle publisher epoch secret stream topic base want_messages want_bytes least_bytes"
            " incarnation tenure",
    "Opened": "handle code reason next settled last_epoch last_incarnation",
    "Publish": "handle first flags messages",
    "Ack": "handle next settled credit_messages credit_bytes",
    "Want": "handle want_messages want_bytes least_bytes seen_messages",
    "Reject": "handle sequence code reason",
    "RejectSeen": "handle sequence",
    "Ping": "id handle",
    "Pong": "id handle why",
    "Goaway": "reason",
    "Failure": "code reason",
    "Release": "handle",
    "Revoke": "handle publisher epoch secret stream topic tenure at_once",
    "Returned": "handle next settled returned in_hand",
}
FIELDS = {kind: dict(enumerate(names.split(), 1)) for kind, names in SCHEMA.items()}
KINDS = dict(zip([n for n in range(1, 18) if n != 15], SCHEMA))  # 15 is the checksum
NUMBERS = {kind: number for number, kind in KINDS.items()}
BYTES = {"token", "instance", "publisher", "secret", "incarnation", "last_incarnation"}
TEXTS = {"agent", "reason", "topic", "why"}
LISTS = {"settled": int, "returned": int, "features": bytes, "messages": bytes}


class Fault(ValueError):
    """The peer broke the protocol. Code 0: its bytes cannot be trusted, and it is told nothing."""

    def __init__(self, reason: str, code: int = PROTOCOL) -> None:
        super().__init__(reason)
        self.code = code


class Frame(SimpleNamespace):
    """A frame of any kind. It has all fields that SCHEMA says."""

    def __init__(self, kind: str, handle: int = 0, **fields: Any) -> None:
        for name in FIELDS[kind].values():
            empty = b"" if name in BYTES else "" if name in TEXTS else [] if name in LISTS else 0
            self.__dict__[name] = empty
        self.__dict__.update(fields, kind=kind, handle=handle)


@functools.lru_cache(4096)
def varint(n: int) -> bytes:
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    if at < len(data) and data[at] < 128:  # as nearly all are
        return data[at], at + 1
    value = shift = 0
    while at < len(data) and shift < 64:
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128 and value < 1 << 64:
            return value, at
        shift += 7
    raise Fault("malformed varint")


def chunk(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def credit(message: bytes) -> int:
    """What a message counts of the credit: its size in a Publish."""
    return 1 + len(varint(len(message))) + len(message)


def ranges(sequences: Iterable[int]) -> list[int]:
    """Pairs of the first and last of consecutive numbers."""
    found: list[int] = []
    for sequence in sorted(sequences):
        if found and found[-1] == sequence - 1:
            found[-1] = sequence
        else:
            found += [sequence, sequence]
    return found


def scan(data: bytes) -> list[tuple[int, Any]]:
    """The fields of a protobuf message: numbers, with an int, bytes or None each."""
    at, fields = 0, []
    while at < len(data):
        tag, at = read_varint(data, at)
        wire = tag & 7
        value: Any = None
        if wire == 0:
            value, at = read_varint(data, at)
        elif wire == 2:
            size, at = read_varint(data, at)
            value, at = data[at : at + size], at + size
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        if wire not in (0, 1, 2, 5) or tag < 8 or at > len(data):
            raise Fault("malformed field")
        fields.append((tag >> 3, value))
    return fields


def encode(frame: Frame, checksum: bool = True) -> bytes:
    """A frame with its length."""
    body = b""
    for number, name in FIELDS[frame.kind].items():
        value = getattr(frame, name)
        if LISTS.get(name) is bytes:
            body += b"".join([chunk(number, item) for item in value])
        elif value and isinstance(value, int):
            body += bytes([number << 3]) + varint(value)
        elif value:
            body += chunk(number, b"".join(map(varint, value)) if name in LISTS
                          else value.encode() if name in TEXTS else value)
    payload = chunk(NUMBERS[frame.kind], body)
    if checksum:
        payload += b"\x7d" + crc32c(payload).to_bytes(4, "little")
    return len(payload).to_bytes(4, "big") + payload


def decode(payload: bytes, checksum: bool = True) -> Frame:
    """The frame of a payload. A Fault, or another ValueError, says what is wrong with it."""
    if checksum:
        payload, check = payload[:-5], payload[-5:]
        if check != b"\x7d" + crc32c(payload).to_bytes(4, "little"):
            raise Fault("wrong checksum", 0)
    bodies = scan(payload)
    if len(bodies) != 1 or bodies[0][0] not in KINDS or not isinstance(bodies[0][1], bytes):
        raise Fault("a frame is one known body, and nothing else")
    frame, fields = Frame(KINDS[bodies[0][0]]), scan(bodies[0][1])
    if frame.kind == "Publish":
        messages = [number == 4 for number, _ in fields]
        if messages != sorted(messages) or messages != [isinstance(v, bytes) for _, v in fields]:
            raise Fault("a Publish has varints, then messages")
    for number, value in fields:
        name = FIELDS[frame.kind].get(number, "")
        if name in LISTS and isinstance(value, LISTS[name]):
            getattr(frame, name).append(value)
        elif name in LISTS and isinstance(value, bytes):  # packed
            at = 0
            while at < len(value):
                item, at = read_varint(value, at)
                getattr(frame, name).append(item)
        elif name in TEXTS and isinstance(value, bytes):
            setattr(frame, name, value.decode())
        elif name and type(value) is type(getattr(frame, name)):
            setattr(frame, name, value)
    return frame


def encode_message(uuid: str, payload: bytes, metadata: Mapping[str, bytes]) -> bytes:
    """An Envelope."""
    data = chunk(1, uuid.encode()) if uuid else b""
    data += chunk(2, payload) if payload else b""
    for key, value in metadata.items():
        data += chunk(3, chunk(1, key.encode()) + chunk(2, value))
    return data


def decode_message(data: bytes) -> tuple[str, bytes, dict[str, bytes]]:
    """UUID, payload and metadata of an Envelope. A ValueError says that it is none."""
    found, metadata = {1: b"", 2: b""}, {}
    for number, value in scan(data):
        if number == 3 and isinstance(value, bytes):
            pair = {1: b"", 2: b""} | {n: v for n, v in scan(value) if isinstance(v, bytes)}
            metadata[pair[1].decode()] = pair[2]
        elif isinstance(value, bytes):
            found[number] = value
    return found[1].decode(), found[2], metadata


_TABLE = list(range(256))
for _ in range(8):
    _TABLE = [n >> 1 ^ (0x82F63B78 if n & 1 else 0) for n in _TABLE]


@functools.cache
def _folding(size: int) -> list[bytes]:
    """What becomes of a byte with so many behind it: the bytes of its checksum, as four tables."""
    bits = [crc32c(bytes([1 << bit]) + bytes(size - 4), 0) for bit in range(8)]
    sums = [0]
    for byte in range(1, 256):
        sums.append(sums[byte & byte - 1] ^ bits[(byte & -byte).bit_length() - 1])
    return [bytes([n >> shift & 255 for n in sums]) for shift in (0, 8, 16, 24)]


def crc32c(data: bytes, start: int = 0xFFFFFFFF) -> int:
    """CRC-32C. Folds a long head onto its tail: a loop over the bytes takes ten times as long."""
    crc = start
    if len(data) > 67:
        crc, head = 0, int.from_bytes(data[:4], "little") ^ start
        data = head.to_bytes(4, "little") + data[4:]
    while len(data) > 67:
        size = (1 << (len(data) - 4).bit_length() - 1) + 3
        tail = int.from_bytes(data[-size:], "big")
        for shift, table in zip((24, 16, 8, 0), _folding(size)):
            tail ^= int.from_bytes(data[:-size].translate(table), "big") << shift
        data = tail.to_bytes(size, "big")
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ start


def host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


async def until(condition: Callable[[], bool], seconds: float) -> None:
    end = monotonic() + seconds
    while not condition() and monotonic() < end:
        await asyncio.sleep(0.005)


class Connection:
    """One connection. The peer has 5 s to greet, then patience between its bytes, in seconds."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer, self.buffer, self.max_frame = reader, writer, bytearray(), 4096
        self.checksum = writer.get_extra_info("ssl_object") is None
        self.heard = self.said = monotonic()
        self.patience, self.greeted, self.moves, self.finished = 5.0, False, False, False

    @staticmethod
    async def dial(address: str, tls: ssl.SSLContext | None) -> Connection:
        if address.startswith("unix://"):
            name = "" if tls else None
            return Connection(*await asyncio.open_unix_connection(address[7:], ssl=tls,
                                                                  server_hostname=name))
        return Connection(*await asyncio.open_connection(*host_port(address), ssl=tls))

    def welcome(self, max_frame: int, patience: float, moves: bool) -> None:
        self.max_frame, self.patience, self.moves = max_frame, patience, moves
        self.greeted, self.heard = True, monotonic()

    async def read(self, wait: float) -> Frame | None:
        """The next frame; None if none comes in time. An OSError or ValueError ends it."""
        while True:
            size = 4 + int.from_bytes(self.buffer[:4], "big")
            if len(self.buffer) >= 4 and size - 4 > self.max_frame:
                raise Fault("a frame above the limit", 0)
            if len(self.buffer) >= size:
                payload = bytes(self.buffer[4:size])
                del self.buffer[:size]
                return decode(payload, self.checksum)
            now = monotonic()
            if now - self.heard > self.patience:
                raise TimeoutError("the peer is silent")
            if self.greeted and self.buffer and now - self.said > 3:
                self.send("Pong")  # a large frame arrives slowly: its sender hears nothing else
            try:
                async with asyncio.timeout(wait) as timer:
                    data = await self.reader.read(1 << 18)
            except TimeoutError:
                if timer.expired():
                    return None
                raise
            if not data:
                raise ConnectionError("the connection ended")
            self.buffer += data
            self.heard = monotonic() if self.greeted else self.heard

    def send(self, kind: str, handle: int = 0, **fields: Any) -> None:
        if not self.finished:
            self.said = monotonic()
            self.writer.write(encode(Frame(kind, handle, **fields), self.checksum))

    def fail(self, error: ValueError) -> None:
        """Tells the peer about its fault, if it can read that."""
        code = getattr(error, "code", PROTOCOL)
        if code:
            self.send("Failure", code=code, reason=str(error)[:128])

    def half_close(self) -> None:
        """Says that nothing more is written; under TLS that ends the connection."""
        self.finished = True
        if self.writer.can_write_eof():
            self.writer.write_eof()
        else:
            self.writer.close()
