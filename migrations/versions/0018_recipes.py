"""Keep recipes.

Creates a table of its own: nothing else is locked.

Revision ID: 0018
Revises: 0016b
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0016b"
branch_labels = None
depends_on = None

_NOW = sa.text("now()")


def upgrade() -> None:
    op.create_table(
        "recipes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("visibility", sa.Text(), server_default="private", nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("tags", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("prompt", sa.Text(), server_default="", nullable=False),
        sa.Column("negative_prompt", sa.Text(), server_default="", nullable=False),
        sa.Column("model", sa.Text()),
        sa.Column("loras", postgresql.JSONB(), server_default="[]", nullable=False),
        sa.Column("settings", postgresql.JSONB(), server_default="{}", nullable=False),
        sa.Column("source", sa.Text(), server_default="", nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("preview", postgresql.JSONB()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.CheckConstraint("visibility in ('public', 'private')", name=op.f("ck_recipes_visibility_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recipes")),
    )
    op.create_index("recipes_name", "recipes", ["owner", sa.text("lower(name)")], unique=True)
    op.create_index("recipes_content", "recipes", ["owner", "content"], unique=True)
    op.create_index(
        "recipes_preview",
        "recipes",
        [sa.text("(preview ->> 'sha256')")],
        postgresql_where=sa.text("preview is not null"),
    )
    # Previews are content that other rows may share: the keeper looks before it removes the bytes.
    op.execute("""
        create function recipe_preview_to_garbage() returns trigger language plpgsql as $sweep$
        begin
            if tg_op = 'DELETE' or old.preview ->> 'sha256' is distinct from new.preview ->> 'sha256' then
                insert into garbage (key) select 'previews/' || (old.preview ->> 'sha256') where old.preview is not null
                on conflict do nothing;
            end if;
            return null;
        end $sweep$
    """)
    op.execute("""
        create trigger recipe_preview_to_garbage after delete or update of preview on recipes
        for each row execute function recipe_preview_to_garbage()
    """)


def downgrade() -> None:
    op.drop_table("recipes")
    op.execute("drop function recipe_preview_to_garbage()")
