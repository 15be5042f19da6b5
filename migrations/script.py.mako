"""${message}.

Rules of production, kept by everyone who copies this file:

- Old code runs against the new schema during an upgrade, and the other way round: add first, use in the next release,
  remove in the one after. Never rename; never make a column NOT NULL that the release before does not write.
- A statement has 4 s to get its lock and 60 s to run (env.py). A lock that waits stops all traffic behind it.
- New columns are nullable or have a constant default. Fill old rows in batches, outside of the migration.
- An index on a table with rows: `with op.get_context().autocommit_block(): op.create_index(…,
  postgresql_concurrently=True, if_not_exists=True)`, alone in its migration.
- A constraint on a table with rows: add it NOT VALID here, VALIDATE it in the next migration.
- Each migration is one transaction. It says nothing about rows of other tables, and imports nothing of the product:
  it must still mean the same in two years.

Revision: ${up_revision}; follows ${down_revision | comma,n}.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision: str = ${repr(up_revision)}
down_revision: str | None = ${repr(down_revision)}
branch_labels: str | Sequence[str] | None = ${repr(branch_labels)}
depends_on: str | Sequence[str] | None = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
