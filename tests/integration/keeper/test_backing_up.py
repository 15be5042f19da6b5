"""The keeper makes the backups that are due."""

import threading
import time
from pathlib import Path

from infra.database import connect
from infra.storage import open_storage
from keeper.backing_up import backing_up


def test_keeper_makes_what_is_due(database_url: str, tmp_path: Path) -> None:
    """Two keepers make one backup between them."""
    storage = open_storage(tmp_path.as_uri())
    stop = threading.Event()
    with connect(database_url, application_name="test") as connection:
        connection.execute("update backup_schedule set every_hours = 1, next_at = now() - interval '1 minute'")
        with backing_up(database_url, storage, stop, 0.05), backing_up(database_url, storage, stop, 0.05):
            end = time.monotonic() + 20
            while connection.execute("select from backups").fetchone() is None and time.monotonic() < end:
                time.sleep(0.05)
            time.sleep(0.2)
        rows = connection.execute("select made_by from backups").fetchall()
    assert rows == [{"made_by": None}]
    assert len(list(storage.list("backups"))) == 1
