"""The acked protocol of BuffStreams for Watermill: a Publisher that dials, a Listener that is dialed, no broker."""

from .listener import Delivery, Listener
from .publisher import Message, NeverSent, Publisher, PublishTimeout, Refused, RoundRobin, Undelivered

__all__ = ["Delivery", "Listener", "Message", "NeverSent", "PublishTimeout", "Publisher", "Refused", "RoundRobin", "Undelivered"]
