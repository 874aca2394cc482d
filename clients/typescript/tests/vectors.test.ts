// The vectors of the repository against both sides of this client.

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Code, Listener, NeverSent, Publisher, Refused } from "../src/index.ts";
import * as wire from "../src/wire.ts";

interface Step { send?: string; expect?: string }
interface Vector { name: string; messages: number[]; result: string; steps: Step[] }
interface FrameVector { name: string; kind: wire.Kind; hex: string; fields: Record<string, unknown> }
interface EnvelopeVector { name: string; hex: string; uuid: string; payload: string; metadata: Record<string, string>; invalid?: boolean; canonical?: boolean }

function vectors(): string {
  if (process.env.VECTORS) return process.env.VECTORS;
  let dir = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(dir, "testdata/vectors"))) dir = dirname(dir);
  return join(dir, "testdata/vectors");
}
const read = (name: string) => JSON.parse(readFileSync(join(vectors(), name), "utf8")) as {
  vectors: Vector[]; frames: FrameVector[]; envelopes: EnvelopeVector[];
};
const code = (n: number) => (n ? ` ${wire.codeName(n)}` : "");

/** The side of a connection that a vector describes. */
class Peer {
  readonly settled = new Set<number>();
  credit = false;
  at = 0;
  farewell = "";
  private buffer = Buffer.alloc(0);
  private readonly data: AsyncIterator<Buffer>;
  readonly socket: Socket;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("error", () => undefined);
    this.data = socket[Symbol.asyncIterator]();
  }

  private async frame(): Promise<wire.Frame | undefined> {
    for (;;) {
      if (this.buffer.length >= 4 && this.buffer.length >= 4 + this.buffer.readUInt32BE()) {
        const end = 4 + this.buffer.readUInt32BE();
        const payload = this.buffer.subarray(4, end);
        this.buffer = this.buffer.subarray(end);
        return wire.decode(payload);
      }
      const late = sleep(5000, "late" as const, { ref: false });
      const more = await Promise.race([this.data.next().catch(() => ({ done: true as const, value: undefined })), late]);
      assert.notEqual(more, "late", "nothing comes, and the connection goes on");
      if (more === "late" || more.done) return undefined;
      this.buffer = Buffer.concat([this.buffer, more.value]);
    }
  }

  async next(): Promise<string> {
    for (;;) {
      const f = await this.frame();
      if (!f) return "closes";
      this.credit ||= f.kind === "Ack" && f.credit_messages > 0;
      for (let i = 0; i < f.settled.length; i += 2) for (let n = f.settled[i]!; n <= f.settled[i + 1]!; n++) this.settled.add(n);
      this.at = f.next;
      if (f.kind === "Publish") return `Publish ${f.flags & wire.GAP ? "gap " : ""}${f.flags & wire.AGAIN ? "again " : ""}${f.first} ${f.first + f.messages.length - 1}`;
      if (!["Want", "Release", "Ping"].includes(f.kind)) return f.kind + code(f.code);
    }
  }

  async expect(want: string): Promise<void> {
    for (;;) {
      const settled = /^settled (\d+)$/.exec(want);
      if ((settled && this.settled.has(Number(settled[1]))) || (want === "credit" && this.credit)) return;
      let got = await this.next();
      if (got === "Ack" || (want === "closes" && got === this.farewell)) continue;
      if (want.startsWith("Opened next") && got === "Opened") got = `Opened next ${this.at}`;
      const [wanted, came] = [want.split(" "), got.split(" ")];
      const [last, end] = [Number(came.pop()), Number(wanted.pop())];
      if (wanted[0] === "Publish" && came.join(" ") === wanted.join(" ") && last < end) {
        want = `Publish ${wanted.includes("again") ? "again " : ""}${last + 1} ${end}`;
        continue;
      }
      assert.equal(got, want);
      return;
    }
  }

  async step(step: Step): Promise<void> {
    if (step.expect) await this.expect(step.expect);
    else this.socket.write(Buffer.from(step.send!, "hex"));
  }
}

test("frames", () => {
  for (const v of read("frames.json").frames) {
    const fields: Record<string, unknown> = {};
    for (const [name, value] of Object.entries(v.fields)) {
      const key = v.kind === "Want" && (name === "messages" || name === "bytes") ? `want_${name}` : name;
      const empty = wire.frame(v.kind)[key as keyof wire.Fields];
      fields[key] = empty instanceof Buffer ? Buffer.from(value as string, "base64")
        : key === "messages" ? (value as string[]).map((m) => Buffer.from(m, "base64")) : value === true ? 1 : value;
    }
    const f = wire.frame(v.kind, fields);
    assert.deepEqual(wire.decode(Buffer.from(v.hex, "hex").subarray(4)), f, v.name);
    f.messages = f.messages.map((m) => wire.chunk(34, m));
    assert.equal(wire.encode(f).toString("hex"), v.hex, v.name);
  }
  assert.equal(wire.crc32c(Buffer.from("123456789")), 0xe3069283);
});

test("envelopes", () => {
  for (const v of read("frames.json").envelopes) {
    const data = Buffer.from(v.hex, "hex");
    if (v.invalid) {
      assert.throws(() => wire.decodeMessage(data), wire.Fault, v.name);
      continue;
    }
    const metadata = new Map(Object.entries(v.metadata).map(([key, value]) => [key, Buffer.from(value, "base64")]));
    const message = { uuid: v.uuid, payload: Buffer.from(v.payload, "base64"), metadata };
    assert.deepEqual(wire.decodeMessage(data), message, v.name);
    if (v.canonical !== false) {
      assert.equal(wire.encodeMessage(v.uuid, message.payload, metadata).toString("hex"), wire.chunk(34, data).toString("hex"));
    }
  }
});

let listener: Listener;
before(async () => {
  listener = new Listener("127.0.0.1:0");
  await listener.start();
  const deliveries = listener.subscribe("a");
  void (async () => {
    for await (const delivery of deliveries) delivery.ack();
  })();
});
after(() => listener.close(100));

for (const v of read("listener.json").vectors) {
  test(`listener: ${v.name}`, async () => {
    const dial = () => new Peer(connect(listener.port, "127.0.0.1"));
    let peer = dial();
    for (const step of v.steps) {
      if (step.send === "cut") {
        peer.socket.destroy();
        peer = dial();
      } else await peer.step(step);
    }
    peer.socket.destroy();
  });
}

test("a lower tenure of a newer epoch resumes", async () => {
  const holding = new Listener("127.0.0.1:0");
  await holding.start();
  const taken = holding.subscribe("a").next(); // is not acked
  for (const [epoch, tenure, next] of [[1, 3, 1], [2, 1, 2], [2, 2, 1]] as const) {
    const peer = new Peer(connect(holding.port, "127.0.0.1"));
    const open = { handle: 1, publisher: Buffer.alloc(16, 1), secret: Buffer.alloc(16, 2), epoch, stream: 1, topic: "a", base: 1, tenure };
    peer.socket.write(wire.encode(wire.frame("Hello", { version: 1, max_frame: 1 << 17, features: ["move"] })));
    peer.socket.write(wire.encode(wire.frame("Open", { ...open, want_messages: 1, want_bytes: 100, least_bytes: 100 })));
    await peer.expect("Welcome");
    await peer.expect(`Opened next ${next}`);
    if (epoch === 1) {
      await peer.expect("credit");
      const messages = [wire.encodeMessage("u", Buffer.from("m"), new Map())];
      peer.socket.write(wire.encode(wire.frame("Publish", { handle: 1, first: 1, messages })));
      await taken;
    }
    peer.socket.destroy();
  }
  await holding.close(0);
});

test("the end releases a stream whose last message was never sent", async (t) => {
  const listener = new Listener("127.0.0.1:0", { maxMessage: 1000 });
  await listener.start();
  t.after(() => listener.close(0));
  const taken = listener.subscribe("a").next();
  const publisher = new Publisher(`127.0.0.1:${listener.port}`);
  await publisher.publish("a", [{ payload: Buffer.from("m") }]);
  await assert.rejects(publisher.publish("a", [{ payload: Buffer.alloc(2000) }]), Refused);
  (await taken).value!.ack();
  await publisher.close();
  const { publishers } = listener as unknown as { publishers: Map<string, unknown> };
  for (const end = Date.now() + 10_000; publishers.size && Date.now() < end; ) await sleep(5);
  assert.equal(publishers.size, 0);
});

const results: Record<string, number> = { limit: Code.LIMIT, fenced: Code.FENCED, failed: Code.FAILED, gone: Code.TOPIC_GONE };

for (const v of read("sender.json").vectors) {
  test(`sender: ${v.name}`, async () => {
    const arrived: Socket[] = [];
    let wake = (): void => undefined;
    const server = createServer((socket) => {
      arrived.push(socket);
      wake();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const publisher = new Publisher(`127.0.0.1:${(server.address() as AddressInfo).port}`);
    let outcome: Error | "ok" | undefined;
    const messages = v.messages.map((size) => ({ payload: Buffer.alloc(size) }));
    const call = publisher.publish("a", messages, { handled: true }).then(() => (outcome = "ok"), (error: Error) => (outcome = error));
    let peer: Peer | undefined;
    for (const step of v.steps) {
      if (!peer) {
        if (!arrived.length) await new Promise<void>((resolve) => (wake = resolve));
        peer = new Peer(arrived.shift()!);
        peer.farewell = "Failure PROTOCOL";
      }
      if (step.send === "cut") {
        peer.socket.destroy();
        peer = undefined;
      } else await peer.step(step);
    }
    if (v.result === "") {
      await sleep(50);
      assert.equal(outcome, undefined);
    } else if (v.result === "ok") {
      await call;
      assert.equal(outcome, "ok");
    } else if (v.result !== "any") {
      await call;
      assert.ok(outcome instanceof (v.result === "never sent" ? NeverSent : Refused), String(outcome));
      assert.equal(outcome.code, results[v.result] ?? outcome.code);
    }
    await publisher.close(0).catch(() => undefined);
    server.close();
    for (const socket of arrived) socket.destroy();
    peer?.socket.destroy();
  });
}
