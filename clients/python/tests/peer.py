"""A process of the interoperability tests: python3 peer.py pub|sub|send ADDRESS TOPIC.

pub publishes each line of its input and prints "ok LINE" when it was handled; its ADDRESS may be several with commas,
where the command "turns" takes them in turn; sub prints "listening PORT", then each message, and
acks it; send publishes COUNT messages of SIZE bytes as fast as it can, and take receives as many: both print messages a second.
"""

import asyncio
import itertools
import os
import signal
import ssl
import sys
import time
from collections import deque

from buffstreams import Listener, Message, Publisher


def sending() -> dict:
    """The arguments of a Publisher: with BUFFSTREAMS_TEST_TLS they are for TLS and a token."""
    tls = os.environ.get("BUFFSTREAMS_TEST_TLS")
    return {"tls": ssl.create_default_context(cafile=f"{tls}/ca.pem"), "token": b"secret"} if tls else {}


def receiving() -> dict:
    tls = os.environ.get("BUFFSTREAMS_TEST_TLS")
    if not tls:
        return {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{tls}/cert.pem", f"{tls}/key.pem")
    return {"tls": context, "authenticate": lambda token, conn: "peer" if token == b"secret" else None}


def say(line: str) -> None:
    print(line, flush=True)


async def pub(address: str, topic: str, turns: bool = False) -> None:
    addresses, tasks = address.split(","), set()
    publishers = [Publisher(*addresses[i:], *addresses[:i], **sending()) for i in range(len(addresses) if turns else 1)]
    turn = itertools.cycle(publishers)

    async def one(line: bytes) -> None:
        await next(turn).publish(topic, Message(line), handled=True, timeout=120)
        say("ok " + line.decode())

    reader = asyncio.StreamReader(1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        tasks.add(asyncio.create_task(one(line.rstrip(b"\n"))))
    await asyncio.gather(*tasks)
    await asyncio.gather(*[publisher.close() for publisher in publishers])


async def turns(address: str, topic: str) -> None:
    await pub(address, topic, turns=True)


async def sub(address: str, topic: str) -> None:
    listener, done = Listener(address, **receiving()), asyncio.Event()
    await listener.start()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    say(f"listening {listener.port}")

    async def handle() -> None:
        async for delivery in listener.subscribe(topic):
            say(delivery.payload.decode())
            delivery.ack()

    handler = asyncio.create_task(handle())
    await done.wait()
    await listener.close()
    await handler


async def send(address: str, topic: str, count: int, size: int) -> None:
    publisher, begin = Publisher(address), time.monotonic()
    batch, waits = [Message(bytes(size), uuid="x") for _ in range(500)], deque()
    for at in range(0, count, len(batch)):
        waits.append(asyncio.create_task(publisher.publish(topic, *batch[: count - at], handled=True)))
        if len(waits) > 16:
            await waits.popleft()
    await asyncio.gather(*waits)
    say(f"{count / (time.monotonic() - begin):.0f}")
    await publisher.close()


async def take(address: str, topic: str, count: int) -> None:
    listener, begin = Listener(address), 0.0
    await listener.start()
    say(f"listening {listener.port}")
    async for delivery in listener.subscribe(topic):
        begin, count = begin or time.monotonic(), count - 1
        delivery.ack()
        if not count:
            break
    say(f"{int(sys.argv[4]) / (time.monotonic() - begin):.0f}")
    await listener.close()


if __name__ == "__main__":
    commands = {"pub": pub, "turns": turns, "sub": sub, "send": send, "take": take}
    asyncio.run(commands[sys.argv[1]](*sys.argv[2:4], *map(int, sys.argv[4:])))
