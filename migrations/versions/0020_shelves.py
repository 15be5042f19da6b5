"""Remember what scans found, who wants which files, and leave the stored bytes of entries that are gone to the keeper.

Everything on `models` takes its exclusive lock for moments: two columns without a rewrite, and indexes over thousands of rows at most.
The release before neither reads nor writes what is new here; what it scans meanwhile is looked at once more.

Revision ID: 0020
Revises: 0019
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_NOW = sa.text("now()")


def upgrade() -> None:
    op.add_column("models", sa.Column("wanted_at", sa.DateTime(timezone=True)))
    op.add_column("models", sa.Column("damage", sa.Text()))
    op.create_index("models_path", "models", ["path"])
    op.create_index("models_fingerprint", "models", ["fingerprint"])
    op.create_index(
        "models_files",
        "models",
        ["files"],
        postgresql_using="gin",
        postgresql_ops={"files": "jsonb_path_ops"},
        postgresql_where=sa.text("stored_at is not null"),
    )
    op.create_index("models_wanted", "models", ["wanted_at"], postgresql_where=sa.text("wanted_at is not null"))
    # Whichever statement deletes an entry or replaces its files, the bytes go too; the keeper looks first whether others have them.
    op.execute("""
        create function models_to_garbage() returns trigger language plpgsql as $sweep$
        begin
            insert into garbage (key) select distinct 'models/' || (file ->> 'sha256') from jsonb_array_elements(old.files) file
                where file ->> 'sha256' is not null on conflict do nothing;
            return null;
        end $sweep$
    """)
    op.execute("""
        create trigger models_to_garbage after delete on models for each row when (old.stored_at is not null)
            execute function models_to_garbage()
    """)
    op.execute("""
        create trigger models_files_to_garbage after update of files, stored_at on models for each row
            when (old.stored_at is not null and (new.stored_at is null or new.files is distinct from old.files))
            execute function models_to_garbage()
    """)
    op.create_table(
        "model_places",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("stamp", sa.Text(), nullable=False),
        sa.Column("model", sa.Uuid()),
        sa.Column("refused_path", sa.Text()),
        sa.Column("code", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.ForeignKeyConstraint(
            ["model"], ["models.id"], name=op.f("fk_model_places_model_models"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_model_places")),
    )
    op.create_index("model_places_model", "model_places", ["model"])
    op.create_table(
        "model_scans",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("again", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("seen", sa.Integer(), server_default="0", nullable=False),
        sa.Column("opened", sa.Integer(), server_default="0", nullable=False),
        sa.Column("report", postgresql.JSONB()),
        sa.CheckConstraint("state in ('queued', 'running', 'done', 'failed')", name=op.f("ck_model_scans_state_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_scans")),
    )
    op.create_index(
        "model_scans_waiting",
        "model_scans",
        ["created_at"],
        postgresql_where=sa.text("state in ('queued', 'running')"),
    )


def downgrade() -> None:
    op.drop_table("model_scans")
    op.drop_table("model_places")
    op.execute("drop trigger models_files_to_garbage on models")
    op.execute("drop trigger models_to_garbage on models")
    op.execute("drop function models_to_garbage()")
    for name in ("models_wanted", "models_files", "models_fingerprint", "models_path"):
        op.drop_index(name, table_name="models")
    op.drop_column("models", "damage")
    op.drop_column("models", "wanted_at")
