"""The tables of the library: entries, their aliases, previews, people's marks, and pins."""

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
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR

from infra.database import metadata
from models_registry.entries import Kind, Layout


def _one_of(column: str, values: type[Kind | Layout]) -> str:
    return f"{column} IN ({', '.join(repr(value.value) for value in values)})"


_MODEL_NAME = "regexp_replace(name, '@[^@]*$', '')"
_VERSION = "coalesce(substring(name from '@([^@]*)$'), '')"
_SEARCH = """
setweight(to_tsvector('simple', models_words(array[name, base_model])), 'A')
|| setweight(to_tsvector('simple', models_words(tags || trigger_words)), 'B')
|| setweight(to_tsvector('simple', models_words(array[description])), 'C')
"""

models = Table(
    "models",
    metadata,
    Column("kind", Text, primary_key=True),
    #: What a job calls it: the name, or `name@version`.
    Column("name", Text, primary_key=True),
    Column("id", Uuid, nullable=False, server_default=func.gen_random_uuid()),
    #: What its versions have in common, and what tells them apart; empty for what has no version.
    Column("model_name", Text, Computed(_MODEL_NAME, persisted=True), nullable=False),
    Column("version", Text, Computed(_VERSION, persisted=True), nullable=False),
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
    Column("text_layers", Integer),
    #: Of the denoiser's first layer.
    Column("width", Integer),
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
    #: Who added it; None for what was found in the fleet's folders. A private entry is its owner's alone.
    Column("owner", Text),
    Column("visibility", Text, nullable=False, server_default="public"),
    #: Ids of the API keys that may use it; None for all.
    Column("allowed_keys", ARRAY(Text)),
    # What people, or the places it came from, say of it.
    Column("description", Text, nullable=False, server_default=""),
    Column("licence", Text, nullable=False, server_default=""),
    Column("source", Text, nullable=False, server_default=""),
    Column("base_model", Text, nullable=False, server_default=""),
    Column("tags", ARRAY(Text), nullable=False, server_default="{}"),
    Column("trigger_words", ARRAY(Text), nullable=False, server_default="{}"),
    Column("weight", Double),
    Column("weight_min", Double),
    Column("weight_max", Double),
    #: Of the one file, or of the list of files and their SHA-256; None until it was read whole.
    Column("sha256", Text),
    #: Others that sites look models up by: `autov2`, `autov3`, `blake3`, `crc32`.
    Column("hashes", JSONB, nullable=False, server_default="{}"),
    #: `[{path, bytes, mtime_ns, sha256}]`, paths below the entry's folder, or below the one that a single file lies in.
    Column("files", JSONB, nullable=False, server_default="[]"),
    #: Set once all files lie in storage under their SHA-256, from where nodes fetch them.
    Column("stored_at", DateTime(timezone=True)),
    #: When a node asked for files that are not in storage yet; the keeper stores them where it has them.
    Column("wanted_at", DateTime(timezone=True)),
    #: What is wrong with its bytes; None where nothing is.
    Column("damage", Text),
    #: What the header says: training settings, tags, the trainer's own title.
    Column("metadata", JSONB, nullable=False, server_default="{}"),
    Column("search", TSVECTOR, Computed(_SEARCH, persisted=True), nullable=False),
    #: Of `library_clock` when the row was last written; a trigger sets it.
    Column("revision", BigInteger, nullable=False, server_default="0"),
    UniqueConstraint("id"),
    CheckConstraint("visibility in ('public', 'private')", name="visibility_known"),
    CheckConstraint(_one_of("kind", Kind), name="kind_known"),
    CheckConstraint(_one_of("layout", Layout), name="layout_known"),
    # People write names in any case, so two models of a kind must not differ by case alone.
    Index("ix_models_kind_name_any_case", "kind", text("lower(name)"), unique=True),
    Index("models_search", "search", postgresql_using="gin"),
    Index("models_tags", "tags", postgresql_using="gin"),
    Index("models_versions", "kind", text("lower(model_name)")),
    Index("models_path", "path"),
    Index("models_fingerprint", "fingerprint"),
    # Who else has a file's bytes in storage.
    Index(
        "models_files",
        "files",
        postgresql_using="gin",
        postgresql_ops={"files": "jsonb_path_ops"},
        postgresql_where=text("stored_at is not null"),
    ),
    Index("models_wanted", "wanted_at", postgresql_where=text("wanted_at is not null")),
    Index("models_sha256", "sha256", postgresql_where=text("sha256 is not null")),
    Index("models_revision", "revision"),
    # What lists are sorted by: a page costs a page.
    Index("models_by_name", text("lower(name)"), "id"),
    Index("models_by_age", "found_at", "id"),
    Index("models_by_change", "changed_at", "id"),
    Index("models_by_size", "weight_bytes", "id"),
)

#: Other names of an entry.
model_aliases = Table(
    "model_aliases",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("alias", Text, primary_key=True),
    Column("model", Uuid, ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
    Index("model_aliases_any_case", "kind", text("lower(alias)"), unique=True),
    Index("model_aliases_model", "model"),
)

#: Pictures that show what an entry does; their bytes lie in storage under `key`.
model_previews = Table(
    "model_previews",
    metadata,
    Column("model", Uuid, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("index", SmallInteger, primary_key=True),
    Column("sha256", Text, nullable=False),
    Column("mime", Text, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("key", Text, nullable=False),
)

#: What an owner thinks of an entry, and whether it is part of the stack that the owner composes with.
model_marks = Table(
    "model_marks",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("model", Uuid, ForeignKey("models.id", ondelete="CASCADE"), primary_key=True),
    Column("favourite", Boolean, nullable=False, server_default=text("false")),
    Column("rating", SmallInteger),
    Column("active", Boolean, nullable=False, server_default=text("false")),
    #: Order in the stack; the smallest comes first.
    Column("position", Integer),
    #: Strength in the stack; None for the entry's own.
    Column("weight", Double),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("rating between 1 and 5", name="rating_in_range"),
    Index("model_marks_model", "model"),
)

#: Who needs an entry's files until when: a pinned entry cannot be deleted, which the missing cascade holds.
model_pins = Table(
    "model_pins",
    metadata,
    Column("model", Uuid, ForeignKey("models.id"), primary_key=True),
    Column("holder", Text, primary_key=True),
    Column("until", DateTime(timezone=True), nullable=False),
)

#: What a scan found at each path, so that the next one opens only what has changed.
model_places = Table(
    "model_places",
    metadata,
    Column("path", Text, primary_key=True),
    #: Of the names, sizes and times of its files.
    Column("stamp", Text, nullable=False),
    #: None for what was refused, for which there is a code, and for what people took out of the library.
    Column("model", Uuid, ForeignKey("models.id", ondelete="SET NULL")),
    Column("refused_path", Text),
    Column("code", Text),
    Column("reason", Text),
    Index("model_places_model", "model"),
)

#: Scans that were asked for: the keeper does them, one after the other.
model_scans = Table(
    "model_scans",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=func.gen_random_uuid()),
    Column("requested_by", Text, nullable=False),
    #: Whether everything is opened, also what has not changed.
    Column("again", Boolean, nullable=False, server_default=text("false")),
    Column("state", Text, nullable=False, server_default="queued"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("started_at", DateTime(timezone=True)),
    Column("finished_at", DateTime(timezone=True)),
    Column("seen", Integer, nullable=False, server_default="0"),
    Column("opened", Integer, nullable=False, server_default="0"),
    #: What it found, once it is done; why not, when it failed.
    Column("report", JSONB),
    CheckConstraint("state in ('queued', 'running', 'done', 'failed')", name="state_known"),
    Index("model_scans_waiting", "created_at", postgresql_where=text("state in ('queued', 'running')")),
)

#: Counts the statements that wrote to the library, in the order in which they were committed: what is remembered of the library is
#: brought up to date by what came after a revision.
library_clock = Table(
    "library_clock",
    metadata,
    #: There is one row.
    Column("is_one", Boolean, primary_key=True, server_default=text("true")),
    Column("revision", BigInteger, nullable=False, server_default="0"),
    #: Deletions up to this revision are no longer told one by one.
    Column("forgotten", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("is_one", name="one_row"),
)

#: Entries that were deleted.
model_tombstones = Table(
    "model_tombstones",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("deleted_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("model_tombstones_revision", "revision"),
)
