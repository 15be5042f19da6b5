"""Let keys say how long their jobs are kept; count the layers of text encoders.

Adding nullable columns holds each table's lock for a moment; the new check is proven by a look at the keys, of which there are few. The
release before writes none of these columns, and reads none. What scans remember is forgotten, so that the next one counts the layers.

Revision ID: 0011
Revises: 0021
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("retention_days", sa.Double(), nullable=True))
    op.create_check_constraint(op.f("ck_api_keys_retention_some"), "api_keys", "retention_days > 0")
    op.add_column("jobs", sa.Column("retention_days", sa.Double(), nullable=True))
    op.add_column("models", sa.Column("text_layers", sa.Integer(), nullable=True))
    op.execute("delete from model_places")


def downgrade() -> None:
    op.drop_column("models", "text_layers")
    op.drop_column("jobs", "retention_days")
    op.drop_constraint(op.f("ck_api_keys_retention_some"), "api_keys", type_="check")
    op.drop_column("api_keys", "retention_days")
