"""Create the table of known models.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "models",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("layout", sa.Text(), nullable=False),
        sa.Column("family", sa.Text(), nullable=False),
        sa.Column("variant", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("components", postgresql.JSONB(), nullable=False),
        sa.Column("weight_bytes", sa.BigInteger(), nullable=False),
        sa.Column("native_size", sa.Integer(), nullable=False),
        sa.Column("latent_factor", sa.Integer(), nullable=False),
        sa.Column("latent_channels", sa.Integer(), nullable=False),
        sa.Column("default_steps", sa.Integer()),
        sa.Column("default_guidance_scale", sa.Double()),
        sa.Column("default_scheduler", sa.Text()),
        sa.Column("found_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("missing_since", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_models")),
        sa.CheckConstraint("kind IN ('checkpoint')", name=op.f("ck_models_kind_known")),
        sa.CheckConstraint("layout IN ('diffusers')", name=op.f("ck_models_layout_known")),
    )
    op.create_index("ix_models_name_any_case", "models", [sa.text("lower(name)")], unique=True)


def downgrade() -> None:
    op.drop_table("models")
