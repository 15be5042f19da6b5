"""The tables of likeness: sketches of updates, exact comparisons, vectors of texts, and what people say of recommendations."""

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType

from infra.database import metadata

_NOW = text("now()")


class FloatVector(UserDefinedType[list[float]]):
    """Numbers at single precision: pgvector's `vector` where the server had it when the table was made, `real[]` elsewhere."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """Return the form that every server has."""
        return "real[]"

    def compare_against_backend(self, *_: object) -> bool:
        """Tell Alembic that either form is right."""
        return True


# SQLAlchemy knows no extension's types, and has this table to tell it of them.
ischema_names["vector"] = FloatVector

#: What each LoRA does to the weights, in short; by content, so that copies are looked at once.
likeness_signatures = Table(
    "likeness_signatures",
    metadata,
    Column("fingerprint", Text, primary_key=True),
    Column("norm", Double, nullable=False),
    Column("layers", Integer, nullable=False),
    Column("sketch", FloatVector, nullable=False),
    Column("made_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
)

#: Exact cosines of two LoRAs' updates; the smaller fingerprint first.
likeness_comparisons = Table(
    "likeness_comparisons",
    metadata,
    Column("one", Text, primary_key=True),
    Column("other", Text, primary_key=True),
    Column("cosine", Double, nullable=False),
    Column("layers", Integer, nullable=False),
    CheckConstraint("one < other", name="in_order"),
    Index("likeness_comparisons_other", "other"),
)

#: Where texts of entries, and prompts, lie for a checkpoint's text encoder.
likeness_texts = Table(
    "likeness_texts",
    metadata,
    #: The checkpoint's fingerprint.
    Column("encoder", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("vector", FloatVector, nullable=False),
    Column("used_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Index("likeness_texts_used", "used_at"),
)

#: What an owner said of an entry that was recommended for something.
taste_feedback = Table(
    "taste_feedback",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("model", Uuid, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    #: The prompt or the entry it was recommended for; empty when it was for nothing particular.
    Column("about", Text, primary_key=True),
    Column("helpful", Integer, nullable=False),
    Column("said_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    CheckConstraint("helpful in (-1, 1)", name="helpful_known"),
    Index("taste_feedback_model", "model"),
)

#: How an owner wants to be advised.
taste_preferences = Table(
    "taste_preferences",
    metadata,
    Column("owner", Text, primary_key=True),
    #: Source -> its share, 0 for one that is switched off.
    Column("sources", JSONB, nullable=False),
    #: Entries that are not to be recommended.
    Column("hidden", ARRAY(Uuid), nullable=False, server_default="{}"),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
)
