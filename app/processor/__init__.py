"""One shard at work: partition p of all inputs, merged by event time, through the pure core, into one batch.

Synchronous and deterministic: no Kafka, no asyncio, no clock. Records and looks at the clock come in, batches go out;
whoever owns the shard commits a batch as one transaction or throws the processor away. Rows hold a user each; one more
record of the changelog holds how far time has come. Instants are microseconds UTC.

records     what crosses the border             plan         what all shards share
state       what a shard holds, and restores    meta         its own record of the changelog
input       one input partition                 inputs       the merge of all of them
events      one event to its user's row         accounts     who is gone, or somebody else now
bounds      how large a row may be              timers       what is due, in its order
outputs     what goes out, and dead letters     change_over  one catalogue after another
shard       the order of it all, and the batch
"""

from app.processor.bounds import MAX_ROW_BYTES
from app.processor.meta import active_since, reached
from app.processor.outputs import MAX_LETTER_BYTES
from app.processor.plan import Plan, partition_of
from app.processor.records import (
    META_KEY,
    TIMER,
    TRANSFERS,
    Batch,
    Fingerprint,
    InvariantBroken,
    Output,
    Record,
    RejectCeiling,
    RulesNotLoaded,
    quarantine_key,
)
from app.processor.shard import STORM, Processor

__all__ = [
    "MAX_LETTER_BYTES",
    "MAX_ROW_BYTES",
    "META_KEY",
    "STORM",
    "TIMER",
    "TRANSFERS",
    "Batch",
    "Fingerprint",
    "InvariantBroken",
    "Output",
    "Plan",
    "Processor",
    "Record",
    "RejectCeiling",
    "RulesNotLoaded",
    "active_since",
    "partition_of",
    "quarantine_key",
    "reached",
]
