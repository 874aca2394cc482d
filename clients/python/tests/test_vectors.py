"""The vectors of the repository against both sides of this client: python3 -m unittest discover tests."""

import asyncio
import base64
import json
import os
import pathlib
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "src"))

from buffstreams import Listener, Message, NeverSent, Publisher, Refused, wire  # noqa: E402
from buffstreams.wire import Fault, Frame  # noqa: E402

VECTORS = pathlib.Path(os.environ.get("VECTORS", HERE.parents[2] / "testdata" / "vectors"))
RESULTS = {"limit": wire.LIMIT, "fenced": wire.FENCED, "failed": wire.FAILED, "gone": wire.TOPIC_GONE}
NAMES = {"messages": "want_messages", "bytes": "want_bytes"}  # of a Want, as an Open has them


def read(name: str) -> dict:
    return json.loads((VECTORS / name).read_text())


class Peer:
    """The side of a connection that a vector describes."""

    passes: tuple = ("Want", "Release", "Ping")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer, self.settled, self.credit, self.farewell = reader, writer, set(), False, ""

    async def next(self) -> str:
        while True:
            try:
                size = int.from_bytes(await asyncio.wait_for(self.reader.readexactly(4), 5), "big")
                f = wire.decode(await self.reader.readexactly(size))
            except (asyncio.IncompleteReadError, ConnectionError):
                return "closes"
            self.credit |= f.kind == "Ack" and f.credit_messages > 0
            for first, last in zip(f.settled[::2], f.settled[1::2]):
                self.settled.update(range(first, last + 1))
            self.at = f.next
            if f.kind == "Publish":
                return f"Publish {'gap ' * (f.flags & 1)}{'again ' * (f.flags >> 2 & 1)}{f.first} {f.first + len(f.messages) - 1}"
            if f.kind not in self.passes:
                return f"{f.kind} {wire.CODES[f.code]}".rstrip()

    async def expect(self, want: str) -> None:
        while True:
            words = want.split()
            if words[0] == "settled" and int(words[1]) in self.settled or want == "credit" and self.credit:
                return
            got = await self.next()
            if got == "Ack" or want == "closes" and got == self.farewell:
                continue
            if want.startswith("Opened next") and got == "Opened":
                got = f"Opened next {self.at}"
            if words[0] == "Publish" and got.split()[:-1] == words[:-1] and int(got.split()[-1]) < int(words[-1]):
                want = f"Publish {'again ' * ('again' in words)}{int(got.split()[-1]) + 1} {words[-1]}"
                continue
            assert got == want, f"{got}, where {want} was expected"
            return

    async def step(self, step: dict) -> None:
        if "expect" in step:
            await self.expect(step["expect"])
        else:
            self.writer.write(bytes.fromhex(step["send"]))


class Vectors(unittest.IsolatedAsyncioTestCase):
    def test_frames(self) -> None:
        for v in read("frames.json")["frames"]:
            fields = {}
            for name, value in v["fields"].items():
                name = NAMES.get(name, name) if v["kind"] == "Want" else name
                kind = wire.TYPES[name]
                fields[name] = (base64.b64decode(value) if kind == "bytes" else
                                [base64.b64decode(m) for m in value] if kind == "list[bytes]" else int(value) if kind == "int" else value)
            frame = Frame(v["kind"], **fields)
            self.assertEqual(wire.decode(bytes.fromhex(v["hex"])[4:]), frame, v["name"])
            frame.messages = [wire.chunk(34, m) for m in frame.messages]
            self.assertEqual(wire.encode(frame).hex(), v["hex"], v["name"])

    def test_envelopes(self) -> None:
        for v in read("frames.json")["envelopes"]:
            data = bytes.fromhex(v["hex"])
            if v.get("invalid"):
                self.assertRaises((Fault, ValueError), wire.decode_message, data)
                continue
            metadata = {key: base64.b64decode(value) for key, value in v["metadata"].items()}
            want = (v["uuid"], base64.b64decode(v["payload"]), metadata)
            self.assertEqual(wire.decode_message(data), want, v["name"])
            if v.get("canonical", True):
                self.assertEqual(wire.encode_message(*want), wire.chunk(34, data))

    def test_checksum_in_folds(self) -> None:
        for size in [*range(250, 270), 1000, 4096, 65_541]:
            data, crc = os.urandom(size), 0xFFFFFFFF
            for b in data:
                crc = wire._CRC[(crc ^ b) & 0xFF] ^ crc >> 8
            self.assertEqual(wire.crc32c(data), crc ^ 0xFFFFFFFF)
        self.assertEqual(wire.crc32c(b"123456789"), 0xE3069283)

    async def test_listener(self) -> None:
        listener = Listener("127.0.0.1:0")
        await listener.start()

        async def handle() -> None:
            async for delivery in listener.subscribe("a"):
                delivery.ack()

        handler = asyncio.create_task(handle())
        for v in read("listener.json")["vectors"]:
            with self.subTest(v["name"]):
                peer = Peer(*await asyncio.open_connection("127.0.0.1", listener.port))
                for step in v["steps"]:
                    if step.get("send") == "cut":
                        peer.writer.close()
                        peer = Peer(*await asyncio.open_connection("127.0.0.1", listener.port))
                    else:
                        await peer.step(step)
                peer.writer.close()
        await listener.close(1)
        await handler

    async def test_a_lower_tenure_of_a_newer_epoch_resumes(self) -> None:
        listener = Listener("127.0.0.1:0")
        await listener.start()
        subscription = listener.subscribe("a")
        taken = asyncio.ensure_future(anext(subscription))  # is not acked
        for epoch, tenure, opened in ((1, 3, "Opened next 1"), (2, 1, "Opened next 2"), (2, 2, "Opened next 1")):
            peer = Peer(*await asyncio.open_connection("127.0.0.1", listener.port))
            greeting = [Frame("Hello", version=1, max_frame=1 << 17, features=["move"]),
                        Frame("Open", 1, publisher=b"p" * 16, secret=b"s" * 16, epoch=epoch, stream=1, topic="a", base=1, tenure=tenure,
                              want_messages=1, want_bytes=100, least_bytes=100)]
            peer.writer.write(b"".join(map(wire.encode, greeting)))
            await peer.expect("Welcome")
            await peer.expect(opened)
            if epoch == 1:
                await peer.expect("credit")
                peer.writer.write(wire.encode(Frame("Publish", 1, first=1, messages=[wire.encode_message("u", b"m", {})])))
                await asyncio.wait_for(taken, 5)
            peer.writer.close()
        await listener.close(0)

    async def test_credit_is_told_once(self) -> None:
        listener = Listener("127.0.0.1:0")
        await listener.start()
        taken = asyncio.ensure_future(anext(listener.subscribe("a")))
        peer = Peer(*await asyncio.open_connection("127.0.0.1", listener.port))
        for frame in (Frame("Hello", version=1, max_frame=1 << 17),
                      Frame("Open", 1, publisher=b"p" * 16, secret=b"s" * 16, epoch=1, stream=1, topic="a", base=1, want_messages=1, want_bytes=100,
                            least_bytes=100)):
            peer.writer.write(wire.encode(frame))
        await peer.expect("Welcome")
        await peer.expect("Opened next 1")
        await peer.expect("credit")
        peer.writer.write(wire.encode(Frame("Publish", 1, first=1, messages=[wire.encode_message("u", b"m", {})])))
        (await asyncio.wait_for(taken, 5)).ack()
        peer.credit = False  # another Ack has none: it could cross a Want
        await peer.expect("settled 1")
        self.assertFalse(peer.credit)
        peer.writer.close()
        await listener.close(0)

    async def test_sender(self) -> None:
        for v in read("sender.json")["vectors"]:
            with self.subTest(v["name"]):
                await asyncio.wait_for(self.sender(v), 10)

    async def sender(self, v: dict) -> None:
        arrived: asyncio.Queue = asyncio.Queue()
        server = await asyncio.start_server(lambda r, w: arrived.put_nowait((r, w)), "127.0.0.1", 0)
        publisher = Publisher(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        messages = [Message(bytes(size)) for size in v["messages"]]
        call = asyncio.create_task(publisher.publish("a", *messages, handled=True))
        peer = None
        for step in v["steps"]:
            if peer is None:
                peer = Peer(*await arrived.get())
                peer.farewell = "Failure PROTOCOL"
            if step.get("send") == "cut":
                peer.writer.close()
                peer = None
            else:
                await peer.step(step)
        result = v["result"]
        if result == "ok":
            await call
        elif result == "":
            await asyncio.sleep(0.05)
            self.assertFalse(call.done())
        elif result != "any":
            with self.assertRaises(NeverSent if result == "never sent" else Refused) as raised:
                await call
            self.assertEqual(raised.exception.code, RESULTS.get(result, raised.exception.code))
        call.cancel()
        try:
            await publisher.close(0)
        except Exception:
            pass
        server.close()
        while not arrived.empty():
            arrived.get_nowait()[1].close()
        if peer:
            peer.writer.close()


if __name__ == "__main__":
    unittest.main()
