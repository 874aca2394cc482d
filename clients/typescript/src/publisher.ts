// The sender of the acked protocol.

import { randomBytes, randomUUID } from "node:crypto";
import { connect as connectTCP, isIP, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { connect as connectTLS, type ConnectionOptions } from "node:tls";
import { AGAIN, Code, Connection, codeName, encodeMessage, Fault, type Frame, frame, GAP, LEAST_FRAME, PROMPT, varint } from "./wire.ts";

const BATCH_BYTES = 65_000;
const BATCH_MESSAGES = 1024;

/** The receiver refused a message, a topic or the connection. */
export class Refused extends Error {
  readonly code: number;
  constructor(code: number, reason: string) {
    super(`${codeName(code)}: ${JSON.stringify(reason)}`);
    this.code = code;
  }
}

/** The receiver claims what was never sent, and would drop it: it takes this sender for another. */
export class NeverSent extends Refused {}

/** Messages did not reach their confirm level in time. They go on being sent. */
export class PublishTimeout extends Error {}

/** The publisher closed with messages that no receiver has. */
export class Undelivered extends Error {}

export interface Message {
  payload: Buffer;
  uuid?: string;
  metadata?: ReadonlyMap<string, Buffer>;
}

export interface PublisherOptions {
  token?: Buffer;
  /** TLS, with these options. */
  tls?: ConnectionOptions;
  /** Sends the token where it could be read. */
  insecureToken?: boolean;
  /** What may be unsettled of a topic, in messages and bytes: publish waits when it is full. */
  window?: number;
  windowBytes?: number;
  /** Gets what was refused when publish had returned, or would go on waiting for others. */
  onFailure?: (topic: string, message: Message, error: Error) => void;
}

class Call {
  left: number;
  readonly handled: boolean;
  readonly done: Promise<void>;
  private resolve!: () => void;
  private reject!: (error: Error) => void;

  constructor(left: number, handled: boolean) {
    this.left = left;
    this.handled = handled;
    this.done = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    this.done.catch(() => undefined); // it is no surprise if publish gave up
  }

  reached(error?: Error): void {
    this.left--;
    if (error) this.reject(error);
    else if (this.left === 0) this.resolve();
  }
}

interface Entry {
  message: Message;
  chunk: Buffer;
  call: Call;
  received: boolean;
  again: boolean; // an earlier instance of the receiver may have given it to a consumer
}

/** A stream. Its number is its handle too, as it is opened once on a connection. */
class Stream {
  readonly unsettled = new Map<number, Entry>();
  bytes = 0;
  last = 0; // sequences: of the last message, sent ever, received ever
  sent = 0;
  received = 0;
  room: (() => void)[] = [];
  tenure = 1;
  retry = 0;
  delay = 1000;
  touched = Date.now();
  asked = false; // Open is out, Opened is here, a Want has no answer yet
  open = false;
  wanted = false;
  next = 0; // acked as received, to be sent, what the receiver expects
  cursor = 0;
  at = 0;
  limit = 0;
  limitBytes = 0;
  used = 0;
  usedBytes = 0;
  readonly topic: string;
  readonly handle: number;

  constructor(topic: string, handle: number) {
    this.topic = topic;
    this.handle = handle;
  }

  detach(): void {
    this.asked = this.open = this.wanted = false;
    this.next = this.cursor = this.at = this.limit = this.limitBytes = this.used = this.usedBytes = 0;
  }

  base(): number {
    for (const sequence of this.unsettled.keys()) return sequence;
    return this.last + 1;
  }

  pop(sequence: number, error?: Error): Entry | undefined {
    const entry = this.unsettled.get(sequence);
    if (!entry) return undefined;
    this.unsettled.delete(sequence);
    this.bytes -= entry.chunk.length;
    for (const wake of this.room.splice(0)) wake();
    if (error || !entry.received || entry.call.handled) entry.call.reached(error);
    return entry;
  }

  settle(pairs: number[], most: number): void {
    for (let i = 0; i < pairs.length; i += 2) {
      const [first, last] = [pairs[i]!, pairs[i + 1]!];
      if (!(first >= 1 && first <= last && last <= most)) throw new Fault(Code.PROTOCOL, "settled what was not sent");
      for (let sequence = Math.max(first, this.base()); sequence <= last; sequence++) this.pop(sequence);
    }
  }

  receive(next: number): void {
    this.next = next;
    for (let sequence = Math.max(this.received + 1, this.base()); sequence < next; sequence++) {
      const entry = this.unsettled.get(sequence);
      if (entry && !entry.received) {
        entry.received = true;
        if (!entry.call.handled) entry.call.reached();
      }
    }
    this.received = Math.max(this.received, next - 1);
  }
}

/**
 * Publishes to a listener, at "host:port" or "unix:///path". Of several addresses one is in use. The next one is when that closes, or
 * can not be reached: what is not settled moves there.
 */
export class Publisher {
  /** Why there is no connection. */
  cause?: Error;
  private readonly addresses: readonly string[];
  private readonly options: PublisherOptions;
  private readonly identity = randomBytes(16);
  private readonly secret = randomBytes(16);
  private readonly streams = new Map<string, Stream>();
  private readonly handles = new Map<number, Stream | undefined>(); // of the connection; undefined: given up, its credit is returned
  private readonly dirty = new Set<Stream>();
  private numbers = 0;
  private conn?: Connection;
  private draining = false;
  private moves = false;
  private at = 0; // of addresses
  private instance?: Buffer; // of the receiver that was met last; empty: it has none
  private closed = false;
  private stopped = false;
  private running = false;
  private ticker?: NodeJS.Timeout;

  constructor(addresses: string | readonly string[], options: PublisherOptions = {}) {
    this.addresses = typeof addresses === "string" ? [addresses] : addresses;
    const verified = options.tls && options.tls.rejectUnauthorized !== false;
    if (options.token?.length && !verified && !options.insecureToken && !this.addresses.every((a) => a.startsWith("unix://"))) {
      throw new Error("buffstreams: the token could be read: use TLS that verifies, a unix socket or insecureToken");
    }
    this.options = options;
  }

  /** The address in use. */
  get address(): string {
    return this.addresses[this.at % this.addresses.length]!;
  }

  /** Resolves when the receiver's process holds the messages, or, with handled, when its consumers are done with them. */
  async publish(topic: string, messages: readonly Message[], { handled = false, timeout = 30_000 } = {}): Promise<void> {
    if (this.closed) throw new Undelivered("buffstreams: the publisher is closed");
    this.ticker ??= setInterval(() => this.tick(), 250);
    const call = new Call(messages.length, handled);
    let timer: NodeJS.Timeout | undefined;
    let expired = false;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        expired = true;
        const why = this.cause?.message ?? "no ack";
        reject(new PublishTimeout(`buffstreams: ${JSON.stringify(topic)} at ${this.address}: ${call.left} unconfirmed: ${why}`));
      }, timeout);
    });
    late.catch(() => undefined);
    try {
      for (const message of messages) {
        const data = encodeMessage(message.uuid ?? randomUUID(), message.payload, message.metadata ?? new Map());
        while (!this.append(topic, message, data, call)) {
          await Promise.race([new Promise<void>((wake) => this.stream(topic).room.push(wake)), late]);
          if (expired) await late;
        }
      }
      if (messages.length) await Promise.race([call.done, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Waits until all is settled, releases the streams, and throws Undelivered if a message is in no receiver's hands. */
  async close(timeout = 5000): Promise<void> {
    this.closed = true;
    const end = Date.now() + timeout;
    const streams = () => [...this.streams.values()];
    while (streams().some((s) => s.unsettled.size) && Date.now() < end) await sleep(10);
    const left = streams().reduce((sum, s) => sum + [...s.unsettled.keys()].filter((sequence) => sequence >= s.next).length, 0);
    this.stopped = true;
    const conn = this.conn;
    if (conn) {
      const has = (s: Stream) => [...s.unsettled.keys()].every((sequence) => sequence < s.next); // the last one may never have been sent
      for (const s of streams()) if (s.open && has(s)) conn.send(frame("Release", { handle: s.handle }));
      conn.socket.end();
      await Promise.race([conn.ended, sleep(Math.min(500, timeout))]);
      conn.socket.destroy();
    }
    clearInterval(this.ticker);
    for (const s of streams()) this.giveUp(s, new Undelivered("buffstreams: the publisher closed"));
    if (left) throw new Undelivered(`buffstreams: ${left} messages to ${this.address} were not delivered`);
  }

  private stream(topic: string): Stream {
    let s = this.streams.get(topic);
    if (!s) this.streams.set(topic, (s = new Stream(topic, ++this.numbers)));
    return s;
  }

  private append(topic: string, message: Message, chunk: Buffer, call: Call): boolean {
    const s = this.stream(topic);
    const { window = 16_384, windowBytes = 16 << 20 } = this.options;
    if (s.unsettled.size >= window || (s.unsettled.size && s.bytes + chunk.length > windowBytes)) return false;
    s.unsettled.set(++s.last, { message, chunk, call, received: false, again: false });
    s.bytes += chunk.length;
    s.touched = Date.now();
    this.kick(s);
    if (!this.running) void this.run();
    return true;
  }

  /** Connects while there is something to deliver. */
  private async run(): Promise<void> {
    this.running = true;
    let delay = 100;
    let refusals = 0; // in a row
    while (!this.stopped && [...this.streams.values()].some((s) => s.unsettled.size)) {
      try {
        const conn = await this.connect();
        this.conn = conn;
        this.draining = false;
        delay = 100;
        refusals = 0;
        this.kickAll();
        await conn.ended;
        if (this.draining) this.at++;
      } catch (error) {
        this.at++;
        this.cause = error as Error;
        if (error instanceof Refused && (error.code === Code.VERSION || error.code === Code.UNAUTHENTICATED)) refusals++;
        if (refusals === this.addresses.length) {
          refusals = 0;
          const calls = [...this.streams.values()].flatMap((s) => [...s.unsettled.values()].map((e) => e.call));
          for (const call of new Set(calls)) call.reached(error as Error); // but what it has is kept
        }
      }
      this.conn = undefined;
      await sleep(Math.random() * delay);
      delay = Math.min(2 * delay, 10_000);
    }
    this.running = false;
  }

  private dial(): Socket {
    if (this.address.startsWith("unix://")) {
      const path = this.address.slice(7);
      return this.options.tls ? connectTLS({ ...this.options.tls, path }) : connectTCP({ path });
    }
    const at = this.address.lastIndexOf(":");
    const to = { host: this.address.slice(0, at).replace(/^\[|\]$/g, ""), port: Number(this.address.slice(at + 1)) };
    return this.options.tls ? connectTLS({ servername: isIP(to.host) ? "" : to.host, ...this.options.tls, ...to }) : connectTCP(to);
  }

  private async connect(): Promise<Connection> {
    const socket = this.dial();
    const conn = new Connection(socket, 1 << 20);
    const timer = setTimeout(() => socket.destroy(new Error("no answer in time")), 5000);
    try {
      await new Promise<void>((resolve, reject) => {
        socket.on("error", reject);
        conn.onLost = () => {
          reject(new Error("the connection ended in the greeting"));
          for (const s of this.streams.values()) s.detach();
          this.handles.clear();
        };
        conn.onFrame = (f) => {
          if (f.kind === "Failure") return reject(new Refused(f.code, f.reason));
          if (f.kind !== "Welcome") throw new Fault(Code.PROTOCOL, `${f.kind} before the Welcome`);
          if (f.version !== 1 || f.max_frame < LEAST_FRAME || !f.max_message) throw new Fault(Code.PROTOCOL, "a Welcome out of range");
          conn.maxMessage = f.max_message;
          conn.peerFrame = f.max_frame;
          conn.onFrame = (f) => this.onFrame(conn, f);
          conn.onWritable = () => this.kickAll();
          this.meet(f.features.includes("move") ? f.instance : Buffer.alloc(0));
          resolve();
        };
        socket.once(this.options.tls ? "secureConnect" : "connect", () =>
          conn.send(frame("Hello", { version: 1, max_frame: 1 << 20, token: this.options.token ?? Buffer.alloc(0), agent: "buffstreams-typescript", features: ["move"] })));
      });
    } catch (error) {
      socket.destroy();
      throw error;
    } finally {
      clearTimeout(timer);
    }
    return conn;
  }

  /** Begins a new tenure of each stream where the receiver is another process than before: it has nothing of them. */
  private meet(instance: Buffer): void {
    this.moves = instance.length > 0;
    if (this.instance && !instance.equals(this.instance)) {
      for (const s of this.streams.values()) {
        s.tenure++;
        for (const [sequence, entry] of s.unsettled) entry.again ||= sequence <= s.sent;
      }
    }
    this.instance = Buffer.from(instance);
  }

  private onFrame(conn: Connection, f: Frame): void {
    switch (f.kind) {
      case "Ping":
        return conn.send(frame("Pong", { id: f.id, handle: f.handle }));
      case "Pong":
        return;
      case "Goaway":
        this.draining = true;
        return;
      case "Failure":
        this.cause = new Refused(f.code, f.reason);
        conn.socket.destroy();
        return;
      case "Opened":
      case "Ack":
      case "Reject": {
        if (!this.handles.has(f.handle) && !(f.handle > 0 && f.handle <= this.numbers)) {
          throw new Fault(Code.PROTOCOL, `${f.kind} for a handle that was not asked for`);
        }
        const s = this.handles.get(f.handle);
        if (s) this[`on${f.kind}`](conn, s, f);
        else if (f.kind === "Ack" && f.credit_messages && this.handles.has(f.handle)) {
          conn.send(frame("Want", { handle: f.handle, seen_messages: f.credit_messages }));
        }
        return;
      }
      default:
        throw new Fault(Code.PROTOCOL, `${f.kind} is for receivers`);
    }
  }

  private onOpened(_: Connection, s: Stream, f: Frame): void {
    if (s.open) throw new Fault(Code.PROTOCOL, "Opened twice");
    if (f.code) {
      this.handles.delete(s.handle);
      s.detach();
      if (f.code !== Code.LIMIT) return this.giveUp(s, new Refused(f.code, f.reason));
      s.retry = Date.now() + s.delay;
      s.delay = Math.min(2 * s.delay, 30_000);
      return;
    }
    const most = Math.max(s.base() - 1, s.sent);
    if (f.next < s.base() || f.settled.length % 2 || f.settled.some((n, i) => n < 1 || (i % 2 && n < f.settled[i - 1]!))) {
      throw new Fault(Code.PROTOCOL, "Opened with a position out of range");
    }
    if (f.next > most + 1 || f.settled.some((n) => n > most)) {
      this.handles.set(s.handle, undefined);
      return this.giveUp(s, new NeverSent(0, "the receiver claims what was never sent"));
    }
    s.open = true;
    s.cursor = s.at = f.next;
    s.delay = 1000;
    s.settle(f.settled, most);
    s.receive(f.next);
    this.kick(s);
  }

  private onAck(_: Connection, s: Stream, f: Frame): void {
    if (!s.open || (f.next && (f.next < s.next || f.next > Math.max(s.at, s.next))) || f.settled.length % 2) {
      throw new Fault(Code.PROTOCOL, "an Ack out of range");
    }
    if (f.next) s.receive(f.next);
    s.settle(f.settled, Math.max(s.sent, s.next - 1));
    if (f.credit_messages) {
      if (f.credit_messages < s.limit || f.credit_bytes < s.limitBytes) throw new Fault(Code.PROTOCOL, "credit falls");
      s.limit = f.credit_messages;
      s.limitBytes = f.credit_bytes;
      s.wanted = false;
      s.touched = Date.now();
    }
    this.kick(s);
  }

  private onReject(conn: Connection, s: Stream, f: Frame): void {
    if (!s.open || f.sequence > s.sent) throw new Fault(Code.PROTOCOL, "a Reject of what was not sent");
    const error = new Refused(f.code, f.reason);
    if (!f.sequence) {
      conn.send(frame("Release", { handle: s.handle }));
      this.handles.delete(s.handle);
      return this.giveUp(s, error);
    }
    this.refuse(s, f.sequence, error);
    conn.send(frame("RejectSeen", { handle: s.handle, sequence: f.sequence }));
  }

  private refuse(s: Stream, sequence: number, error: Error): void {
    const entry = s.pop(sequence, error);
    if (entry) this.options.onFailure?.(s.topic, entry.message, error);
  }

  private giveUp(s: Stream, error: Error): void {
    this.streams.delete(s.topic);
    for (const sequence of [...s.unsettled.keys()]) this.refuse(s, sequence, error);
    s.detach();
  }

  private kickAll(): void {
    for (const s of this.streams.values()) this.kick(s);
  }

  private kick(s: Stream): void {
    if (!this.dirty.size) setImmediate(() => this.flush());
    this.dirty.add(s);
  }

  private flush(): void {
    const streams = [...this.dirty];
    this.dirty.clear();
    const conn = this.conn;
    if (!conn || this.draining || conn.closing) return;
    for (const s of streams) {
      if (this.streams.get(s.topic) !== s) continue;
      if (s.open) this.send(conn, s);
      else if (!s.asked && (s.unsettled.size || s.tenure > 1) && Date.now() >= s.retry) { // another tenure voids older copies there
        s.asked = true;
        s.wanted = s.unsettled.size > 0;
        this.handles.set(s.handle, s);
        conn.send(frame("Open", {
          handle: s.handle, publisher: this.identity, epoch: 1, secret: this.secret, stream: s.handle, topic: s.topic, base: s.base(),
          want_messages: s.unsettled.size, want_bytes: s.bytes, least_bytes: s.unsettled.get(s.base())?.chunk.length ?? 0,
          tenure: this.moves ? s.tenure : 0,
        }));
      }
    }
  }

  /** Sends what credit and the socket allow, and asks for more. */
  private send(conn: Connection, s: Stream): void {
    while (s.cursor <= s.last && !conn.paused) {
      const chunks: Buffer[] = [];
      let first = 0;
      let size = 0;
      let again = false;
      while (s.cursor <= s.last && chunks.length < BATCH_MESSAGES) {
        const entry = s.unsettled.get(s.cursor);
        const n = entry?.chunk.length ?? 0;
        const large = n > conn.maxMessage + 1 + varint(conn.maxMessage).length || n + 64 > conn.peerFrame;
        if (large) this.refuse(s, s.cursor, new Refused(Code.LIMIT, "larger than the receiver takes"));
        if (!entry || large) {
          if (chunks.length) break;
          s.cursor++;
          continue;
        }
        if (chunks.length && entry.again !== again) break;
        if (s.used >= s.limit || s.usedBytes + n > s.limitBytes || (chunks.length && size + n > BATCH_BYTES)) break;
        first ||= s.cursor;
        again = entry.again;
        chunks.push(entry.chunk);
        size += n;
        s.cursor++;
        s.used++;
        s.usedBytes += n;
      }
      if (!chunks.length) break;
      const flags = PROMPT | (first !== s.at ? GAP : 0) | (again && this.moves ? AGAIN : 0);
      s.at = s.cursor;
      s.sent = Math.max(s.sent, s.cursor - 1);
      s.touched = Date.now();
      conn.send(frame("Publish", { handle: s.handle, first, flags, messages: chunks }));
    }
    const entry = s.unsettled.get(s.cursor);
    if (entry && !s.wanted && !conn.paused) {
      const waiting = s.last - s.cursor + 1;
      this.want(conn, s, waiting, waiting * entry.chunk.length, entry.chunk.length);
    }
  }

  private want(conn: Connection, s: Stream, messages: number, bytes: number, least: number): void {
    conn.send(frame("Want", { handle: s.handle, want_messages: messages, want_bytes: bytes, least_bytes: least, seen_messages: s.limit }));
    s.limit = s.used;
    s.limitBytes = s.usedBytes;
    s.wanted = messages > 0;
    s.touched = Date.now();
  }

  /** Pings, credit that is not used, streams that are idle or wait. */
  private tick(): void {
    const [now, conn] = [Date.now(), this.conn];
    if (!conn) return;
    const patience = this.addresses.length === 1 ? 30_000 : 12_000;
    if (now - conn.heard > patience) conn.socket.destroy();
    else if (now - Math.min(conn.heard, conn.said) > patience / 3) conn.send(frame("Ping", { id: 2 }));
    for (const s of [...this.streams.values()]) {
      if (s.unsettled.size && !s.asked) this.kick(s);
      else if (s.open && s.cursor > s.last && s.limit > s.used && now - s.touched > 250) this.want(conn, s, 0, 0, 0);
      else if (s.open && !s.unsettled.size && now - s.touched > 300_000) {
        conn.send(frame("Release", { handle: s.handle }));
        this.handles.delete(s.handle);
        this.streams.delete(s.topic);
      }
    }
  }
}

/** Publishes to several listeners in turn, call by call. The turns of one that is gone go to the next one. */
export class RoundRobin {
  private readonly publishers: readonly Publisher[];
  private turn = 0;

  constructor(addresses: readonly string[], options: PublisherOptions = {}) {
    this.publishers = addresses.map((_, i) => new Publisher([...addresses.slice(i), ...addresses.slice(0, i)], options));
  }

  publish(topic: string, messages: readonly Message[], options: { handled?: boolean; timeout?: number } = {}): Promise<void> {
    return this.publishers[this.turn++ % this.publishers.length]!.publish(topic, messages, options);
  }

  async close(timeout?: number): Promise<void> {
    const ends = await Promise.allSettled(this.publishers.map((p) => p.close(timeout)));
    for (const end of ends) if (end.status === "rejected") throw end.reason;
  }
}
