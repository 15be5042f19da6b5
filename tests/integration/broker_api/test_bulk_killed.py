"""A server that is killed while it does one thing to many entries has done it to none of them."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import httpx
import pytest

from infra.database import connect
from models_registry.library import create_entry
from models_registry.records import Facts
from tests.fleet_process import eventually
from tests.library_entries import entry

ENTRIES = 50
_BLOCKED = "select pid from pg_stat_activity where wait_event_type = 'Lock' and application_name = 'imagefleet api'"
_SERVER = "select pid from pg_stat_activity where application_name = 'imagefleet api'"
_LEFT = "select count(*)::int as entries, count(*) filter (where tags = '{old}')::int as untouched from models where kind = 'lora'"


@pytest.mark.parametrize("action", ["tag", "delete", "activate"])
def test_what_a_killed_server_began_is_undone(
    world: Any, server: tuple["subprocess.Popen[bytes]", str], action: str
) -> None:
    """It is killed while it waits for one entry, with others done already; then all are as they were."""
    process, url = server
    ids = [
        str(create_entry(world.connection, entry(f"lora {number}"), Facts(tags=("old",)))) for number in range(ENTRIES)
    ]
    body: dict[str, Any] = {"action": action, "ids": ids} | ({"tags": ["new"]} if action == "tag" else {})
    headers = {"authorization": f"Bearer {world.key('ann', ('user', 'admin'))}"}

    def send() -> httpx.Response | None:
        try:
            return httpx.post(f"{url}/v1/adapters/bulk", json=body, headers=headers, trust_env=False, timeout=60)
        except httpx.TransportError:
            return None

    with ThreadPoolExecutor(1) as threads, closing(connect(world.database_url, application_name="other")) as other:
        with other.transaction():
            # The last of them, as the server meets them.
            other.execute(
                "select from models where id = %s for update", (max(ids) if action == "activate" else ids[-1],)
            )
            answer = threads.submit(send)
            eventually(lambda: world.connection.execute(_BLOCKED).fetchall())
            process.kill()
            assert answer.result() is None
        eventually(lambda: not world.connection.execute(_SERVER).fetchall())
    assert world.connection.execute(_LEFT).fetchone() == {"entries": ENTRIES, "untouched": ENTRIES}
    assert world.count("model_marks") == 0
