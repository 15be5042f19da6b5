"""Find the jobs that name an upload.

Revision: 0006; follows 0005.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            "jobs_uploads",
            "jobs",
            ["uploads"],
            postgresql_using="gin",
            postgresql_where=sa.text("uploads <> '{}'"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def downgrade() -> None:
    op.drop_index("jobs_uploads", "jobs")
