"""Keep how wide a model's denoiser is, by which what was made for a larger one of the same family is told.

Adding a nullable column holds the table's lock for a moment; the release before neither writes nor reads it. What scans remember is
forgotten, so that the next one looks at everything again: families that were refused before are recognised now.

Revision ID: 0025
Revises: 0024
"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("models", sa.Column("width", sa.Integer(), nullable=True))
    op.execute("delete from model_places")


def downgrade() -> None:
    op.drop_column("models", "width")
