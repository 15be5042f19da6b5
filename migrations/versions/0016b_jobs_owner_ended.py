"""Find what ended last of one owner's.

Built beside the traffic: it locks nothing that writers need.

Revision ID: 0016b
Revises: 0016
"""

import sqlalchemy as sa
from alembic import op

revision = "0016b"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "jobs_owner_finished",
            "jobs",
            ["owner", "finished_at"],
            postgresql_where=sa.text("finished_at is not null"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    op.drop_index("jobs_owner_finished", "jobs")
