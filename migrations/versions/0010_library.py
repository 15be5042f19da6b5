"""Make the table of models a library: versions, owners, what people say of an entry, search, previews, marks and pins.

The table has one row per model, thousands at most before this revision, so rewriting it for the generated columns takes moments.
The release before writes none of the new columns, and every one of them has a default.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_NOW = sa.text("now()")
_TEXTS = ("description", "licence", "source", "base_model")
_LISTS = ("tags", "trigger_words")
_WEIGHTS = ("weight", "weight_min", "weight_max")


def upgrade() -> None:
    # Words of a name are parted by whatever is no letter or digit; `array_to_string` is stable only for want of a promise about output
    # functions, which text keeps.
    op.execute("""
        create function models_words(words text[]) returns text immutable parallel safe language sql as $words$
            select regexp_replace(array_to_string(words, ' '), '[^[:alnum:]]+', ' ', 'g')
        $words$
    """)
    op.add_column("models", sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False))
    op.create_unique_constraint(op.f("uq_models_id"), "models", ["id"])
    op.execute(
        "alter table models add column model_name text generated always as (regexp_replace(name, '@[^@]*$', '')) stored not null"
    )
    op.execute(
        "alter table models add column version text generated always as (coalesce(substring(name from '@([^@]*)$'), '')) stored not null"
    )
    op.add_column("models", sa.Column("owner", sa.Text()))
    op.add_column("models", sa.Column("visibility", sa.Text(), server_default="public", nullable=False))
    op.create_check_constraint(op.f("ck_models_visibility_known"), "models", "visibility in ('public', 'private')")
    op.add_column("models", sa.Column("allowed_keys", postgresql.ARRAY(sa.Text())))
    for name in _TEXTS:
        op.add_column("models", sa.Column(name, sa.Text(), server_default="", nullable=False))
    for name in _LISTS:
        op.add_column("models", sa.Column(name, postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False))
    for name in _WEIGHTS:
        op.add_column("models", sa.Column(name, sa.Double()))
    op.add_column("models", sa.Column("sha256", sa.Text()))
    op.add_column("models", sa.Column("hashes", postgresql.JSONB(), server_default="{}", nullable=False))
    op.add_column("models", sa.Column("files", postgresql.JSONB(), server_default="[]", nullable=False))
    op.add_column("models", sa.Column("stored_at", sa.DateTime(timezone=True)))
    op.add_column("models", sa.Column("metadata", postgresql.JSONB(), server_default="{}", nullable=False))
    op.execute("""
        alter table models add column search tsvector generated always as (
            setweight(to_tsvector('simple', models_words(array[name, base_model])), 'A')
            || setweight(to_tsvector('simple', models_words(tags || trigger_words)), 'B')
            || setweight(to_tsvector('simple', models_words(array[description])), 'C')
        ) stored not null
    """)
    op.create_index("models_search", "models", ["search"], postgresql_using="gin")
    op.create_index("models_tags", "models", ["tags"], postgresql_using="gin")
    op.create_index("models_versions", "models", ["kind", sa.text("lower(model_name)")])
    op.create_index("models_sha256", "models", ["sha256"], postgresql_where=sa.text("sha256 is not null"))
    _beside()


def _beside() -> None:
    op.create_table(
        "model_aliases",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("model", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model"], ["models.id"], name=op.f("fk_model_aliases_model_models"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("kind", "alias", name=op.f("pk_model_aliases")),
    )
    op.create_index("model_aliases_any_case", "model_aliases", ["kind", sa.text("lower(alias)")], unique=True)
    op.create_index("model_aliases_model", "model_aliases", ["model"])
    op.create_table(
        "model_previews",
        sa.Column("model", sa.Uuid(), nullable=False),
        sa.Column("index", sa.SmallInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("mime", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model"], ["models.id"], name=op.f("fk_model_previews_model_models"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("model", "index", name=op.f("pk_model_previews")),
    )
    op.create_table(
        "model_marks",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("model", sa.Uuid(), nullable=False),
        sa.Column("favourite", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("rating", sa.SmallInteger()),
        sa.Column("active", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("position", sa.Integer()),
        sa.Column("weight", sa.Double()),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.CheckConstraint("rating between 1 and 5", name=op.f("ck_model_marks_rating_in_range")),
        sa.ForeignKeyConstraint(["model"], ["models.id"], name=op.f("fk_model_marks_model_models"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("owner", "model", name=op.f("pk_model_marks")),
    )
    op.create_index("model_marks_model", "model_marks", ["model"])
    op.create_table(
        "model_pins",
        sa.Column("model", sa.Uuid(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["models.id"], name=op.f("fk_model_pins_model_models")),
        sa.PrimaryKeyConstraint("model", "holder", name=op.f("pk_model_pins")),
    )


def downgrade() -> None:
    for table in ("model_pins", "model_marks", "model_previews", "model_aliases"):
        op.drop_table(table)
    for name in (
        "search", "metadata", "stored_at", "files", "hashes", "sha256", *_WEIGHTS, *_LISTS, *_TEXTS, "allowed_keys", "visibility",
        "owner", "version", "model_name", "id",
    ):  # fmt: skip
        op.drop_column("models", name)
    op.execute("drop function models_words(text[])")
