"""Count what ended by the hour, so that it is known after the jobs are gone; let workers be drained, and say what they hold.

Adding nullable columns to `workers` holds its lock for a moment; it has a row per device. The new tables lock nothing. The release
before writes neither, and reads none of them.

Revision ID: 0016
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("drain_requested_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("workers", sa.Column("ledger", postgresql.JSONB(astext_type=sa.Text()), nullable=True))
    op.create_table(
        "job_hours",
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=False),
        sa.Column("jobs", sa.Integer(), nullable=False),
        sa.Column("pictures", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("waits", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("durations", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint(
            "hour", "owner", "task", "model", "worker", "state", "error_code", name=op.f("pk_job_hours")
        ),
    )
    op.create_index("job_hours_owner", "job_hours", ["owner", "hour"])
    op.create_table(
        "rollups",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("done_until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_rollups")),
    )


def downgrade() -> None:
    op.drop_table("rollups")
    op.drop_table("job_hours")
    op.drop_column("workers", "ledger")
    op.drop_column("workers", "drain_requested_at")
