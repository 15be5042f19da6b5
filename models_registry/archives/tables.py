"""The tables of backups and of their schedule."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    Integer,
    Table,
    Text,
    Uuid,
    func,
    text,
)

from infra.database import metadata

#: Backups whose bytes lie in storage under `backups/<id>.zip`.
backups = Table(
    "backups",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("made_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    #: An owner; None for the schedule.
    Column("made_by", Text),
    Column("files", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    #: Of the whole archive.
    Column("sha256", Text, nullable=False),
    Column("entries", Integer, nullable=False),
    Column("recipes", Integer, nullable=False),
    #: When it was last read to its end, and what was wrong with it then.
    Column("verified_at", DateTime(timezone=True)),
    Column("damage", Text),
    CheckConstraint("files in ('include', 'reference')", name="files_known"),
)

#: One row: how often a backup is made, and how many of those are kept.
backup_schedule = Table(
    "backup_schedule",
    metadata,
    Column("is_one", Boolean, primary_key=True, server_default=text("true")),
    #: None makes none.
    Column("every_hours", Double),
    Column("keep", Integer, nullable=False, server_default="7"),
    Column("files", Text, nullable=False, server_default="reference"),
    Column("next_at", DateTime(timezone=True)),
    #: Why the last one was not made.
    Column("failure", Text),
    CheckConstraint("is_one", name="one_row"),
    CheckConstraint("files in ('include', 'reference')", name="files_known"),
)
