"""The tables of jobs, pictures, uploads, fair shares and workers.

Statements on the hot path are plain SQL beside the functions that run them; this file is what migrations are compared with.
"""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    Numeric,
    SmallInteger,
    Table,
    Text,
    Uuid,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from infra.database import metadata
from jobs.states import State

_NOW = text("now()")
_STATES = ", ".join(f"'{state}'" for state in State)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("task", Text, nullable=False),
    #: Where it waits now; the keeper changes it when workers come or go.
    Column("hardware", Text, nullable=False),
    Column("queue", Text, Computed("task || '.' || hardware", persisted=True), nullable=False),
    #: What the request asked for: a class, a tag, or nothing.
    Column("needs_hardware", Text),
    #: Bytes at half precision: weights plus activations.
    Column("needs_memory", BigInteger, nullable=False),
    Column("model_key", Text, nullable=False),
    Column("lora_key", Text, nullable=False, server_default=""),
    Column("batch_key", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("fair_order", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("state", Text, nullable=False, server_default=State.QUEUED),
    Column("epoch", Integer, nullable=False, server_default="0"),
    #: `seq` of the event that announced the present state.
    Column("state_seq", Integer, nullable=False, server_default="1"),
    Column("attempts", SmallInteger, nullable=False, server_default="0"),
    Column("losses", SmallInteger, nullable=False, server_default="0"),
    Column("lost_on", ARRAY(Text), nullable=False, server_default="{}"),
    Column("requeue_reason", Text),
    Column("worker", Text),
    #: One life of a worker process: a restarted worker of the same name has another.
    Column("worker_run", Uuid),
    Column("lease_until", DateTime(timezone=True)),
    Column("step", Integer, nullable=False, server_default="0"),
    Column("steps", Integer, nullable=False),
    Column("available_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("deadline_at", DateTime(timezone=True)),
    Column("cancel_requested_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    Column("seconds", Double),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("error_retryable", Boolean),
    Column("idempotency_key", Text),
    Column("request_hash", Text),
    Column("request", JSONB, nullable=False),
    #: How long it is kept once it has ended; None as long as the fleet's.
    Column("retention_days", Double),
    #: SHA-256 of every upload the request names: what retention looks for.
    Column("uploads", ARRAY(Text), nullable=False, server_default="{}"),
    Column("batch", Uuid, ForeignKey("batches.id", ondelete="SET NULL")),
    CheckConstraint(f"state in ({_STATES})", name="state_known"),
    CheckConstraint(
        "(state = 'running') = (lease_until is not null) and (state <> 'running' or worker is not null)",
        name="running_has_lease",
    ),
    CheckConstraint(
        "(state in ('succeeded', 'failed', 'cancelled')) = (finished_at is not null)", name="final_has_end"
    ),
    CheckConstraint("(state = 'failed') = (error_code is not null)", name="failed_has_code"),
    Index("jobs_ready", "queue", "priority", "fair_order", "id", postgresql_where=text("state = 'queued'")),
    Index(
        "jobs_batch", "queue", "batch_key", "priority", "fair_order", "id", postgresql_where=text("state = 'queued'")
    ),
    # On the worker, not on the lease: renewing a lease stays a heap-only update.
    Index("jobs_running", "worker", postgresql_where=text("state = 'running'")),
    Index("jobs_deadline", "deadline_at", postgresql_where=text("state = 'queued' and deadline_at is not null")),
    Index("jobs_owner", "owner", "id"),
    Index("jobs_active", "owner", "state", "id", postgresql_where=text("state in ('queued', 'running')")),
    Index("jobs_members", "batch", "id", postgresql_where=text("batch is not null")),
    Index(
        "jobs_prompt",
        text("to_tsvector('simple', request ->> 'prompt')"),
        postgresql_using="gin",
        postgresql_where=text("state = 'succeeded'"),
    ),
    Index(
        "jobs_labels",
        literal_column("(request -> 'labels')").label("labels"),
        postgresql_using="gin",
        postgresql_ops={"labels": "jsonb_path_ops"},
        postgresql_where=text("request -> 'labels' <> '{}'"),
    ),
    Index("jobs_finished", "finished_at", postgresql_where=text("finished_at is not null")),
    # Each retention's oldest come first, however long others are kept.
    Index("jobs_retention", "retention_days", "finished_at", postgresql_where=text("finished_at is not null")),
    Index("jobs_owner_finished", "owner", "finished_at", postgresql_where=text("finished_at is not null")),
    # Jobs without pictures are not in it, and cost it nothing.
    Index("jobs_uploads", "uploads", postgresql_using="gin", postgresql_where=text("uploads <> '{}'")),
    Index(
        "jobs_idempotency",
        "owner",
        "idempotency_key",
        unique=True,
        postgresql_where=text("idempotency_key is not null"),
    ),
)

#: Jobs that were submitted together.
batches = Table(
    "batches",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner", Text, nullable=False),
    #: How many jobs it began with; those that were deleted since count still.
    Column("size", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("idempotency_key", Text),
    Column("request_hash", Text),
    Index("batches_owner", "owner", "id"),
    Index(
        "batches_idempotency",
        "owner",
        "idempotency_key",
        unique=True,
        postgresql_where=text("idempotency_key is not null"),
    ),
)

images = Table(
    "images",
    metadata,
    Column("job", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("index", SmallInteger, primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("seed", Numeric(20, 0), nullable=False),  # up to 2**64 - 1: more than a bigint holds
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("mime", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("key", Text, nullable=False, unique=True),
    Index("images_seed", "seed"),
)

#: Smaller copies, made when they are first asked for; a trigger leaves their files to `garbage` when they are deleted.
thumbnails = Table(
    "thumbnails",
    metadata,
    Column("job", Uuid, primary_key=True),
    Column("index", SmallInteger, primary_key=True),
    #: Longest side, pixels.
    Column("size", SmallInteger, primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("key", Text, nullable=False),
    ForeignKeyConstraint(["job", "index"], ["images.job", "images.index"], ondelete="CASCADE"),
)

#: Pictures that clients sent; the bytes lie once under their SHA-256, whoever has them.
uploads = Table(
    "uploads",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("sha256", Text, primary_key=True),
    Column("mime", Text, nullable=False),
    #: As it is shown: its EXIF orientation counts.
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    #: Luminance of its brightest pixel: an all-black mask is noticed without decoding it again.
    Column("brightest", SmallInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    #: When it was last sent or named by a request.
    Column("used_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Index("uploads_used", "used_at"),
    # Whether anyone else has the bytes.
    Index("uploads_content", "sha256"),
)

#: Jobs whose callers wait for the answer, or have hung up before it came.
watches = Table(
    "watches",
    metadata,
    Column("job", Uuid, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    #: Of who asked and what: the same request sent again finds the job.
    Column("fingerprint", Text, nullable=False),
    #: It goes on although nobody waits.
    Column("keep", Boolean, nullable=False),
    #: A caller holds a connection open for it.
    Column("waiting", Boolean, nullable=False, server_default=text("true")),
    #: When anybody was last known to watch.
    Column("seen_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Index("watches_fingerprint", "fingerprint"),
)

#: Objects in storage that no row refers to any more; the keeper removes them.
garbage = Table(
    "garbage",
    metadata,
    Column("key", Text, primary_key=True),
    Column("since", DateTime(timezone=True), nullable=False, server_default=_NOW),
)

#: Start-time fair queuing: how much each owner has been promised in a queue at a priority ...
fair_owners = Table(
    "fair_owners",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("queue", Text, primary_key=True),
    Column("priority", SmallInteger, primary_key=True),
    Column("vtime", BigInteger, nullable=False),
)

#: ... and how far that has been served, so that an idle owner cannot save up turns. Each priority has a clock of its own: an urgent
#: job that was stamped far ahead must not carry everybody's clock along.
fair_clock = Table(
    "fair_clock",
    metadata,
    Column("queue", Text, primary_key=True),
    Column("priority", SmallInteger, primary_key=True),
    Column("vtime", BigInteger, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("run", Uuid, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("device", Text, nullable=False),
    Column("device_name", Text, nullable=False),
    Column("hardware", Text, nullable=False),
    Column("serves", ARRAY(Text), nullable=False),
    Column("tags", ARRAY(Text), nullable=False),
    Column("tasks", ARRAY(Text), nullable=False),
    Column("queues", ARRAY(Text), nullable=False),
    #: Bytes it offers to a job, at half precision.
    Column("memory_bytes", BigInteger, nullable=False),
    Column("engine", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("warm", ARRAY(Text), nullable=False, server_default="{}"),
    Column("loads", Integer, nullable=False, server_default="0"),
    Column("current", ARRAY(Uuid), nullable=False, server_default="{}"),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("seen_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    #: Since when it is to take no jobs; it outlives the worker's process, as what an operator asked for.
    Column("drain_requested_at", DateTime(timezone=True)),
    #: `jobs.fleet.Ledger`: what its engine holds in memory.
    Column("ledger", JSONB),
    CheckConstraint("state in ('idle', 'busy', 'draining', 'offline')", name="state_known"),
)

#: What ended in each hour, for as long as anyone asks: jobs are deleted after the retention, this is not.
job_hours = Table(
    "job_hours",
    metadata,
    Column("hour", DateTime(timezone=True), primary_key=True),
    Column("owner", Text, primary_key=True),
    Column("task", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    #: Empty for jobs that never ran.
    Column("worker", Text, primary_key=True),
    Column("state", Text, primary_key=True),
    #: Empty for jobs that did not fail.
    Column("error_code", Text, primary_key=True),
    Column("jobs", Integer, nullable=False),
    Column("pictures", Integer, nullable=False),
    #: Spent drawing.
    Column("seconds", Double, nullable=False),
    #: Bin to how many jobs waited so long, and took so long; `jobs.history.bins` says what a bin is.
    Column("waits", JSONB, nullable=False),
    Column("durations", JSONB, nullable=False),
    Index("job_hours_owner", "owner", "hour"),
)

#: How far each summary of past hours has been written.
rollups = Table(
    "rollups",
    metadata,
    Column("name", Text, primary_key=True),
    Column("done_until", DateTime(timezone=True), nullable=False),
)
