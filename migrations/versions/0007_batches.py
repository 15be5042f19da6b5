"""Batches of jobs that are submitted together, and an index of what an owner's jobs do now.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("request_hash", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
    )
    op.create_index("batches_owner", "batches", ["owner", "id"])
    op.create_index(
        "batches_idempotency",
        "batches",
        ["owner", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key is not null"),
    )
    op.add_column("jobs", sa.Column("batch", sa.Uuid(), nullable=True))
    op.create_foreign_key(op.f("fk_jobs_batch_batches"), "jobs", "batches", ["batch"], ["id"], ondelete="SET NULL")
    op.create_index("jobs_members", "jobs", ["batch", "id"], postgresql_where=sa.text("batch is not null"))
    op.create_index(
        "jobs_active",
        "jobs",
        ["owner", "state", "id"],
        postgresql_where=sa.text("state in ('queued', 'running')"),
    )


def downgrade() -> None:
    op.drop_index("jobs_active", table_name="jobs")
    op.drop_index("jobs_members", table_name="jobs")
    op.drop_column("jobs", "batch")
    op.drop_table("batches")
