// The receiver of the acked protocol.

import { randomBytes, timingSafeEqual } from "node:crypto";
import { createServer as createTCPServer, type AddressInfo, type Server, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { createServer as createTLSServer, type TlsOptions } from "node:tls";
import { AGAIN, Code, Connection, decodeMessage, Fault, type Frame, frame, GAP, LEAST_FRAME, varint } from "./wire.ts";

const TABLE = 65_536; // publishers, streams, topics: each

/** A message, to be answered once: by ack, nack or reject, at any time. */
export class Delivery {
  readonly topic: string;
  readonly uuid: string;
  readonly payload: Buffer;
  readonly metadata: ReadonlyMap<string, Buffer>;
  redelivered = false;
  /** @internal */ taken = false;
  /** @internal */ readonly stream: Stream;
  private readonly sequence: number;
  private readonly size: number;

  /** @internal */
  constructor(stream: Stream, sequence: number, data: Buffer, size: number) {
    ({ uuid: this.uuid, payload: this.payload, metadata: this.metadata } = decodeMessage(data));
    this.topic = stream.topic.name;
    this.stream = stream;
    this.sequence = sequence;
    this.size = size;
  }

  ack(): void {
    if (this.current()) this.stream.settle(this.sequence, this.size);
  }

  /** Delivers the message again, after a delay in milliseconds. */
  nack(delay = 100): void {
    setTimeout(() => {
      this.redelivered = true;
      if (this.current() && this.stream.revoked) this.drop(true);
      else if (this.current()) this.stream.topic.put(this);
    }, delay);
  }

  /** Gives the message up: the publisher is told that it failed. */
  reject(reason: string): void {
    if (this.current()) this.stream.reject(this.sequence, Code.FAILED, reason, this.size);
  }

  /** Whether an answer still counts: not if the publisher has taken the message elsewhere. */
  current(): boolean {
    return this.stream.unsettled.get(this.sequence) === this;
  }

  /** @internal */
  drop(returned: boolean): void {
    this.stream.unsettled.set(this.sequence, returned);
    this.stream.release(this.size);
  }
}

class Topic {
  readonly ready: Delivery[] = [];
  head = 0; // of ready
  consumers = 0;
  readonly wanting = new Set<Stream>(); // in order of asking
  private waiting: (() => void)[] = [];
  readonly name: string;
  readonly window: number;
  readonly windowBytes: number;
  room: number;
  roomBytes: number;

  constructor(name: string, window: number, windowBytes: number) {
    this.name = name;
    this.room = this.window = window;
    this.roomBytes = this.windowBytes = windowBytes;
  }

  put(delivery: Delivery): void {
    this.ready.push(delivery);
    if (this.waiting.length) this.wake();
  }

  take(): Delivery | undefined {
    const delivery = this.ready[this.head];
    if (delivery && ++this.head > 1024 && this.head * 2 > this.ready.length) {
      this.ready.splice(0, this.head);
      this.head = 0;
    }
    return delivery;
  }

  arrival(): Promise<void> {
    return new Promise((wake) => this.waiting.push(wake));
  }

  wake(): void {
    for (const wake of this.waiting.splice(0)) wake();
  }

  /** Gives credit to those that ask for it, in order, while there is room. */
  grant(): void {
    for (const s of this.wanting) {
      if (!this.consumers || this.room < 1 || this.roomBytes < s.least) return;
      this.wanting.delete(s);
      s.share = Math.min(2 * s.share, 1 / 8); // of the window: one that goes on gets more each time
      const messages = Math.max(s.want, Math.floor(this.window * s.share));
      const bytes = Math.max(s.wantBytes, s.least, Math.floor(this.windowBytes * s.share));
      s.grant(Math.min(messages, Math.max(1, this.room >> 1)), Math.min(bytes, Math.max(s.least, this.roomBytes >> 1)));
    }
  }
}

/** Pairs of the first and last of consecutive numbers. */
function asRanges(sequences: number[]): number[] {
  const pairs: number[] = [];
  for (const sequence of sequences.sort((a, b) => a - b)) {
    if (pairs.length && pairs.at(-1) === sequence - 1) pairs[pairs.length - 1] = sequence;
    else pairs.push(sequence, sequence);
  }
  return pairs;
}

/** What is known of a stream: all below next was received, and is settled from base on if it is not in unsettled. */
class Stream {
  // A Frame is a Reject that was not confirmed; a boolean a message that was dropped: was it given back?
  readonly unsettled = new Map<number, Delivery | Frame | boolean>();
  beyond: number[] = []; // settled at or above next: pairs
  tenure = 0;
  revoked = false;
  awaited = false; // consumers have some of what was revoked
  conn?: Connection;
  handle = 0;
  next: number;
  settled: number[] = []; // since the last Ack
  leaving = false; // released early
  kept = false; // its sender keeps what it sent
  granted = 0;
  grantedBytes = 0;
  told = 0; // of granted
  got = 0;
  gotBytes = 0;
  want = 0;
  wantBytes = 0;
  least = 0;
  share = 1 / 512;
  readonly topic: Topic;
  base: number;
  changed: () => void;

  constructor(topic: Topic, base: number, changed: (s: Stream) => void) {
    this.topic = topic;
    this.base = this.next = base;
    this.changed = () => changed(this);
  }

  settle(sequence: number, size: number): void {
    this.unsettled.delete(sequence);
    this.settled.push(sequence);
    this.release(size);
  }

  reject(sequence: number, code: number, reason: string, size: number): void {
    const f = frame("Reject", { handle: this.handle, sequence, code, reason: reason.slice(0, 128) });
    this.unsettled.set(sequence, f);
    this.conn?.send(f);
    this.release(size);
  }

  release(size: number): void {
    this.topic.room++;
    this.topic.roomBytes += size;
    this.topic.grant();
    this.changed();
  }

  grant(messages: number, bytes: number): void {
    this.topic.room -= messages;
    this.topic.roomBytes -= bytes;
    this.granted += messages;
    this.grantedBytes += bytes;
    this.changed();
  }

  takeBack(): void {
    this.topic.wanting.delete(this);
    this.topic.room += this.granted - this.got;
    this.topic.roomBytes += this.grantedBytes - this.gotBytes;
    this.granted = this.told = this.got;
    this.grantedBytes = this.gotBytes;
  }

  detach(): void {
    this.takeBack();
    this.conn = undefined;
    this.told = this.granted = this.grantedBytes = this.got = this.gotBytes = 0;
    this.topic.grant();
  }

  ask(f: Frame): void {
    this.want = f.want_messages;
    this.wantBytes = f.want_bytes;
    this.least = Math.min(f.least_bytes, this.topic.windowBytes); // or it could wait for ever, and others behind it
    if (this.want) this.topic.wanting.add(this);
    this.topic.grant();
  }

  /** What is settled from base on. */
  ranges(): number[] {
    const pairs: number[] = [];
    let first = this.base;
    const open = [...this.unsettled.keys()].filter((sequence) => sequence >= first).sort((a, b) => a - b);
    for (const sequence of [...open, this.next]) {
      if (first < sequence) pairs.push(first, sequence - 1);
      first = sequence + 1;
    }
    for (let i = 0; i < this.beyond.length; i += 2) if (this.beyond[i]! >= this.next) pairs.push(this.beyond[i]!, this.beyond[i + 1]!);
    return pairs;
  }

  held(): Delivery[] {
    return [...this.unsettled.values()].filter((d) => d instanceof Delivery);
  }

  holds(): boolean {
    for (const d of this.unsettled.values()) if (d instanceof Delivery) return true;
    return false;
  }

  /** Begins a new tenure with what is settled alone: the stream has been elsewhere. */
  restart(): void {
    const pairs = this.ranges();
    for (const delivery of this.held()) delivery.drop(false);
    const begun = pairs[0] === this.base;
    this.next = begun ? pairs[1]! + 1 : this.base;
    this.beyond = begun ? pairs.slice(2) : pairs;
    this.unsettled.clear();
    this.settled = [];
    this.revoked = this.awaited = false;
  }

  /** Takes back what no consumer has, and says what became of the stream. */
  revoke(atOnce: boolean): Frame {
    this.revoked = true;
    this.want = 0;
    this.takeBack();
    for (const delivery of this.held()) if (!delivery.taken) delivery.drop(true);
    const held = this.held();
    if (atOnce) for (const delivery of held) delivery.drop(false);
    this.awaited = held.length > 0 && !atOnce;
    const given = [...this.unsettled].filter(([, d]) => d === true).map(([sequence]) => sequence);
    return frame("Returned", { handle: this.handle, next: this.next, returned: asRanges(given).slice(0, 4096), in_hand: held.length });
  }

  ack(): Frame {
    const pairs = asRanges(this.settled);
    this.settled = [];
    // Told again, credit could cross a Want, and give back what that returns.
    const credit = this.revoked || this.granted <= this.told ? {} : { credit_messages: this.granted, credit_bytes: this.grantedBytes };
    this.told = this.granted;
    return frame("Ack", { handle: this.handle, next: this.next, settled: pairs, ...credit });
  }
}

interface Known {
  secret: Buffer;
  principal: string;
  epoch: number;
  streams: Map<string, Stream>;
}

interface Opening {
  publisher: string;
  key: string;
  stream: Stream;
}

/** A connection's own state. */
class Peer {
  readonly handles = new Map<number, Opening>();
  pings: number[] = [];
  pong!: () => void;
  readonly ponged = new Promise<void>((resolve) => (this.pong = resolve));
  readonly principal: string;
  readonly moves: boolean;
  constructor(principal: string, moves: boolean) {
    this.principal = principal;
    this.moves = moves;
  }
}

export interface ListenerOptions {
  /** TLS, with these options. */
  tls?: TlsOptions;
  /** The largest message, in bytes. */
  maxMessage?: number;
  /** Gets the token and the socket, and returns a name for the principal, or undefined to refuse it. */
  authenticate?: (token: Buffer, socket: Socket) => string | undefined;
  /** What a topic holds, in messages and bytes. */
  window?: number;
  windowBytes?: number;
}

/** Receives what publishers send to one address, "host:port" or "unix:///path". */
export class Listener {
  /** Where it listens, if the address had port 0. */
  port = 0;
  private readonly address: string;
  private readonly options: ListenerOptions;
  private readonly maxMessage: number;
  private readonly topics = new Map<string, Topic>();
  private readonly publishers = new Map<string, Known>();
  private readonly peers = new Map<Connection, Peer | undefined>();
  private readonly dirty = new Set<Stream>();
  private readonly server: Server;
  private ticker?: NodeJS.Timeout;
  private closing = false;
  private readonly instance = randomBytes(16);

  constructor(address: string, options: ListenerOptions = {}) {
    this.address = address;
    this.options = options;
    this.maxMessage = options.maxMessage ?? 1 << 20;
    const accept = (socket: Socket) => this.accept(socket);
    this.server = options.tls ? createTLSServer(options.tls, accept) : createTCPServer(accept);
  }

  async start(): Promise<void> {
    const at = this.address.lastIndexOf(":");
    const host = this.address.slice(0, at).replace(/^\[|\]$/g, "") || undefined;
    const where = this.address.startsWith("unix://") ? { path: this.address.slice(7) } : { host, port: Number(this.address.slice(at + 1)) };
    await new Promise<void>((resolve, reject) => this.server.once("error", reject).listen({ backlog: 1024, ...where }, resolve));
    this.port = (this.server.address() as AddressInfo).port ?? 0;
    this.ticker = setInterval(() => this.tick(), 1000);
  }

  /** Iterates over the messages of a topic, until the listener closes. Subscribers of a topic share its messages. */
  subscribe(topic: string): AsyncGenerator<Delivery, void, void> {
    const t = this.topic(topic);
    t.consumers++;
    t.grant();
    return this.iterate(t);
  }

  private async *iterate(t: Topic): AsyncGenerator<Delivery, void, void> {
    try {
      for (let taken = 1; ; taken++) {
        const delivery = t.take();
        if (!delivery) {
          if (this.closing) return;
          await t.arrival();
        } else if (delivery.current() && !delivery.stream.kept) {
          delivery.taken = true;
          yield delivery;
        }
        if (taken % 64 === 0) await new Promise((resolve) => setImmediate(resolve)); // the connections have work to do too
      }
    } finally {
      t.consumers--;
    }
  }

  /** Drains: what publishers do not keep is handled, and what handlers have in hand may end, within timeout milliseconds. */
  async close(timeout = 5000): Promise<void> {
    const end = Date.now() + timeout;
    this.server.close();
    const peers = [...this.peers].flatMap(([conn, peer]) => (peer ? [{ conn, peer }] : []));
    for (const { conn } of peers) {
      conn.send(frame("Goaway", { reason: "closing" }));
      conn.send(frame("Ping", { id: 1 }));
    }
    const limit = sleep(Math.min(1000, timeout));
    await Promise.all(peers.map(async ({ conn, peer }) => {
      const kept = await Promise.race([peer.ponged.then(() => true), conn.ended, limit]);
      for (const { stream } of peer.handles.values()) stream.kept = kept === true;
    }));
    this.closing = true;
    for (const t of this.topics.values()) t.wake();
    const held = (s: Stream) => s.held().some((d) => d.taken || !s.kept);
    while (Date.now() < end && [...this.publishers.values()].some((p) => [...p.streams.values()].some(held))) await sleep(5);
    this.flush();
    const conns = [...this.peers.keys()];
    for (const conn of conns) conn.socket.end();
    await Promise.race([Promise.all(conns.map((conn) => conn.ended)), sleep(500)]);
    for (const conn of conns) conn.socket.destroy();
    clearInterval(this.ticker);
  }

  private topic(name: string): Topic {
    let t = this.topics.get(name);
    if (!t) {
      const bytes = Math.max(this.options.windowBytes ?? 16 << 20, this.maxMessage + 16);
      this.topics.set(name, (t = new Topic(name, this.options.window ?? 16_384, bytes)));
    }
    return t;
  }

  private accept(socket: Socket): void {
    const conn = new Connection(socket, 4096);
    conn.onFrame = (f) => this.greet(conn, f);
    conn.onLost = () => this.lost(conn);
    conn.onWritable = () => socket.resume();
    this.peers.set(conn, undefined);
  }

  private lost(conn: Connection): void {
    const peer = this.peers.get(conn);
    this.peers.delete(conn);
    for (const { publisher, key, stream } of peer?.handles.values() ?? []) {
      if (stream.conn !== conn) continue;
      stream.detach();
      if (stream.leaving) this.forget(publisher, key);
    }
  }

  private cut(conn: Connection): void {
    this.lost(conn);
    conn.socket.destroy();
  }

  private greet(conn: Connection, f: Frame): void {
    if (f.kind !== "Hello") throw new Fault(Code.PROTOCOL, `${f.kind} before Hello`);
    if (f.version < 1) throw new Fault(Code.VERSION, "version 0");
    if (f.max_frame < LEAST_FRAME) throw new Fault(Code.PROTOCOL, "max_frame");
    const principal = this.options.authenticate ? this.options.authenticate(f.token, conn.socket) : "";
    if (principal === undefined) throw new Fault(Code.UNAUTHENTICATED, "not let in");
    if (this.peers.size > 16_384) throw new Fault(Code.LIMIT, "connections");
    const peer = new Peer(principal, f.features.includes("move"));
    this.peers.set(conn, peer);
    conn.onFrame = (f) => this.onFrame(conn, peer, f);
    conn.maxFrame = Math.max(this.maxMessage, 65_536) + 64;
    const move = peer.moves ? { features: ["move"], instance: this.instance } : {};
    conn.send(frame("Welcome", { version: 1, max_frame: conn.maxFrame, max_message: this.maxMessage, ...move }));
  }

  private onFrame(conn: Connection, peer: Peer, f: Frame): void {
    if (conn.paused && conn.socket.writableLength > 256 << 10) conn.socket.pause();
    const opening = peer.handles.get(f.handle);
    switch (f.kind) {
      case "Open":
        return this.onOpen(conn, peer, f);
      case "Publish":
      case "Want":
      case "RejectSeen":
        if (!opening) throw new Fault(Code.PROTOCOL, `handle ${f.handle} is not open`);
        if (opening.stream.conn !== conn) return;
        if (opening.stream.revoked && f.kind === "Publish") throw new Fault(Code.PROTOCOL, "a Publish in a stream that was revoked");
        if (opening.stream.revoked && f.kind === "Want") return;
        opening.stream.leaving = false;
        return this[`on${f.kind}`](opening.stream, f);
      case "Revoke":
        return this.onRevoke(conn, peer, f);
      case "Release":
        if (opening?.stream.conn !== conn) return;
        if ([...opening.stream.unsettled.values()].some((d) => typeof d !== "boolean")) {
          opening.stream.leaving = true; // unless something follows
          return;
        }
        peer.handles.delete(f.handle);
        return this.forget(opening.publisher, opening.key);
      case "Ping": {
        const now = Date.now();
        peer.pings.push(now);
        if (peer.pings.length > 1000 && now - peer.pings.splice(0, peer.pings.length - 1000)[0]! < 1000) {
          throw new Fault(Code.PROTOCOL, "too many pings");
        }
        return conn.send(frame("Pong", { id: f.id, handle: f.handle }));
      }
      case "Pong":
        if (f.id === 1) peer.pong();
        return;
      case "Failure":
        conn.socket.destroy();
        return;
      default:
        throw new Fault(Code.PROTOCOL, `${f.kind} is for senders`);
    }
  }

  private refusal(peer: Peer, f: Frame, known?: Known): [number, string] {
    if (f.publisher.length !== 16 || f.secret.length !== 16 || Buffer.byteLength(f.topic) > 1024) {
      return [Code.PROTOCOL, "publisher, secret or topic"];
    }
    if (!(f.epoch && f.stream && f.base)) return [Code.PROTOCOL, "epoch, stream or base is 0"];
    if (known && (!timingSafeEqual(known.secret, f.secret) || known.principal !== peer.principal || f.epoch < known.epoch)) {
      return [Code.FENCED, "another secret, principal, or a newer epoch"];
    }
    const tenure = (known?.epoch === f.epoch && known.streams.get(`${f.stream} ${f.topic}`)?.tenure) || 0;
    if (f.tenure && f.tenure < tenure) return [Code.FENCED, "the stream has moved"];
    if (peer.handles.size >= TABLE || (!known && !this.makeRoom()) || (!this.topics.has(f.topic) && this.topics.size >= TABLE)) {
      return [Code.LIMIT, "streams, publishers or topics"];
    }
    return [0, ""];
  }

  /** Forgets the oldest publisher that is away and owes nothing, if the table is full. */
  private makeRoom(): boolean {
    if (this.publishers.size < TABLE) return true;
    for (const [id, known] of this.publishers) {
      if (![...known.streams.values()].some((s) => s.conn || s.unsettled.size)) return this.publishers.delete(id);
    }
    return false;
  }

  private onOpen(conn: Connection, peer: Peer, f: Frame): void {
    if (!f.handle || peer.handles.has(f.handle)) throw new Fault(Code.PROTOCOL, "a handle that is open, or 0");
    const id = f.publisher.toString("hex");
    let known = this.publishers.get(id);
    const [code, reason] = this.refusal(peer, f, known);
    if (code) {
      const epoch = code === Code.FENCED && known && timingSafeEqual(known.secret, f.secret) ? known.epoch : 0;
      return conn.send(frame("Opened", { handle: f.handle, code, reason, last_epoch: epoch }));
    }
    if (!known) {
      known = { secret: Buffer.from(f.secret), principal: peer.principal, epoch: f.epoch, streams: new Map() };
      this.publishers.set(id, known);
    }
    if (f.epoch > known.epoch) {
      known.epoch = f.epoch;
      for (const old of [...known.streams.values()]) if (old.conn && old.conn !== conn) this.cut(old.conn); // the older ones end
    }
    const key = `${f.stream} ${f.topic}`;
    let s = known.streams.get(key);
    if (!s) known.streams.set(key, (s = new Stream(this.topic(f.topic), f.base, (s) => this.mark(s))));
    else if (s.conn && s.conn !== conn) this.cut(s.conn);
    else if (s.conn) {
      peer.handles.delete(s.handle);
      s.detach();
    }
    if (s.revoked || (s.tenure && f.tenure > s.tenure)) s.restart();
    s.tenure = f.tenure || s.tenure;
    s.base = Math.max(s.base, f.base);
    s.next = Math.max(s.next, f.base);
    s.conn = conn;
    s.handle = f.handle;
    s.settled = [];
    s.leaving = false;
    peer.handles.set(f.handle, { publisher: id, key, stream: s });
    const pairs = s.ranges();
    conn.send(frame("Opened", { handle: f.handle, next: s.next, settled: pairs.slice(0, 4096), last_epoch: known.epoch }));
    for (let at = 4096; at < pairs.length; at += 4096) conn.send(frame("Ack", { handle: f.handle, settled: pairs.slice(at, at + 4096) }));
    for (const reject of s.unsettled.values()) {
      if (reject instanceof Delivery || typeof reject === "boolean") continue;
      reject.handle = f.handle;
      conn.send(reject);
    }
    s.ask(f);
  }

  /** Forgets a stream, and its publisher with the last; one that holds messages goes with the last of them. */
  private forget(publisher: string, key: string): void {
    const known = this.publishers.get(publisher);
    const s = known?.streams.get(key);
    if (!known || !s) return;
    if (s.holds()) {
      const changed = s.changed;
      s.changed = () => (s.conn ? changed() : s.holds() || this.forget(publisher, key));
      return;
    }
    s.detach();
    known.streams.delete(key);
    if (!known.streams.size) this.publishers.delete(publisher);
  }

  private onPublish(s: Stream, f: Frame): void {
    const last = f.first + f.messages.length - 1;
    if (f.messages.length < 1 || f.messages.length > 4096 || f.first < 1) throw new Fault(Code.PROTOCOL, "a Publish out of range");
    const sizes = f.messages.map((m) => 1 + varint(m.length).length + m.length);
    const [got, gotBytes] = [s.got + sizes.length, sizes.reduce((sum, size) => sum + size, s.gotBytes)];
    if (got > s.granted || gotBytes > s.grantedBytes) throw new Fault(Code.PROTOCOL, "a Publish beyond the credit");
    if (f.first > s.next && !(f.flags & GAP)) throw new Fault(Code.PROTOCOL, `sequences from ${s.next} are missing`);
    s.next = Math.max(s.next, f.first);
    for (let i = 0; i < s.beyond.length; i += 2) {
      if (Math.max(s.beyond[i]!, s.next) <= last && f.first <= s.beyond[i + 1]!) throw new Fault(Code.PROTOCOL, "a sequence that is settled");
    }
    [s.got, s.gotBytes] = [got, gotBytes]; // not before: what a fault brings takes no room
    for (let sequence = f.first; sequence <= last; sequence++) {
      const size = sizes[sequence - f.first]!;
      if (sequence < s.next) { // it is here
        s.topic.room++;
        s.topic.roomBytes += size;
        continue;
      }
      s.next = sequence + 1;
      this.arrived(s, sequence, f.messages[sequence - f.first]!, size, (f.flags & AGAIN) !== 0);
    }
    if (s.want && !s.topic.wanting.size && s.granted - s.got < (s.topic.window * s.share) / 2) s.topic.wanting.add(s); // one that goes on need not ask each time
    s.topic.grant();
    this.mark(s);
  }

  private arrived(s: Stream, sequence: number, data: Buffer, size: number, again: boolean): void {
    if (data.length > this.maxMessage) return s.reject(sequence, Code.LIMIT, "larger than max_message", size);
    try {
      const delivery = new Delivery(s, sequence, data, size);
      delivery.redelivered = again;
      s.unsettled.set(sequence, delivery);
      s.topic.put(delivery);
    } catch (error) {
      s.reject(sequence, Code.UNDECODABLE, (error as Error).message, size);
    }
  }

  private onRevoke(conn: Connection, peer: Peer, f: Frame): void {
    if (!peer.moves || !f.handle) throw new Fault(Code.PROTOCOL, "a Revoke without the feature, or with handle 0");
    const id = f.publisher.toString("hex");
    const known = this.publishers.get(id);
    const key = `${f.stream} ${f.topic}`;
    const same = known?.secret.length === f.secret.length && timingSafeEqual(known.secret, f.secret);
    const s = same && known.principal === peer.principal && f.epoch >= known.epoch ? known.streams.get(key) : undefined;
    if (!s || (f.epoch === known?.epoch && s.tenure >= f.tenure)) return conn.send(frame("Returned", { handle: f.handle }));
    const here = s.conn === conn && s.handle === f.handle;
    if (s.conn && s.conn !== conn) this.cut(s.conn);
    else if (s.conn && !here) peer.handles.delete(s.handle);
    s.conn = conn;
    s.handle = f.handle;
    peer.handles.set(f.handle, { publisher: id, key, stream: s });
    const settled = here ? [] : s.ranges();
    const answer = s.revoke(f.at_once > 0);
    if (here) conn.send(s.ack());
    conn.send({ ...answer, settled: settled.slice(0, 4096) });
  }

  private onWant(s: Stream, f: Frame): void {
    if (f.seen_messages !== s.granted) return; // a grant crossed it
    s.takeBack();
    s.ask(f);
  }

  private onRejectSeen(s: Stream, f: Frame): void {
    const reject = s.unsettled.get(f.sequence);
    if (reject && typeof reject !== "boolean" && !(reject instanceof Delivery)) s.unsettled.delete(f.sequence);
  }

  private mark(s: Stream): void {
    if (!this.dirty.size) setImmediate(() => this.flush());
    this.dirty.add(s);
  }

  /** Tells of what was received, settled and granted. */
  private flush(): void {
    const streams = [...this.dirty];
    this.dirty.clear();
    for (const s of streams) {
      s.conn?.send(s.ack());
      if (s.conn && s.awaited && !s.holds()) s.conn.send(s.revoke(false));
    }
  }

  private tick(): void {
    const now = Date.now();
    for (const [conn, peer] of this.peers) {
      if (now - conn.heard > (peer ? 30_000 : 5000)) conn.socket.destroy();
      else if (peer && conn.partial && now - conn.said > 3000) conn.send(frame("Pong"));
    }
  }
}
