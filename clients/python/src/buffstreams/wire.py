"""Frames of the acked protocol, and connections that carry them. docs/protocol.md of the repository defines both."""

from __future__ import annotations

import asyncio
import dataclasses
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

LEAST_FRAME = 65_600
(PROTOCOL, VERSION, UNAUTHENTICATED, FORBIDDEN, FENCED, TOPIC_GONE, LIMIT, UNDECODABLE, FAILED) = range(1, 10)
CODES = ("", "PROTOCOL", "VERSION", "UNAUTHENTICATED", "FORBIDDEN", "FENCED", "TOPIC_GONE", "LIMIT", "UNDECODABLE", "FAILED")
GAP, PROMPT, AGAIN = 1, 2, 4


class Fault(Exception):
    """The peer broke the protocol. Code 0 means that its bytes cannot be trusted: the connection ends without a word."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


# The fields of each body, by number.
SCHEMA: dict[str, str] = {
    "Hello": "version max_frame token agent features",
    "Welcome": "version max_frame max_message features instance",
    "Open": "handle publisher epoch secret stream topic base want_messages want_bytes least_bytes incarnation tenure",
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
NUMBERS = {kind: at if at < 15 else at + 1 for at, kind in enumerate(SCHEMA, 1)}  # 15 is the checksum
KINDS = {number: kind for kind, number in NUMBERS.items()}


@dataclass(slots=True)
class Frame:
    """A frame of any kind: SCHEMA says which fields it has."""

    kind: str
    handle: int = 0
    version: int = 0
    max_frame: int = 0
    max_message: int = 0
    token: bytes = b""
    agent: str = ""
    features: list[str] = field(default_factory=list)
    instance: bytes = b""
    tenure: int = 0
    at_once: int = 0
    returned: list[int] = field(default_factory=list)
    in_hand: int = 0
    publisher: bytes = b""
    secret: bytes = b""
    epoch: int = 0
    incarnation: bytes = b""
    stream: int = 0
    topic: str = ""
    base: int = 0
    want_messages: int = 0
    want_bytes: int = 0
    least_bytes: int = 0
    seen_messages: int = 0
    code: int = 0
    reason: str = ""
    next: int = 0
    settled: list[int] = field(default_factory=list)
    last_epoch: int = 0
    last_incarnation: bytes = b""
    first: int = 0
    flags: int = 0
    messages: list[bytes] = field(default_factory=list)
    credit_messages: int = 0
    credit_bytes: int = 0
    sequence: int = 0
    id: int = 0
    why: str = ""


TYPES = {f.name: str(f.type) for f in dataclasses.fields(Frame)}
FIELDS = {kind: [(name, TYPES[name]) for name in names.split()] for kind, names in SCHEMA.items()}


def varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Fault(PROTOCOL, "malformed varint")
        b = data[at]
        at += 1
        value |= (b & 0x7F) << shift
        if b < 0x80:
            if value >> 64:
                raise Fault(PROTOCOL, "varint over 64 bits")
            return value, at
        shift += 7


def chunk(tag: int, data: bytes) -> bytes:
    return bytes([tag]) + varint(len(data)) + data


def chunk_size(message: bytes) -> int:
    """What a message counts of the credit: its size in a Publish."""
    return 1 + len(varint(len(message))) + len(message)


def ranges(sequences: Iterable[int]) -> list[int]:
    """Pairs of the first and last of consecutive numbers."""
    pairs: list[int] = []
    for sequence in sorted(sequences):
        if pairs and pairs[-1] == sequence - 1:
            pairs[-1] = sequence
        else:
            pairs += [sequence, sequence]
    return pairs


def host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def scan(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message: number and value."""
    at, size = 0, len(data)
    while at < size:
        tag, at = read_varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = read_varint(data, at)
            yield tag >> 3, value
            continue
        if kind not in (1, 2, 5) or tag < 8:
            raise Fault(PROTOCOL, "malformed field")
        length, at = read_varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
        if at + length > size:
            raise Fault(PROTOCOL, "truncated field")
        if kind == 2:
            yield tag >> 3, data[at : at + length]
        at += length


def encode(frame: Frame, checksum: bool = True) -> bytes:
    """A frame with its length. The messages of a Publish are given as chunks of field 4, tag and length included."""
    out = bytearray()
    for number, (name, kind) in enumerate(FIELDS[frame.kind], 1):
        value = getattr(frame, name)
        if value and kind == "int":
            out += bytes([number << 3]) + varint(value)
        elif value and kind == "list[bytes]":
            out += b"".join(value)
        elif value and kind == "list[str]":
            out += b"".join(chunk(number << 3 | 2, text.encode()) for text in value)
        elif value:
            data = value.encode() if kind == "str" else b"".join(map(varint, value)) if kind == "list[int]" else value
            out += chunk(number << 3 | 2, data)
    payload = varint(NUMBERS[frame.kind] << 3 | 2) + varint(len(out)) + out
    if checksum:
        payload += b"\x7d" + crc32c(payload).to_bytes(4, "little")
    return len(payload).to_bytes(4, "big") + payload


def decode(payload: bytes, checksum: bool = True) -> Frame:
    """The frame of a payload. A Fault says what is wrong with it."""
    if checksum:
        if len(payload) < 5 or payload[-5] != 0x7D or payload[-4:] != crc32c(payload[:-5]).to_bytes(4, "little"):
            raise Fault(0, "wrong checksum")
        payload = payload[:-5]
    tag, at = read_varint(payload, 0)
    if tag & 7 != 2 or tag >> 3 not in KINDS:
        raise Fault(PROTOCOL, "a frame without a body, or with an unknown one")
    length, at = read_varint(payload, at)
    if at + length != len(payload):
        raise Fault(PROTOCOL, "a frame is one body and nothing else")
    frame = Frame(KINDS[tag >> 3])
    if frame.kind == "Publish":
        _decode_publish(frame, payload, at)
        return frame
    fields = FIELDS[frame.kind]
    for number, value in scan(payload[at:]):
        name, kind = fields[number - 1] if number <= len(fields) else ("", "")
        if kind == "int" and isinstance(value, int):
            setattr(frame, name, value)
        elif kind == "bytes" and isinstance(value, bytes):
            setattr(frame, name, value)
        elif kind == "str" and isinstance(value, bytes):
            try:
                setattr(frame, name, value.decode())
            except UnicodeDecodeError:
                raise Fault(PROTOCOL, "a string that is not UTF-8") from None
        elif kind == "list[int]":
            at = 0
            while isinstance(value, bytes) and at < len(value):
                n, at = read_varint(value, at)
                getattr(frame, name).append(n)
            if isinstance(value, int):
                getattr(frame, name).append(value)
        elif kind == "list[str]" and isinstance(value, bytes):
            getattr(frame, name).append(value.decode(errors="replace"))
    return frame


def _decode_publish(frame: Frame, data: bytes, at: int) -> None:
    size = len(data)
    while at < size and data[at] != 0x22:
        tag, at = read_varint(data, at)
        if tag & 7 or tag < 8:
            raise Fault(PROTOCOL, "a Publish has varints, then messages")
        value, at = read_varint(data, at)
        if tag >> 3 <= 3:
            setattr(frame, ("handle", "first", "flags")[(tag >> 3) - 1], value)
    while at < size:
        if data[at] != 0x22:
            raise Fault(PROTOCOL, "messages are the last fields of a Publish")
        if at + 1 < size and data[at + 1] < 0x80:
            length, at = data[at + 1], at + 2
        else:
            length, at = read_varint(data, at + 1)
        if at + length > size:
            raise Fault(PROTOCOL, "truncated message")
        frame.messages.append(data[at : at + length])
        at += length


def encode_message(uuid: str, payload: bytes, metadata: Mapping[str, bytes]) -> bytes:
    """A message as a chunk of a Publish, which is also what it counts of the credit."""
    data = (chunk(10, uuid.encode()) if uuid else b"") + (chunk(18, payload) if payload else b"")
    for key, value in metadata.items():
        data += chunk(26, chunk(10, key.encode()) + chunk(18, value))
    return chunk(34, data)


def decode_message(data: bytes) -> tuple[str, bytes, dict[str, bytes]]:
    """UUID, payload and metadata of an Envelope. A ValueError or Fault says that it is none."""
    uuid, payload, metadata = "", b"", {}
    for number, value in scan(data):
        if isinstance(value, int):
            continue
        if number == 1:
            uuid = value.decode()
        elif number == 2:
            payload = value
        elif number == 3:
            pair = {n: v for n, v in scan(value) if isinstance(v, bytes)}
            metadata[pair.get(1, b"").decode()] = pair.get(2, b"")
    return uuid, payload, metadata


def _crc_table() -> list[int]:
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


_CRC = _crc_table()
# By a number of words, a power of two: what moves a word over as many, as tables from byte to byte.
_MOVES: dict[int, tuple[list[int], list[list[bytes]]]] = {}


def _move(words: int) -> tuple[list[int], list[list[bytes]]]:
    if words not in _MOVES:
        images = []  # of each bit
        for bit in range(32):
            image = 1 << bit
            if words == 1:
                for _ in range(4):
                    image = _CRC[image & 0xFF] ^ image >> 8
            else:
                for _ in range(2):
                    half, image = image, 0
                    for i, part in enumerate(_move(words // 2)[0]):
                        image ^= part if half >> i & 1 else 0
            images.append(image)
        tables = []
        for source in range(4):
            whole = [0] * 256
            for b in range(1, 256):
                whole[b] = whole[b & b - 1] ^ images[8 * source + (b & -b).bit_length() - 1]
            tables.append([bytes(w >> 8 * target & 0xFF for w in whole) for target in range(4)])
        _MOVES[words] = images, tables
    return _MOVES[words]


def crc32c(data: bytes) -> int:
    """CRC-32C. A long text is folded in halves, with operations on whole byte strings: a loop over its bytes takes ten times as long."""
    crc = 0xFFFFFFFF
    if len(data) > 256:
        head = (struct.unpack_from("<I", data)[0] ^ crc).to_bytes(4, "little")
        data = bytes(-len(data) % 4) + head + data[4:]
        crc, size, planes = 0, len(data) // 4, [data[k::4] for k in range(4)]
        while size > 32:
            half = 1 << (size - 1).bit_length() - 1
            moved, tables = size - half, _move(half)[1]
            sums = [int.from_bytes(plane[moved:], "big") for plane in planes]
            for source in range(4):
                part = planes[source][:moved]
                for target in range(4):
                    sums[target] ^= int.from_bytes(part.translate(tables[source][target]), "big")
            planes, size = [s.to_bytes(half, "big") for s in sums], half
        data = bytes(b for word in zip(*planes) for b in word)
    for b in data:
        crc = _CRC[(crc ^ b) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


class Connection(asyncio.Protocol):
    """One connection: calls on_frame for each frame, on_lost at the end. What on_frame raises as a Fault ends the connection."""

    def __init__(self, on_frame: Callable[[Connection, Frame], None], on_lost: Callable[[Connection], None], max_frame: int) -> None:
        self.on_frame, self.on_lost, self.max_frame = on_frame, on_lost, max_frame
        self.on_writable: Callable[[], None] = lambda: None
        self.checksum, self.paused, self.ended = True, False, asyncio.Event()
        self.max_message = self.peer_frame = 0  # what the other side takes
        self.heard = self.said = time.monotonic()
        self.buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.checksum = transport.get_extra_info("ssl_object") is None

    def data_received(self, data: bytes) -> None:
        self.heard = time.monotonic()
        self.buffer += data
        at, size = 0, len(self.buffer)
        try:
            while size - at >= 4 and not self.transport.is_closing():
                length = int.from_bytes(self.buffer[at : at + 4], "big")
                if length > self.max_frame:
                    raise Fault(0, f"a frame of {length} bytes")
                if size - at - 4 < length:
                    break
                payload = bytes(memoryview(self.buffer)[at + 4 : at + 4 + length])
                at += 4 + length
                self.on_frame(self, decode(payload, self.checksum))
        except Fault as fault:
            self.fail(fault)
        del self.buffer[:at]

    def fail(self, fault: Fault) -> None:
        """Ends the connection, with a Failure if the peer can read one."""
        if fault.code and not self.transport.is_closing():
            self.send(Frame("Failure", code=fault.code, reason=str(fault)[:512]))
        self.transport.close()

    def send(self, frame: Frame) -> None:
        self.said = time.monotonic()
        self.transport.write(encode(frame, self.checksum))

    def half_close(self) -> None:
        """Says that nothing more is written; under TLS that ends the connection."""
        try:
            self.transport.write_eof()
        except (OSError, NotImplementedError):
            self.transport.close()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()
        self.on_lost(self)
