"""The table of recipes."""

from sqlalchemy import ARRAY, CheckConstraint, Column, DateTime, Index, Table, Text, Uuid, func, text
from sqlalchemy.dialects.postgresql import JSONB

from infra.database import metadata

#: Named stacks; what they name may be away, so nothing here refers to `models`.
recipes = Table(
    "recipes",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("visibility", Text, nullable=False, server_default="private"),
    Column("description", Text, nullable=False, server_default=""),
    Column("tags", ARRAY(Text), nullable=False, server_default="{}"),
    Column("prompt", Text, nullable=False, server_default=""),
    Column("negative_prompt", Text, nullable=False, server_default=""),
    #: None draws with whatever fits.
    Column("model", Text),
    #: `[{name, weight, text_encoder_weight, sha256}]` in their order; the hash finds them where they have another name.
    Column("loras", JSONB, nullable=False, server_default="[]"),
    #: Fields of a request beside those above.
    Column("settings", JSONB, nullable=False, server_default="{}"),
    #: Where it came from: `job:<id>/<n>`, `picture`; empty for what was made by hand.
    Column("source", Text, nullable=False, server_default=""),
    #: Digest of what it draws: two recipes of one owner never do the same.
    Column("content", Text, nullable=False),
    #: `{sha256, mime, width, height, bytes}` of the picture that shows it.
    Column("preview", JSONB(none_as_null=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("visibility in ('public', 'private')", name="visibility_known"),
    Index("recipes_name", "owner", text("lower(name)"), unique=True),
    Index("recipes_content", "owner", "content", unique=True),
    Index("recipes_preview", text("(preview ->> 'sha256')"), postgresql_where=text("preview is not null")),
)
