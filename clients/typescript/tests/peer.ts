// A process of the interoperability tests; clients/python/tests/peer.py says what the commands are.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { Listener, type ListenerOptions, Publisher, type PublisherOptions, RoundRobin } from "../src/index.ts";

const say = (line: string) => process.stdout.write(line + "\n");
const [command, address = "", topic = "", ...rest] = process.argv.slice(2);
const [count = 0, size = 0] = rest.map(Number);

// With BUFFSTREAMS_TEST_TLS they are for TLS and a token.
const dir = process.env.BUFFSTREAMS_TEST_TLS;
const read = (name: string) => readFileSync(`${dir}/${name}`);
const sending: PublisherOptions = dir ? { tls: { ca: read("ca.pem") }, token: Buffer.from("secret") } : {};
const receiving: ListenerOptions = dir
  ? { tls: { cert: read("cert.pem"), key: read("key.pem") }, authenticate: (token) => (token.toString() === "secret" ? "peer" : undefined) }
  : {};

async function pub(kind: typeof Publisher | typeof RoundRobin = Publisher): Promise<void> {
  const publisher = new kind(address.split(","), sending);
  const calls: Promise<void>[] = [];
  for await (const line of createInterface({ input: process.stdin })) {
    const call = publisher.publish(topic, [{ payload: Buffer.from(line) }], { handled: true, timeout: 120_000 });
    calls.push(call.then(() => void say("ok " + line)));
  }
  await Promise.all(calls);
  await publisher.close();
}

async function sub(): Promise<void> {
  const listener = new Listener(address, receiving);
  await listener.start();
  const deliveries = listener.subscribe(topic);
  process.on("SIGTERM", () => void listener.close());
  say(`listening ${listener.port}`);
  for await (const delivery of deliveries) {
    say(delivery.payload.toString());
    delivery.ack();
  }
}

async function send(): Promise<void> {
  const publisher = new Publisher(address);
  const begin = performance.now();
  const batch = Array.from({ length: 500 }, () => ({ payload: Buffer.alloc(size), uuid: "x" }));
  const waits: Promise<void>[] = [];
  for (let at = 0; at < count; at += batch.length) {
    waits.push(publisher.publish(topic, batch.slice(0, count - at), { handled: true }));
    if (waits.length > 16) await waits.shift();
  }
  await Promise.all(waits);
  say(((count / (performance.now() - begin)) * 1000).toFixed(0));
  await publisher.close();
}

async function take(): Promise<void> {
  const listener = new Listener(address);
  await listener.start();
  let [taken, begin] = [0, 0];
  const deliveries = listener.subscribe(topic);
  say(`listening ${listener.port}`);
  for await (const delivery of deliveries) {
    begin ||= performance.now();
    delivery.ack();
    if (++taken === count) break;
  }
  say(((count / (performance.now() - begin)) * 1000).toFixed(0));
  await listener.close();
}

const commands: Record<string, () => Promise<void>> = { pub, turns: () => pub(RoundRobin), sub, send, take };
await commands[command ?? ""]?.();
