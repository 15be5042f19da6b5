"""Find what each retention has kept longest.

Built beside the traffic: it locks nothing that writers need.

Revision ID: 0011b
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0011b"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "jobs_retention",
            "jobs",
            ["retention_days", "finished_at"],
            postgresql_where=sa.text("finished_at is not null"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    op.drop_index("jobs_retention", "jobs")
