"""The table of known models."""

from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, Double, Index, Integer, Table, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB

from infra.database import metadata
from models_registry.entries import Kind, Layout


def _one_of(column: str, values: type[Kind | Layout]) -> str:
    return f"{column} IN ({', '.join(repr(value.value) for value in values)})"


models = Table(
    "models",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("layout", Text, nullable=False),
    Column("family", Text, nullable=False),
    Column("variant", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    # A list of `entries.Component`.
    Column("components", JSONB, nullable=False),
    Column("weight_bytes", BigInteger, nullable=False),
    Column("native_size", Integer, nullable=False),
    Column("latent_factor", Integer, nullable=False),
    Column("latent_channels", Integer, nullable=False),
    Column("text_width", Integer),
    Column("scale", Integer),
    Column("rank", Integer),
    Column("vectors", Integer),
    Column("default_steps", Integer),
    Column("default_guidance_scale", Double),
    Column("default_scheduler", Text),
    Column("found_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    # Set while the files are away: the row stays, because jobs of the past name it, but it is not offered.
    Column("missing_since", DateTime(timezone=True)),
    CheckConstraint(_one_of("kind", Kind), name="kind_known"),
    CheckConstraint(_one_of("layout", Layout), name="layout_known"),
    # People write names in any case, so two models of a kind must not differ by case alone.
    Index("ix_models_kind_name_any_case", "kind", text("lower(name)"), unique=True),
)
