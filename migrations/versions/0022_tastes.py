"""Recommendations: what entries have in common, what jobs did with them, and what people say of it.

The trigger on jobs is made under a short lock that waits for running statements; nothing is rewritten. The release before knows none of
these tables; what its workers end is noted by the trigger.

Revision ID: 0022
Revises: 0011b
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

revision = "0022"
down_revision = "0011b"
branch_labels = None
depends_on = None

_NOW = sa.text("now()")
_TABLES = (
    "analyses", "model_pairs", "model_usage_weights", "model_usage", "usage_notes", "taste_preferences", "taste_feedback",
    "likeness_texts", "likeness_comparisons", "likeness_signatures",
)  # fmt: skip

# The models that a job used, with the strengths of those that have one.
_JOB_USES = """
    create function job_uses(task text, request jsonb) returns jsonb immutable parallel safe language sql as $uses$
        select coalesce(jsonb_agg(jsonb_build_object('kind', kind, 'name', name, 'weight', weight)), '[]')
        from (
            select 'checkpoint' as kind, request ->> 'model' as name, null::float8 as weight
            where task in ('txt2img', 'img2img', 'inpaint') or request -> 'refine' <> 'null'
            union all
            select 'lora', value ->> 'name', (value ->> 'weight')::float8
            from jsonb_array_elements(coalesce(request -> 'loras', '[]'))
            union all
            select 'embedding', value, null from jsonb_array_elements_text(coalesce(request -> 'embeddings', '[]'))
            union all
            select 'controlnet', value ->> 'model', (value ->> 'scale')::float8
            from jsonb_array_elements(coalesce(request -> 'controls', '[]'))
            union all select 'vae', request ->> 'vae', null
            union all select 'upscaler', request ->> 'upscaler', null
            union all select 'upscaler', request -> 'hires' ->> 'upscaler', null
        ) used where name is not null
    $uses$
"""
_NOTE = """
    create function jobs_note_usage() returns trigger language plpgsql as $note$
    begin
        insert into usage_notes (owner, what, pictures, seconds, used) values (new.owner, new.state,
            case when new.state = 'succeeded' then coalesce((new.request ->> 'num_images')::int, 1) else 0 end, new.seconds,
            job_uses(new.task, new.request));
        return null;
    end $note$
"""
# Whatever ends a job, it is noted with it: in the same transaction, once.
_TRIGGER = """
    create trigger jobs_note_usage after update of state on jobs for each row
    when (new.state in ('succeeded', 'failed') and old.state is distinct from new.state and new.task <> 'analyse')
    execute function jobs_note_usage()
"""


def upgrade() -> None:
    vector = _vector_type()
    _likeness(vector)
    _tastes()
    _usage()
    _analyses()
    op.execute(_JOB_USES)
    op.execute(_NOTE)
    op.execute(_TRIGGER)


def _vector_type() -> str:
    """Return `vector` where the server has pgvector and lets us use it."""
    connection = op.get_bind()
    if not connection.scalar(sa.text("select exists (select from pg_available_extensions where name = 'vector')")):
        return "real[]"
    try:
        with connection.begin_nested():
            connection.execute(sa.text("create extension if not exists vector"))
    except DBAPIError:
        return "real[]"
    return "vector"


def _likeness(vector: str) -> None:
    op.execute(f"""
        create table likeness_signatures (
            fingerprint text not null, norm float8 not null, layers integer not null, sketch {vector} not null,
            made_at timestamptz not null default now(), constraint pk_likeness_signatures primary key (fingerprint))
    """)
    op.create_table(
        "likeness_comparisons",
        sa.Column("one", sa.Text(), nullable=False),
        sa.Column("other", sa.Text(), nullable=False),
        sa.Column("cosine", sa.Double(), nullable=False),
        sa.Column("layers", sa.Integer(), nullable=False),
        sa.CheckConstraint("one < other", name=op.f("ck_likeness_comparisons_in_order")),
        sa.PrimaryKeyConstraint("one", "other", name=op.f("pk_likeness_comparisons")),
    )
    op.create_index("likeness_comparisons_other", "likeness_comparisons", ["other"])
    op.execute(f"""
        create table likeness_texts (
            encoder text not null, digest text not null, vector {vector} not null, used_at timestamptz not null default now(),
            constraint pk_likeness_texts primary key (encoder, digest))
    """)
    op.create_index("likeness_texts_used", "likeness_texts", ["used_at"])


def _model(table: str, column: str = "model") -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        [column], ["models.id"], name=op.f(f"fk_{table}_{column}_models"), ondelete="CASCADE"
    )


def _tastes() -> None:
    op.create_table(
        "taste_feedback",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("model", sa.Uuid(), nullable=False),
        sa.Column("about", sa.Text(), nullable=False),
        sa.Column("helpful", sa.Integer(), nullable=False),
        sa.Column("said_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.CheckConstraint("helpful in (-1, 1)", name=op.f("ck_taste_feedback_helpful_known")),
        _model("taste_feedback"),
        sa.PrimaryKeyConstraint("owner", "model", "about", name=op.f("pk_taste_feedback")),
    )
    op.create_index("taste_feedback_model", "taste_feedback", ["model"])
    op.create_table(
        "taste_preferences",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("sources", postgresql.JSONB(), nullable=False),
        sa.Column("hidden", postgresql.ARRAY(sa.Uuid()), server_default="{}", nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_taste_preferences")),
    )


def _usage() -> None:
    op.create_table(
        "usage_notes",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("pictures", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Double()),
        sa.Column("used", postgresql.JSONB(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_notes")),
    )
    counts = ("uses", "failures", "pictures", "deleted", "downloaded", "repeated")
    op.create_table(
        "model_usage",
        sa.Column("model", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), server_default="0", nullable=False) for name in counts),
        sa.Column("seconds", sa.Double(), server_default="0", nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True)),
        _model("model_usage"),
        sa.PrimaryKeyConstraint("model", "owner", name=op.f("pk_model_usage")),
    )
    op.create_table(
        "model_usage_weights",
        sa.Column("model", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("weight", sa.Numeric(5, 2), nullable=False),
        sa.Column("uses", sa.BigInteger(), nullable=False),
        _model("model_usage_weights"),
        sa.PrimaryKeyConstraint("model", "owner", "weight", name=op.f("pk_model_usage_weights")),
    )
    op.create_table(
        "model_pairs",
        sa.Column("one", sa.Uuid(), nullable=False),
        sa.Column("other", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("uses", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("one < other", name=op.f("ck_model_pairs_in_order")),
        _model("model_pairs", "one"),
        _model("model_pairs", "other"),
        sa.PrimaryKeyConstraint("one", "other", "owner", name=op.f("pk_model_pairs")),
    )
    op.create_index("model_pairs_other", "model_pairs", ["other"])


def _analyses() -> None:
    op.create_table(
        "analyses",
        sa.Column("model", sa.Uuid(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("encoder", sa.Text(), server_default="", nullable=False),
        sa.Column("seen_change", sa.DateTime(timezone=True), nullable=False),
        sa.Column("job", sa.Uuid()),
        sa.Column("asked_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.CheckConstraint("source in ('weights', 'text')", name=op.f("ck_analyses_source_known")),
        _model("analyses"),
        sa.PrimaryKeyConstraint("model", "source", name=op.f("pk_analyses")),
    )
    op.create_index("analyses_content", "analyses", ["source", "content"])


def downgrade() -> None:
    op.execute("drop trigger jobs_note_usage on jobs")
    op.execute("drop function jobs_note_usage()")
    op.execute("drop function job_uses(text, jsonb)")
    for table in _TABLES:
        op.drop_table(table)
    # The extension stays: others may use it by now.
