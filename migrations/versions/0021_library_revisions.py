"""Count the library's revisions, so that what is remembered of it is brought up to date by what changed; indexes that lists are sorted by.

Writers of `models` take turns from here on: each holds the clock's one row until it commits, which is what makes the revisions' order the
order of commits. The column gets its default without a rewrite; building the indexes keeps writers of `models` out for moments. The release
before writes through the same triggers.

Revision ID: 0021
Revises: 0020
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_SORTED = (
    ("models_by_name", "lower(name)"),
    ("models_by_age", "found_at"),
    ("models_by_change", "changed_at"),
    ("models_by_size", "weight_bytes"),
)


def upgrade() -> None:
    op.create_table(
        "library_clock",
        sa.Column("is_one", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("revision", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("forgotten", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint("is_one", name=op.f("ck_library_clock_one_row")),
        sa.PrimaryKeyConstraint("is_one", name=op.f("pk_library_clock")),
    )
    op.execute("insert into library_clock default values")
    op.create_table(
        "model_tombstones",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_tombstones")),
    )
    op.create_index("model_tombstones_revision", "model_tombstones", ["revision"])
    op.add_column("models", sa.Column("revision", sa.BigInteger(), server_default="0", nullable=False))
    op.create_index("models_revision", "models", ["revision"])
    for name, first in _SORTED:
        op.create_index(name, "models", [sa.text(first), "id"])
    _triggers()


def _triggers() -> None:
    # Before the statement, so that the clock is always the first row a writer locks: two of them cannot wait for each other.
    op.execute("""
        create function library_tick() returns trigger language plpgsql as $tick$
        begin
            update library_clock set revision = revision + 1;
            return null;
        end $tick$
    """)
    op.execute("""
        create trigger library_tick before insert or update or delete on models for each statement execute function library_tick()
    """)
    op.execute("""
        create function models_stamp() returns trigger language plpgsql as $stamp$
        begin
            select revision into new.revision from library_clock;
            return new;
        end $stamp$
    """)
    op.execute(
        "create trigger models_stamp before insert or update on models for each row execute function models_stamp()"
    )
    op.execute("""
        create function models_bury() returns trigger language plpgsql as $bury$
        begin
            insert into model_tombstones (id, revision) select old.id, revision from library_clock
            on conflict (id) do update set revision = excluded.revision, deleted_at = now();
            return null;
        end $bury$
    """)
    op.execute("create trigger models_bury after delete on models for each row execute function models_bury()")
    op.execute("""
        create function model_aliases_touch() returns trigger language plpgsql as $touch$
        begin
            update models set revision = revision where id = coalesce(new.model, old.model);
            return null;
        end $touch$
    """)
    op.execute("""
        create trigger model_aliases_touch after insert or update or delete on model_aliases for each row
        execute function model_aliases_touch()
    """)
    # Whichever statement deletes a preview, its bytes are left to the keeper, which looks who else shows them.
    op.execute("""
        create function model_previews_to_garbage() returns trigger language plpgsql as $sweep$
        begin
            insert into garbage (key) values (old.key) on conflict do nothing;
            return null;
        end $sweep$
    """)
    op.execute("""
        create trigger model_previews_to_garbage after delete on model_previews for each row
        execute function model_previews_to_garbage()
    """)


def downgrade() -> None:
    op.execute("drop trigger model_previews_to_garbage on model_previews")
    op.execute("drop function model_previews_to_garbage()")
    op.execute("drop trigger model_aliases_touch on model_aliases")
    for trigger in ("models_bury", "models_stamp", "library_tick"):
        op.execute(f"drop trigger {trigger} on models")
    for function in ("model_aliases_touch", "models_bury", "models_stamp", "library_tick"):
        op.execute(f"drop function {function}()")
    for name, _ in _SORTED:
        op.drop_index(name, table_name="models")
    op.drop_index("models_revision", table_name="models")
    op.drop_column("models", "revision")
    op.drop_table("model_tombstones")
    op.drop_table("library_clock")
