// Frames of the acked protocol, and connections that carry them. docs/protocol.md of the repository defines both.

import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";

export const LEAST_FRAME = 65_600;
export const Code = {
  PROTOCOL: 1, VERSION: 2, UNAUTHENTICATED: 3, FORBIDDEN: 4, FENCED: 5, TOPIC_GONE: 6, LIMIT: 7, UNDECODABLE: 8, FAILED: 9,
} as const;
export const codeName = (code: number): string => Object.entries(Code).find(([, n]) => n === code)?.[0] ?? String(code);
export const GAP = 1;
export const PROMPT = 2;
export const AGAIN = 4;

/** The peer broke the protocol. Code 0 means that its bytes cannot be trusted: the connection ends without a word. */
export class Fault extends Error {
  readonly code: number;
  constructor(code: number, reason: string) {
    super(reason);
    this.code = code;
  }
}

// The fields of each body, by number.
const SCHEMA = {
  Hello: "version max_frame token agent features",
  Welcome: "version max_frame max_message features instance",
  Open: "handle publisher epoch secret stream topic base want_messages want_bytes least_bytes incarnation tenure",
  Opened: "handle code reason next settled last_epoch last_incarnation",
  Publish: "handle first flags messages",
  Ack: "handle next settled credit_messages credit_bytes",
  Want: "handle want_messages want_bytes least_bytes seen_messages",
  Reject: "handle sequence code reason",
  RejectSeen: "handle sequence",
  Ping: "id handle",
  Pong: "id handle why",
  Goaway: "reason",
  Failure: "code reason",
  Release: "handle",
  Revoke: "handle publisher epoch secret stream topic tenure at_once",
  Returned: "handle next settled returned in_hand",
};
export type Kind = keyof typeof SCHEMA;
const KINDS = Object.keys(SCHEMA) as (Kind | undefined)[];
KINDS.splice(14, 0, undefined); // 15 is the checksum

const none: Buffer = Buffer.alloc(0);
const EMPTY = {
  handle: 0, version: 0, max_frame: 0, max_message: 0, token: none, agent: "", publisher: none, secret: none, epoch: 0,
  incarnation: none, stream: 0, topic: "", base: 0, want_messages: 0, want_bytes: 0, least_bytes: 0, seen_messages: 0, code: 0,
  reason: "", next: 0, settled: [] as number[], last_epoch: 0, last_incarnation: none, first: 0, flags: 0, messages: [] as Buffer[],
  credit_messages: 0, credit_bytes: 0, sequence: 0, id: 0, why: "", features: [] as string[], instance: none, tenure: 0, at_once: 0,
  returned: [] as number[], in_hand: 0,
};
export type Fields = typeof EMPTY;

/** A frame of any kind: SCHEMA says which fields it has. */
export type Frame = Fields & { kind: Kind };
const FIELDS = Object.fromEntries(Object.entries(SCHEMA).map(([kind, names]) => [kind, names.split(" ")])) as Record<Kind, (keyof Fields)[]>;

export function frame(kind: Kind, fields: Partial<Fields> = {}): Frame {
  return { ...EMPTY, settled: [], returned: [], messages: [], features: [], ...fields, kind };
}

export function varint(n: number): Buffer {
  if (n < 0x80) return Buffer.from([n]);
  const out: number[] = [];
  for (; n > 0x7f; n = Math.floor(n / 128)) out.push((n % 128) | 0x80);
  out.push(n);
  return Buffer.from(out);
}

/** Reads protobuf. Numbers above 2^53-1 are refused: they would not be exact. */
class Reader {
  at = 0;
  readonly data: Buffer;
  constructor(data: Buffer) {
    this.data = data;
  }

  get more(): boolean {
    return this.at < this.data.length;
  }

  varint(): number {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const b = this.data[this.at++];
      if (b === undefined || scale > 2 ** 63) throw new Fault(Code.PROTOCOL, "malformed varint");
      value += (b & 0x7f) * scale;
      if (b < 0x80) break;
    }
    if (value > Number.MAX_SAFE_INTEGER) throw new Fault(Code.PROTOCOL, "a number above 2^53-1");
    return value;
  }

  bytes(size = this.varint()): Buffer {
    if (this.at + size > this.data.length) throw new Fault(Code.PROTOCOL, "truncated field");
    return this.data.subarray(this.at, (this.at += size));
  }

  /** The next field: its number and value. */
  field(): [number, number | Buffer | undefined] {
    const tag = this.varint();
    const number = Math.floor(tag / 8);
    switch (number && tag % 8) {
      case 0:
        if (number) return [number, this.varint()];
        break;
      case 2:
        return [number, this.bytes()];
      case 1:
        this.bytes(8);
        return [number, undefined];
      case 5:
        this.bytes(4);
        return [number, undefined];
    }
    throw new Fault(Code.PROTOCOL, "malformed field");
  }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
export function text(data: Buffer): string {
  try {
    return utf8.decode(data);
  } catch {
    throw new Fault(Code.PROTOCOL, "a string that is not UTF-8");
  }
}

export const chunk = (tag: number, data: Buffer): Buffer => Buffer.concat([Buffer.from([tag]), varint(data.length), data]);

/** A frame with its length. The messages of a Publish are given as chunks of field 4, tag and length included. */
export function encode(f: Frame, checksum = true): Buffer {
  const parts: Buffer[] = [];
  FIELDS[f.kind].forEach((name, i) => {
    const value = f[name];
    if (typeof value === "number") {
      if (value) parts.push(Buffer.from([(i + 1) << 3]), varint(value));
    } else if (name === "messages") {
      parts.push(...f.messages);
    } else if (name === "features") {
      for (const feature of f.features) parts.push(chunk(((i + 1) << 3) | 2, Buffer.from(feature)));
    } else if (value.length) {
      const data = typeof value === "string" ? Buffer.from(value) : value instanceof Buffer ? value : Buffer.concat((value as number[]).map(varint));
      parts.push(chunk(((i + 1) << 3) | 2, data));
    }
  });
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  const head = Buffer.concat([Buffer.alloc(4), varint(((KINDS.indexOf(f.kind) + 1) << 3) | 2), varint(size)]);
  const out = Buffer.concat([head, ...parts, Buffer.alloc(checksum ? 5 : 0)]);
  out.writeUInt32BE(out.length - 4);
  if (checksum) {
    out[out.length - 5] = 0x7d;
    out.writeUInt32LE(crc32c(out.subarray(4, out.length - 5)), out.length - 4);
  }
  return out;
}

/** The frame of a payload. A Fault says what is wrong with it. */
export function decode(payload: Buffer, checksum = true): Frame {
  if (checksum) {
    const end = payload.length - 5;
    if (end < 0 || payload[end] !== 0x7d || payload.readUInt32LE(end + 1) !== crc32c(payload.subarray(0, end))) {
      throw new Fault(0, "wrong checksum");
    }
    payload = payload.subarray(0, end);
  }
  const outer = new Reader(payload);
  const tag = outer.varint();
  const kind = KINDS[Math.floor(tag / 8) - 1];
  if (tag % 8 !== 2 || !kind) throw new Fault(Code.PROTOCOL, "a frame without a body, or with an unknown one");
  const body = new Reader(outer.bytes());
  if (outer.more) throw new Fault(Code.PROTOCOL, "a frame is one body and nothing else");
  const f = frame(kind);
  if (kind === "Publish") {
    decodePublish(f, body);
    return f;
  }
  const out: Record<string, unknown> = f;
  while (body.more) {
    const [number, value] = body.field();
    const name = FIELDS[kind][number - 1];
    if (name === undefined || value === undefined) continue;
    if (name === "settled" || name === "returned") {
      if (typeof value === "number") f[name].push(value);
      else for (const r = new Reader(value); r.more; ) f[name].push(r.varint());
    } else if (name === "features") {
      if (typeof value !== "number") f.features.push(text(value));
    } else if (typeof value === typeof EMPTY[name]) {
      out[name] = value;
    } else if (typeof value !== "number" && typeof EMPTY[name] === "string") {
      out[name] = text(value);
    }
  }
  return f;
}

function decodePublish(f: Frame, body: Reader): void {
  while (body.more && body.data[body.at] !== 0x22) {
    const [number, value] = body.field();
    if (typeof value !== "number") throw new Fault(Code.PROTOCOL, "a Publish has varints, then messages");
    if (number === 1) f.handle = value;
    else if (number === 2) f.first = value;
    else if (number === 3) f.flags = value;
  }
  while (body.more) {
    if (body.data[body.at++] !== 0x22) throw new Fault(Code.PROTOCOL, "messages are the last fields of a Publish");
    f.messages.push(body.bytes());
  }
}

/** A message as a chunk of a Publish, which is also what it counts of the credit. */
export function encodeMessage(uuid: string, payload: Buffer, metadata: ReadonlyMap<string, Buffer>): Buffer {
  const parts: Buffer[] = [];
  if (uuid) parts.push(chunk(10, Buffer.from(uuid)));
  if (payload.length) parts.push(chunk(18, payload));
  for (const [key, value] of metadata) parts.push(chunk(26, Buffer.concat([chunk(10, Buffer.from(key)), chunk(18, value)])));
  return chunk(34, Buffer.concat(parts));
}

/** UUID, payload and metadata of an Envelope. A Fault says that it is none. */
export function decodeMessage(data: Buffer): { uuid: string; payload: Buffer; metadata: Map<string, Buffer> } {
  const message = { uuid: "", payload: none, metadata: new Map<string, Buffer>() };
  for (const r = new Reader(data); r.more; ) {
    const [number, value] = r.field();
    if (!(value instanceof Buffer)) continue;
    if (number === 1) message.uuid = text(value);
    else if (number === 2) message.payload = value;
    else if (number === 3) {
      let key = "";
      let content: Buffer = none;
      for (const pair = new Reader(value); pair.more; ) {
        const [n, v] = pair.field();
        if (n === 1 && v instanceof Buffer) key = text(v);
        else if (n === 2 && v instanceof Buffer) content = v;
      }
      message.metadata.set(key, content);
    }
  }
  return message;
}

// Eight tables: what a byte does to the checksum when 0 to 7 bytes follow it.
const CRC = Array.from({ length: 8 }, () => new Uint32Array(256));
for (let i = 0; i < 256; i++) {
  let n = i;
  for (let bit = 0; bit < 8; bit++) n = (n >>> 1) ^ (n & 1 ? 0x82f63b78 : 0);
  CRC[0]![i] = n;
}
for (let k = 1; k < 8; k++) for (let i = 0; i < 256; i++) CRC[k]![i] = CRC[0]![CRC[k - 1]![i]! & 0xff]! ^ (CRC[k - 1]![i]! >>> 8);
const [T0, T1, T2, T3, T4, T5, T6, T7] = CRC as [Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array];

/** CRC-32C. */
export function crc32c(data: Buffer): number {
  let crc = 0xffffffff;
  let at = 0;
  for (const end = data.length - 7; at < end; at += 8) {
    crc ^= data[at]! | (data[at + 1]! << 8) | (data[at + 2]! << 16) | (data[at + 3]! << 24);
    crc = T7[crc & 0xff]! ^ T6[(crc >>> 8) & 0xff]! ^ T5[(crc >>> 16) & 0xff]! ^ T4[crc >>> 24]!
      ^ T3[data[at + 4]!]! ^ T2[data[at + 5]!]! ^ T1[data[at + 6]!]! ^ T0[data[at + 7]!]!;
  }
  for (; at < data.length; at++) crc = T0[(crc ^ data[at]!) & 0xff]! ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** One connection. A Fault that onFrame throws ends it. */
export class Connection {
  onFrame: (f: Frame) => void = () => undefined;
  onLost: () => void = () => undefined;
  onWritable: () => void = () => undefined;
  maxFrame: number;
  maxMessage = 0; // what the other side takes, as is peerFrame
  peerFrame = 0;
  paused = false;
  heard = Date.now();
  said = Date.now();
  partial = false; // a frame has begun to arrive
  readonly ended: Promise<void>;
  readonly socket: Socket;
  private rest: Buffer = none;
  private failed = false;
  private readonly checksum: boolean;

  constructor(socket: Socket, maxFrame: number) {
    this.socket = socket;
    this.maxFrame = maxFrame;
    this.checksum = !(socket instanceof TLSSocket);
    socket.setNoDelay(true);
    socket.on("data", (data: Buffer) => this.received(data));
    socket.on("error", () => undefined); // its close follows
    socket.on("drain", () => {
      this.paused = false;
      this.onWritable();
    });
    this.ended = new Promise((resolve) => {
      socket.on("close", () => {
        resolve();
        this.onLost();
      });
    });
  }

  get closing(): boolean {
    return this.socket.destroyed || this.socket.writableEnded;
  }

  send(f: Frame): void {
    if (this.closing) return;
    this.said = Date.now();
    if (!this.socket.writableCorked) {
      this.socket.cork();
      process.nextTick(() => this.socket.uncork());
    }
    if (!this.socket.write(encode(f, this.checksum))) this.paused = true;
  }

  /** Ends the connection, with a Failure if the peer can read one. */
  fail(fault: Fault): void {
    if (fault.code) this.send(frame("Failure", { code: fault.code, reason: fault.message.slice(0, 128) }));
    this.failed = true;
    this.socket.end(() => this.socket.destroy());
  }

  private received(data: Buffer): void {
    this.heard = Date.now();
    const all = this.rest.length ? Buffer.concat([this.rest, data]) : data;
    let at = 0;
    try {
      while (all.length - at >= 4 && !this.failed) {
        const size = all.readUInt32BE(at);
        if (size > this.maxFrame) throw new Fault(0, `a frame of ${size} bytes`);
        if (all.length - at - 4 < size) break;
        at += 4 + size;
        this.onFrame(decode(all.subarray(at - size, at), this.checksum));
      }
    } catch (fault) {
      if (!(fault instanceof Fault)) throw fault;
      this.fail(fault);
    }
    this.rest = all.subarray(at);
    this.partial = this.rest.length > 0;
  }
}
