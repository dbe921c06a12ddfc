"""Consumers of frames that benches publish to NATS JetStream (extra ``nats``)."""

from canbroker.integrations.nats.arrow import to_arrow
from canbroker.integrations.nats.batch import Batch
from canbroker.integrations.nats.batches import Batches, batches
from canbroker.integrations.nats.position import Position
from canbroker.jetstream.heads import Gap

__all__ = ["Batch", "Batches", "Gap", "Position", "batches", "to_arrow"]
