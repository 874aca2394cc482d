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

from buffstreams import Listener, Message, Publisher, Refused, wire  # noqa: E402
from buffstreams.wire import Fault, Frame  # noqa: E402

VECTORS = pathlib.Path(os.environ.get("VECTORS", HERE.parents[2] / "testdata" / "vectors"))
RESULTS = {"never sent": 0, "limit": wire.LIMIT, "fenced": wire.FENCED, "failed": wire.FAILED, "gone": wire.TOPIC_GONE}
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
            for first, last in zip(*[iter(getattr(f, "settled", []))] * 2):
                self.settled.update(range(first, last + 1))
            self.at = getattr(f, "next", 0)
            if f.kind == "Publish":
                return f"Publish {'gap ' * (f.flags & 1)}{'again ' * (f.flags >> 2 & 1)}{f.first} {f.first + len(f.messages) - 1}"
            if f.kind not in self.passes:
                return f"{f.kind} {wire.CODES[getattr(f, 'code', 0)]}".rstrip()

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
                fields[name] = (base64.b64decode(value) if name in wire.BYTES else [base64.b64decode(m) for m in value] if name == "messages" else
                                [text.encode() for text in value] if name == "features" else value if name in wire.TEXTS | set(wire.LISTS) else int(value))
            frame = Frame(v["kind"], **fields)
            self.assertEqual(wire.decode(bytes.fromhex(v["hex"])[4:]), frame, v["name"])
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
                self.assertEqual(wire.encode_message(*want), data)

    def test_checksum_in_folds(self) -> None:
        for size in [*range(140), *range(250, 270), 1000, 4096, 65_541]:
            data, crc = os.urandom(size), 0xFFFFFFFF
            for b in data:
                crc = wire._TABLE[(crc ^ b) & 0xFF] ^ crc >> 8
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
            greeting = [Frame("Hello", version=1, max_frame=1 << 17, features=[b"move"]),
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

    async def test_a_stream_that_comes_back_keeps_what_is_settled(self) -> None:
        listener = Listener("127.0.0.1:0")
        await listener.start()
        subscription = listener.subscribe("a")
        held = [asyncio.ensure_future(anext(subscription))]  # makes it a consumer
        message = wire.encode_message("u", b"m", {})
        for tenure, opened in ((1, 1), (2, 1), (3, 5)):
            peer = Peer(*await asyncio.open_connection("127.0.0.1", listener.port))
            greeting = [Frame("Hello", version=1, max_frame=1 << 17, features=[b"move"]),
                        Frame("Open", 1, publisher=b"p" * 16, secret=b"s" * 16, epoch=1, stream=1, topic="a", base=1, tenure=tenure,
                              want_messages=9, want_bytes=900, least_bytes=100)]
            peer.writer.write(b"".join(map(wire.encode, greeting)))
            await peer.expect("Welcome")
            await peer.expect(f"Opened next {opened}")
            await peer.expect("credit")
            if tenure == 1:  # of four, the second is settled
                peer.writer.write(wire.encode(Frame("Publish", 1, first=1, messages=[message] * 4)))
                deliveries = [await held[0], *[await asyncio.wait_for(anext(subscription), 5) for _ in range(3)]]
                deliveries[1].ack()
                await peer.expect("settled 2")
            elif tenure == 2:  # the others come again
                self.assertEqual((peer.settled, [d.current() for d in deliveries]), ({2}, [False] * 4))
                peer.writer.write(wire.encode(Frame("Publish", 1, first=1, messages=[message])))
                peer.writer.write(wire.encode(Frame("Publish", 1, first=3, flags=wire.GAP, messages=[message] * 2)))
                for sequence in (1, 3, 4):
                    (await asyncio.wait_for(anext(subscription), 5)).ack()
                    await peer.expect(f"settled {sequence}")
            peer.writer.close()
        await listener.close(0)

    async def test_what_is_settled_does_not_come_again(self) -> None:
        listener = Listener("127.0.0.1:0")
        await listener.start()
        taken = asyncio.ensure_future(anext(listener.subscribe("a")))
        stream = {"publisher": b"p" * 16, "secret": b"s" * 16, "epoch": 1, "stream": 1, "topic": "a", "base": 1, "want_messages": 9, "want_bytes": 900}
        for tenure, answer in ((1, "settled 2"), (2, "Failure PROTOCOL")):
            peer = Peer(*await asyncio.open_connection("127.0.0.1", listener.port))
            for frame in (Frame("Hello", version=1, max_frame=1 << 17, features=[b"move"]), Frame("Open", 1, **stream, tenure=tenure)):
                peer.writer.write(wire.encode(frame))
            for want in ("Welcome", "Opened next 1", "credit"):
                await peer.expect(want)
            peer.writer.write(wire.encode(Frame("Publish", 1, first=1, messages=[b"no envelope" if tenure == 1 else b"", b""])))
            if tenure == 1:
                await peer.expect("Reject UNDECODABLE")  # is not confirmed: the first is to come again
                (await asyncio.wait_for(taken, 5)).ack()
            await peer.expect(answer)
            peer.writer.close()
        await listener.close(0)

    async def test_the_end_releases_a_stream_whose_last_message_was_never_sent(self) -> None:
        listener = Listener("127.0.0.1:0", max_message=1000)
        await listener.start()
        taken = asyncio.ensure_future(anext(listener.subscribe("a")))
        publisher = Publisher(f"127.0.0.1:{listener.port}")
        await publisher.publish("a", Message(b"m"))
        with self.assertRaises(Refused):
            await publisher.publish("a", Message(bytes(2000)))
        (await taken).ack()
        await publisher.close()
        await wire.until(lambda: not listener._publishers, 10)
        self.assertFalse(listener._publishers)
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
            with self.assertRaises(Refused) as raised:
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
