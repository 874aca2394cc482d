// The acked protocol of BuffStreams for Watermill: a Publisher that dials, a Listener that is dialed, no broker.

export { Delivery, Listener, type ListenerOptions } from "./listener.ts";
export { type Message, NeverSent, Publisher, type PublisherOptions, PublishTimeout, Refused, RoundRobin, Undelivered } from "./publisher.ts";
export { Code } from "./wire.ts";
