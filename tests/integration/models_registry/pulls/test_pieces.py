"""What nobody goes on with is forgotten, row and bytes."""

from datetime import timedelta

import uuid_utils.compat as uuids

from infra.database import Pool
from infra.storage import Storage
from models_registry.pulls.pieces import expire_uploads, piece_key, remove_strays


def test_expired_upload_leaves_its_pieces_to_the_keeper(pool: Pool) -> None:
    """One that is gone on with stays."""
    with pool.connection() as connection:
        for hours in (-1, 1):
            identity = uuids.uuid7()
            connection.execute(
                "insert into model_uploads (id, owner, metadata, bytes, received, expires_at) "
                "values (%s, 'ann', '{}', 9, 3, now() + make_interval(hours => %s))",
                (identity, hours),
            )
            connection.execute(
                "insert into model_upload_pieces values (%s, 0, 3, %s)", (identity, f"pieces/{identity}/0-{hours}")
            )
        assert expire_uploads(connection) == 1
        garbage = connection.execute("select key from garbage").fetchall()
        assert [row["key"].rpartition("-")[2] for row in garbage] == ["1"]
        assert len(connection.execute("select * from model_uploads").fetchall()) == 1


def test_strays_are_removed_and_pieces_are_not(pool: Pool, storage: Storage) -> None:
    """A process that died between storing and recording leaves nothing for ever."""
    identity = uuids.uuid7()
    kept, stray = piece_key(identity, 0), piece_key(identity, 0)
    for key in (kept, stray, "models/other"):
        storage.put(key, b"x")
    with pool.connection() as connection:
        connection.execute(
            "insert into model_uploads (id, owner, metadata, bytes, received, expires_at) values (%s, 'ann', '{}', 9, 1, now())",
            (identity,),
        )
        connection.execute("insert into model_upload_pieces values (%s, 0, 1, %s)", (identity, kept))
        assert remove_strays(connection, storage) == 0
        assert remove_strays(connection, storage, timedelta(0)) == 1
    assert {found.key for found in storage.list()} == {kept, "models/other"}
