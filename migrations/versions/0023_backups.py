"""Keep backups of the library, and when to make them.

Creates tables of its own: nothing else is locked.

Revision ID: 0023
Revises: 0022
"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "backups",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("made_by", sa.Text()),
        sa.Column("files", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("entries", sa.Integer(), nullable=False),
        sa.Column("recipes", sa.Integer(), nullable=False),
        sa.Column("verified_at", sa.DateTime(timezone=True)),
        sa.Column("damage", sa.Text()),
        sa.CheckConstraint("files in ('include', 'reference')", name=op.f("ck_backups_files_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backups")),
    )
    op.create_table(
        "backup_schedule",
        sa.Column("is_one", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("every_hours", sa.Double()),
        sa.Column("keep", sa.Integer(), server_default="7", nullable=False),
        sa.Column("files", sa.Text(), server_default="reference", nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True)),
        sa.Column("failure", sa.Text()),
        sa.CheckConstraint("is_one", name=op.f("ck_backup_schedule_one_row")),
        sa.CheckConstraint("files in ('include', 'reference')", name=op.f("ck_backup_schedule_files_known")),
        sa.PrimaryKeyConstraint("is_one", name=op.f("pk_backup_schedule")),
    )
    op.execute("insert into backup_schedule default values")


def downgrade() -> None:
    op.drop_table("backup_schedule")
    op.drop_table("backups")
