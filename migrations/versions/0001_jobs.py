"""Create the tables of jobs, pictures, fair shares and workers.

Revision ID: 0001
Revises: None
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

#: The transitions of `jobs.states`, repeated here on purpose: a migration never changes when the code does.
_TRANSITIONS = """
    ('queued', 'running'), ('queued', 'cancelled'), ('queued', 'failed'),
    ('running', 'succeeded'), ('running', 'failed'), ('running', 'queued'), ('running', 'cancelled')
"""


def upgrade() -> None:
    _create_tables()
    op.execute(f"""
        create function jobs_guard() returns trigger language plpgsql as $guard$
        begin
            if new.state <> old.state and (old.state, new.state) not in ({_TRANSITIONS}) then
                raise exception 'job % cannot go from % to %', old.id, old.state, new.state using errcode = 'check_violation';
            end if;
            if new.epoch < old.epoch then
                raise exception 'the epoch of job % cannot go back', old.id using errcode = 'check_violation';
            end if;
            return new;
        end $guard$
    """)
    op.execute("""
        create trigger jobs_guard before update of state, epoch on jobs for each row
        when (old.state is distinct from new.state or old.epoch is distinct from new.epoch) execute function jobs_guard()
    """)
    # Measured: renewing leases stays heap-only at 85 %; the queue's dead head entries are cleaned before they slow claims; statistics
    # stay fresh enough for generic plans.
    op.execute("""
        alter table jobs set (fillfactor = 85, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
            autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 5000, vacuum_index_cleanup = on)
    """)


def downgrade() -> None:
    for table in ("images", "workers", "jobs", "garbage", "fair_owners", "fair_clock"):
        op.drop_table(table)
    op.execute("drop function jobs_guard()")


def _create_tables() -> None:
    op.create_table(
        "fair_clock",
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("vtime", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("queue", "priority", name=op.f("pk_fair_clock")),
    )
    op.create_table(
        "fair_owners",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("vtime", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "queue", "priority", name=op.f("pk_fair_owners")),
    )
    op.create_table(
        "garbage",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_garbage")),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("hardware", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), sa.Computed("task || '.' || hardware", persisted=True), nullable=False),
        sa.Column("needs_hardware", sa.Text(), nullable=True),
        sa.Column("needs_memory", sa.BigInteger(), nullable=False),
        sa.Column("model_key", sa.Text(), nullable=False),
        sa.Column("lora_key", sa.Text(), server_default="", nullable=False),
        sa.Column("batch_key", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("fair_order", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default="queued", nullable=False),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("state_seq", sa.Integer(), server_default="1", nullable=False),
        sa.Column("attempts", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("losses", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("lost_on", sa.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("requeue_reason", sa.Text(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("worker_run", sa.Uuid(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step", sa.Integer(), server_default="0", nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("available_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("error_retryable", sa.Boolean(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("request_hash", sa.Text(), nullable=True),
        sa.Column("request", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint("(state = 'failed') = (error_code is not null)", name=op.f("ck_jobs_failed_has_code")),
        sa.CheckConstraint(
            "(state = 'running') = (lease_until is not null) and (state <> 'running' or worker is not null)",
            name=op.f("ck_jobs_running_has_lease"),
        ),
        sa.CheckConstraint(
            "(state in ('succeeded', 'failed', 'cancelled')) = (finished_at is not null)",
            name=op.f("ck_jobs_final_has_end"),
        ),
        sa.CheckConstraint(
            "state in ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name=op.f("ck_jobs_state_known")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index(
        "jobs_batch",
        "jobs",
        ["queue", "batch_key", "priority", "fair_order", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "jobs_deadline",
        "jobs",
        ["deadline_at"],
        unique=False,
        postgresql_where=sa.text("state = 'queued' and deadline_at is not null"),
    )
    op.create_index(
        "jobs_finished", "jobs", ["finished_at"], unique=False, postgresql_where=sa.text("finished_at is not null")
    )
    op.create_index(
        "jobs_idempotency",
        "jobs",
        ["owner", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key is not null"),
    )
    op.create_index("jobs_owner", "jobs", ["owner", "id"], unique=False)
    op.create_index(
        "jobs_ready",
        "jobs",
        ["queue", "priority", "fair_order", "id"],
        unique=False,
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index("jobs_running", "jobs", ["worker"], unique=False, postgresql_where=sa.text("state = 'running'"))
    op.create_table(
        "workers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("run", sa.Uuid(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("device_name", sa.Text(), nullable=False),
        sa.Column("hardware", sa.Text(), nullable=False),
        sa.Column("serves", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("tags", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("tasks", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("queues", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("warm", sa.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("loads", sa.Integer(), server_default="0", nullable=False),
        sa.Column("current", sa.ARRAY(sa.Uuid()), server_default="{}", nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state in ('idle', 'busy', 'draining', 'offline')", name=op.f("ck_workers_state_known")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
    op.create_table(
        "images",
        sa.Column("job", sa.Uuid(), nullable=False),
        sa.Column("index", sa.SmallInteger(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("seed", sa.Numeric(precision=20, scale=0), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("mime", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["jobs.id"], name=op.f("fk_images_job_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job", "index", name=op.f("pk_images")),
        sa.UniqueConstraint("key", name=op.f("uq_images_key")),
    )
