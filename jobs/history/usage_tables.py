"""The tables of use: what jobs did with entries, and which analyses the fleet gave itself."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Numeric,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from infra.database import metadata

_NOW = text("now()")

#: Written by the very statement that ends a job, or that does something with its pictures; the keeper counts each once and deletes it.
usage_notes = Table(
    "usage_notes",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("owner", Text, nullable=False),
    #: `succeeded`, `failed`, `deleted`, `downloaded`, `repeated`.
    Column("what", Text, nullable=False),
    Column("pictures", Integer, nullable=False),
    Column("seconds", Double),
    #: `[{kind, name, weight}]`, as the function `job_uses` returns.
    Column("used", JSONB, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=_NOW),
)

#: What each owner's jobs did with an entry; kept when the jobs are deleted.
model_usage = Table(
    "model_usage",
    metadata,
    Column("model", Uuid, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("owner", Text, primary_key=True),
    Column("uses", BigInteger, nullable=False, server_default="0"),
    Column("failures", BigInteger, nullable=False, server_default="0"),
    #: What the successful ones took together.
    Column("seconds", Double, nullable=False, server_default="0"),
    Column("pictures", BigInteger, nullable=False, server_default="0"),
    Column("deleted", BigInteger, nullable=False, server_default="0"),
    Column("downloaded", BigInteger, nullable=False, server_default="0"),
    Column("repeated", BigInteger, nullable=False, server_default="0"),
    Column("last_at", DateTime(timezone=True)),
)

#: How often an entry was used at which weight, in steps of 0.05.
model_usage_weights = Table(
    "model_usage_weights",
    metadata,
    Column("model", Uuid, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("owner", Text, primary_key=True),
    Column("weight", Numeric(5, 2), primary_key=True),
    Column("uses", BigInteger, nullable=False),
)

#: The sums of `model_usage` over all owners, kept by a trigger; each entry has a row from the moment it is added.
model_use_totals = Table(
    "model_use_totals",
    metadata,
    Column("model", Uuid, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("uses", BigInteger, nullable=False, server_default="0"),
    Column("failures", BigInteger, nullable=False, server_default="0"),
    Column("seconds", Double, nullable=False, server_default="0"),
    Column("last_at", DateTime(timezone=True)),
    Index("model_use_totals_by_uses", "uses", "model"),
)

#: How often two LoRAs were used in one successful job; the smaller id first.
model_pairs = Table(
    "model_pairs",
    metadata,
    Column("one", Uuid, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("other", Uuid, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("owner", Text, primary_key=True),
    Column("uses", BigInteger, nullable=False),
    CheckConstraint("one < other", name="in_order"),
    Index("model_pairs_other", "other"),
)

#: The last analysis that was asked for an entry: what of it was looked at, and by which job.
analyses = Table(
    "analyses",
    metadata,
    Column("model", Uuid, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    #: `weights` or `text`.
    Column("source", Text, primary_key=True),
    #: The file's fingerprint, or the digest of the text.
    Column("content", Text, nullable=False),
    #: Of texts the fingerprint of the checkpoint that reads them.
    Column("encoder", Text, nullable=False, server_default=""),
    #: The entry's `changed_at` when it was looked at: a later one means another look.
    Column("seen_change", DateTime(timezone=True), nullable=False),
    #: Not a reference: jobs are deleted, and what they found stays.
    Column("job", Uuid),
    Column("asked_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    CheckConstraint("source in ('weights', 'text')", name="source_known"),
    Index("analyses_content", "source", "content"),
)
