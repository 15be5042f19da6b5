"""Models that are fetched: downloads, uploads in pieces, what CivitAI says of files, and look-ups of what is here.

New tables alone: nothing that is in use is locked, but for a moment the table of models, for the keys that point to it.

Revision ID: 0019
Revises: 0018
"""

from datetime import datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_NOW = sa.text("now()")
_ZERO = sa.text("0")
_STATES = "state in ('queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')"
_OPEN = sa.text("state in ('queued', 'running')")
_TAKEN_IN = sa.text("model is not null")


def _time(name: str, *, now: bool = False) -> "sa.Column[datetime]":
    if now:
        return sa.Column(name, sa.DateTime(timezone=True), server_default=_NOW, nullable=False)
    return sa.Column(name, sa.DateTime(timezone=True))


def upgrade() -> None:
    op.create_table(
        "downloads",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("request", postgresql.JSONB(), nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("plan", postgresql.JSONB()),
        sa.Column("bytes_done", sa.BigInteger(), server_default=_ZERO, nullable=False),
        sa.Column("bytes_total", sa.BigInteger()),
        sa.Column("delays", sa.Integer(), server_default=_ZERO, nullable=False),
        sa.Column("epoch", sa.Integer(), server_default=_ZERO, nullable=False),
        _time("lease_until"),
        _time("available_at", now=True),
        sa.Column("error_code", sa.Text()),
        sa.Column("error_message", sa.Text()),
        sa.Column("model", sa.Uuid()),
        _time("created_at", now=True),
        _time("started_at"),
        _time("finished_at"),
        sa.CheckConstraint(_STATES, name=op.f("ck_downloads_state_known")),
        sa.ForeignKeyConstraint(["model"], ["models.id"], name=op.f("fk_downloads_model_models"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_downloads")),
    )
    op.create_index("downloads_owner", "downloads", ["owner", "id"])
    op.create_index("downloads_open", "downloads", ["available_at"], postgresql_where=_OPEN)
    op.create_index("downloads_model", "downloads", ["model"], postgresql_where=_TAKEN_IN)
    op.create_table(
        "model_uploads",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("metadata", postgresql.JSONB(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("received", sa.BigInteger(), server_default=_ZERO, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model", sa.Uuid()),
        _time("created_at", now=True),
        sa.CheckConstraint("received between 0 and bytes", name=op.f("ck_model_uploads_received_in_range")),
        sa.ForeignKeyConstraint(
            ["model"], ["models.id"], name=op.f("fk_model_uploads_model_models"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_uploads")),
    )
    op.create_index("model_uploads_owner", "model_uploads", ["owner"])
    op.create_index("model_uploads_expiry", "model_uploads", ["expires_at"])
    op.create_index("model_uploads_model", "model_uploads", ["model"], postgresql_where=_TAKEN_IN)
    op.create_table(
        "model_upload_pieces",
        sa.Column("upload", sa.Uuid(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["upload"],
            ["model_uploads.id"],
            name=op.f("fk_model_upload_pieces_upload_model_uploads"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("upload", "start", name=op.f("pk_model_upload_pieces")),
    )
    # Whichever statement deletes an upload, its pieces' bytes go too.
    op.execute("""
        create function model_upload_pieces_to_garbage() returns trigger language plpgsql as $sweep$
        begin
            insert into garbage (key) values (old.key) on conflict do nothing;
            return null;
        end $sweep$
    """)
    op.execute("""
        create trigger model_upload_pieces_to_garbage after delete on model_upload_pieces
        for each row execute function model_upload_pieces_to_garbage()
    """)
    op.create_table(
        "civitai_answers",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("facts", postgresql.JSONB()),
        _time("asked_at", now=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_civitai_answers")),
    )
    _create_lookups()


def _create_lookups() -> None:
    op.create_table(
        "library_lookups",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("entries", postgresql.JSONB(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Integer(), server_default=_ZERO, nullable=False) for name in ("done", "found", "changed")),
        sa.Column("delays", sa.SmallInteger(), server_default=_ZERO, nullable=False),
        sa.Column("epoch", sa.Integer(), server_default=_ZERO, nullable=False),
        _time("lease_until"),
        _time("available_at", now=True),
        sa.Column("error_code", sa.Text()),
        sa.Column("error_message", sa.Text()),
        _time("created_at", now=True),
        _time("finished_at"),
        sa.CheckConstraint(_STATES, name=op.f("ck_library_lookups_state_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_library_lookups")),
    )
    op.create_index("library_lookups_owner", "library_lookups", ["owner", "id"])
    op.create_index("library_lookups_open", "library_lookups", ["available_at"], postgresql_where=_OPEN)


def downgrade() -> None:
    for table in ("library_lookups", "civitai_answers", "model_upload_pieces", "model_uploads", "downloads"):
        op.drop_table(table)
    op.execute("drop function model_upload_pieces_to_garbage()")
