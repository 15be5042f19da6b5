"""Search of pictures, their thumbnails, and the secret that signs their URLs.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "thumbnails",
        sa.Column("job", sa.Uuid(), nullable=False),
        sa.Column("index", sa.SmallInteger(), nullable=False),
        sa.Column("size", sa.SmallInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job", "index"],
            ["images.job", "images.index"],
            name=op.f("fk_thumbnails_job_index_images"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("job", "index", "size", name=op.f("pk_thumbnails")),
    )
    # Whichever statement deletes a picture, its thumbnails' files go too.
    op.execute("""
        create function thumbnails_to_garbage() returns trigger language plpgsql as $sweep$
        begin
            insert into garbage (key) values (old.key) on conflict do nothing;
            return null;
        end $sweep$
    """)
    op.execute("""
        create trigger thumbnails_to_garbage after delete on thumbnails for each row execute function thumbnails_to_garbage()
    """)
    op.create_table(
        "secrets",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_secrets")),
    )
    # Only of what has pictures: a waiting job costs nothing here.
    op.execute("""
        create index jobs_prompt on jobs using gin (to_tsvector('simple', request ->> 'prompt')) where state = 'succeeded'
    """)
    op.execute("""
        create index jobs_labels on jobs using gin ((request -> 'labels') jsonb_path_ops) where request -> 'labels' <> '{}'
    """)
    op.create_index("images_seed", "images", ["seed"])


def downgrade() -> None:
    op.drop_index("images_seed", table_name="images")
    op.drop_index("jobs_labels", table_name="jobs")
    op.drop_index("jobs_prompt", table_name="jobs")
    op.drop_table("secrets")
    op.drop_table("thumbnails")
    op.execute("drop function thumbnails_to_garbage()")
