"""The tables of API keys, which are stored nowhere themselves, of what each key chose, and of the secrets that the API signs with."""

from sqlalchemy import ARRAY, CheckConstraint, Column, DateTime, Double, ForeignKey, LargeBinary, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from infra.database import metadata

api_keys = Table(
    "api_keys",
    metadata,
    #: The public part of the key, by which it is found.
    Column("id", Text, primary_key=True),
    #: SHA-256 of the whole key, hexadecimal: its 256 random bits make a slow hash needless.
    Column("hash", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("last_used_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    #: How long its jobs are kept once they have ended; None as long as the fleet's.
    Column("retention_days", Double),
    CheckConstraint("retention_days > 0", name="retention_some"),
    CheckConstraint("scopes <@ array['user', 'admin'] and cardinality(scopes) > 0", name="scopes_known"),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
)

#: What a key set through the A1111 door: its own checkpoint, VAE, picture format.
door_options = Table(
    "door_options",
    metadata,
    Column("key_id", Text, ForeignKey("api_keys.id", ondelete="CASCADE"), primary_key=True),
    Column("options", JSONB, nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
)
