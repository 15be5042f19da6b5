"""Let the table of models hold every kind: names are unique per kind, adapters have facts of their own.

The table has one row per model on disk, thousands at most, so its new key and its checks hold the lock for milliseconds:
they are not built beside the traffic. The release before writes checkpoints alone, which stay valid under every rule here.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_NUMBERS = ("text_width", "scale", "rank", "vectors")


def upgrade() -> None:
    for name in _NUMBERS:
        op.add_column("models", sa.Column(name, sa.Integer(), nullable=True))
    _check(
        kinds="'checkpoint', 'lora', 'controlnet', 'embedding', 'vae', 'upscaler', 'preprocessor'",
        layouts="'diffusers', 'file', 'folder'",
    )
    op.drop_index("ix_models_name_any_case", table_name="models")
    op.drop_constraint(op.f("pk_models"), "models", type_="primary")
    op.create_primary_key(op.f("pk_models"), "models", ["kind", "name"])
    op.create_index("ix_models_kind_name_any_case", "models", ["kind", sa.text("lower(name)")], unique=True)


def downgrade() -> None:
    op.execute("delete from models where kind <> 'checkpoint' or layout <> 'diffusers'")
    op.drop_index("ix_models_kind_name_any_case", table_name="models")
    op.drop_constraint(op.f("pk_models"), "models", type_="primary")
    op.create_primary_key(op.f("pk_models"), "models", ["name"])
    op.create_index("ix_models_name_any_case", "models", [sa.text("lower(name)")], unique=True)
    _check(kinds="'checkpoint'", layouts="'diffusers'")
    for name in _NUMBERS:
        op.drop_column("models", name)


def _check(*, kinds: str, layouts: str) -> None:
    for column, known in (("kind", kinds), ("layout", layouts)):
        name = op.f(f"ck_models_{column}_known")
        op.drop_constraint(name, "models", type_="check")
        op.create_check_constraint(name, "models", f"{column} IN ({known})")
