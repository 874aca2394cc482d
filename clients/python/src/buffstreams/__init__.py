"""The acked protocol of BuffStreams for Watermill: a Publisher dials, a Listener is dialed."""

from .listener import Delivery, Listener
from .publisher import Message, Publisher, Refused, Undelivered

__all__ = ["Delivery", "Listener", "Message", "Publisher", "Refused", "Undelivered"]
