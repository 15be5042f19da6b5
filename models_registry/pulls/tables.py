"""The tables of what is fetched: downloads, uploads in pieces, what CivitAI knows of hashes, and who asked it."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from infra.database import metadata
from models_registry.pulls.states import State


def _known_states() -> str:
    return f"state in ({', '.join(repr(state.value) for state in State)})"


#: Models that are fetched, or were.
downloads = Table(
    "downloads",
    metadata,
    #: Of version 7: downloads are in the order of their ids.
    Column("id", Uuid, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("source", Text, nullable=False),
    #: An `orders.Order`: what the entry is to be called and what people say of it.
    Column("request", JSONB, nullable=False),
    Column("state", Text, nullable=False, server_default="queued"),
    #: A `plans.Plan`, once the source was asked.
    Column("plan", JSONB),
    Column("bytes_done", BigInteger, nullable=False, server_default=text("0")),
    Column("bytes_total", BigInteger),
    #: How often it was put off since its last new byte.
    Column("delays", Integer, nullable=False, server_default=text("0")),
    #: Grows whenever somebody takes it over; whoever writes with an older one writes nothing.
    Column("epoch", Integer, nullable=False, server_default=text("0")),
    Column("lease_until", DateTime(timezone=True)),
    Column("available_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("error_code", Text),
    Column("error_message", Text),
    #: The entry that it became.
    Column("model", Uuid, ForeignKey("models.id", ondelete="SET NULL")),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    CheckConstraint(_known_states(), name="state_known"),
    Index("downloads_owner", "owner", "id"),
    Index("downloads_open", "available_at", postgresql_where=text("state in ('queued', 'running')")),
    Index("downloads_model", "model", postgresql_where=text("model is not null")),
)

#: Files that arrive in pieces, each a part of one request's body.
model_uploads = Table(
    "model_uploads",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner", Text, nullable=False),
    #: What the sender says of it, by tus' names.
    Column("metadata", JSONB, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    #: Bytes that are in storage.
    Column("received", BigInteger, nullable=False, server_default=text("0")),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    #: The entry that it became.
    Column("model", Uuid, ForeignKey("models.id", ondelete="SET NULL")),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("received between 0 and bytes", name="received_in_range"),
    Index("model_uploads_owner", "owner"),
    Index("model_uploads_expiry", "expires_at"),
    Index("model_uploads_model", "model", postgresql_where=text("model is not null")),
)

#: A trigger leaves the pieces' bytes to `garbage` when they are deleted.
model_upload_pieces = Table(
    "model_upload_pieces",
    metadata,
    Column("upload", Uuid, ForeignKey("model_uploads.id", ondelete="CASCADE"), primary_key=True),
    Column("start", BigInteger, primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("key", Text, nullable=False),
)

#: What CivitAI said of a file, also that it knows nothing of it.
civitai_answers = Table(
    "civitai_answers",
    metadata,
    Column("sha256", Text, primary_key=True),
    #: A `plans.Facts`; None where the file is unknown there.
    Column("facts", JSONB),
    Column("asked_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("expires_at", DateTime(timezone=True), nullable=False),
)

#: Who wants entries that are here looked up, and how far that is.
library_lookups = Table(
    "library_lookups",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="queued"),
    #: Entries still to be looked at, and how many there were.
    Column("entries", JSONB, nullable=False),
    Column("total", Integer, nullable=False),
    Column("done", Integer, nullable=False, server_default=text("0")),
    #: Those that CivitAI knows, and those of which something was written down.
    Column("found", Integer, nullable=False, server_default=text("0")),
    Column("changed", Integer, nullable=False, server_default=text("0")),
    Column("delays", SmallInteger, nullable=False, server_default=text("0")),
    Column("epoch", Integer, nullable=False, server_default=text("0")),
    Column("lease_until", DateTime(timezone=True)),
    Column("available_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("finished_at", DateTime(timezone=True)),
    CheckConstraint(_known_states(), name="state_known"),
    Index("library_lookups_owner", "owner", "id"),
    Index("library_lookups_open", "available_at", postgresql_where=text("state in ('queued', 'running')")),
)
