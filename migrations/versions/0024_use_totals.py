"""Sum up how much each entry was used, so that lists are sorted by it.

Making the triggers and the reference keeps writers of `models` and `model_usage` out until the sums of what was counted so far are
written: moments. The release before counts through the same triggers.

Revision ID: 0024
Revises: 0023
"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "model_use_totals",
        sa.Column("model", sa.Uuid(), nullable=False),
        sa.Column("uses", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("failures", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("seconds", sa.Double(), server_default="0", nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(
            ["model"], ["models.id"], name=op.f("fk_model_use_totals_model_models"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_model_use_totals")),
    )
    _triggers()
    op.execute("""
        insert into model_use_totals (model, uses, failures, seconds, last_at)
        select models.id, coalesce(sum(uses), 0), coalesce(sum(failures), 0), coalesce(sum(seconds), 0), max(last_at)
        from models left join model_usage on model_usage.model = models.id group by models.id
    """)
    op.create_index("model_use_totals_by_uses", "model_use_totals", ["uses", "model"])


def _triggers() -> None:
    # Every entry has a row from its first moment: what nobody used is part of the order too.
    op.execute("""
        create function models_begin_uses() returns trigger language plpgsql as $begin$
        begin
            insert into model_use_totals (model) select id from added on conflict do nothing;
            return null;
        end $begin$
    """)
    op.execute("""
        create trigger models_begin_uses after insert on models referencing new table as added for each statement
        execute function models_begin_uses()
    """)
    op.execute("""
        create function model_usage_sum() returns trigger language plpgsql as $sum$
        begin
            if tg_op = 'INSERT' then
                update model_use_totals set uses = uses + new.uses, failures = failures + new.failures, seconds = seconds + new.seconds,
                    last_at = greatest(last_at, new.last_at) where model = new.model;
            else
                update model_use_totals set uses = uses + new.uses - old.uses, failures = failures + new.failures - old.failures,
                    seconds = seconds + new.seconds - old.seconds, last_at = greatest(last_at, new.last_at) where model = new.model;
            end if;
            return null;
        end $sum$
    """)
    op.execute("""
        create trigger model_usage_sum after insert or update on model_usage for each row execute function model_usage_sum()
    """)


def downgrade() -> None:
    op.execute("drop trigger model_usage_sum on model_usage")
    op.execute("drop function model_usage_sum()")
    op.execute("drop trigger models_begin_uses on models")
    op.execute("drop function models_begin_uses()")
    op.drop_table("model_use_totals")
