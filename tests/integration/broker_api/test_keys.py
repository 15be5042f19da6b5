"""API keys: made, listed, revoked; what they open and what they do not; nothing of them can be recovered."""

import asyncio
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from broker_api.auth.key_format import hash_of
from broker_api.auth.keys import KEY_FILE, REMEMBERED_SECONDS, create_key, ensure_first_key, list_keys, revoke_key
from broker_api.routes import ENDPOINTS
from infra.database import connect
from keeper.leader import leadership

ADMIN: tuple[Any, ...] = ("admin", "user")


def test_key_is_stored_as_a_hash_only(world: Any) -> None:
    """No column holds the key or its secret part."""
    created = create_key(world.connection, owner="ann", name="laptop")
    row = world.connection.execute("select * from api_keys").fetchone()
    assert row["hash"] == hash_of(created.key)
    assert not any(created.key[16:] in str(value) for value in row.values())
    assert [view.name for view in list_keys(world.connection)] == ["laptop"]
    assert revoke_key(world.connection, created.id)
    assert not revoke_key(world.connection, "nosuchkey000")


def test_admin_manages_keys_over_http(live: Any, world: Any) -> None:
    """A key made over HTTP is shown once, works at once, and stops when it is revoked."""
    with live.client(world.key("root", ADMIN)) as admin:
        made = admin.post("/v1/keys", json={"name": "gallery", "owner": "bob"})
        assert made.status_code == 201
        key = made.json()["key"]
        assert (made.json()["owner"], made.json()["scopes"]) == ("bob", ["user"])
        with live.client(key) as bob:
            assert bob.get("/v1/jobs").status_code == 200
        listed = admin.get("/v1/keys")
        assert key[17:] not in listed.text
        assert "hash" not in listed.text
        assert len(listed.json()["items"]) == 2
        assert admin.delete(f"/v1/keys/{made.json()['id']}").status_code == 204
        assert admin.delete(f"/v1/keys/{made.json()['id']}").status_code == 204
        assert admin.delete("/v1/keys/nosuchkey000").status_code == 404
        assert admin.delete("/v1/keys/%00").status_code == 404
        assert admin.post("/v1/keys", json={"name": "x", "scopes": ["root"]}).json()["field"] == "scopes.0"
        assert admin.post("/v1/keys", json={"name": "x", "scopes": []}).status_code == 422


def test_key_says_how_long_its_jobs_are_kept(live: Any, world: Any) -> None:
    """From then on, for every job it submits, alone or in a batch; null is the fleet's retention again."""

    def kept() -> Any:
        return world.connection.execute("select retention_days from jobs order by id desc limit 1").fetchone()

    with live.client(world.key("root", ADMIN)) as admin:
        made = admin.post("/v1/keys", json={"name": "private", "owner": "bob", "retention_days": 0.5}).json()
        place = f"/v1/keys/{made['id']}"
        assert made["retention_days"] == 0.5
        with live.client(made["key"]) as bob:
            bob.post("/v1/jobs", json={"prompt": "x"})
            assert kept() == {"retention_days": 0.5}
            bob.post("/v1/batches", json={"jobs": [{"prompt": "x"}]})
            assert kept() == {"retention_days": 0.5}
            assert bob.patch(place, json={"retention_days": 7}).status_code == 403
            assert admin.patch(place, json={"retention_days": None}).json()["retention_days"] is None
            time.sleep(REMEMBERED_SECONDS)
            bob.post("/v1/jobs", json={"prompt": "x"})
            assert kept() == {"retention_days": None}
        for wrong in ({"retention_days": 0}, {"retention_days": "x"}, {}, {"name": "y"}):
            assert admin.patch(place, json=wrong).status_code == 422
        assert admin.patch("/v1/keys/nosuchkey000", json={"retention_days": 7}).status_code == 404
        assert [key["retention_days"] for key in admin.get("/v1/keys").json()["items"]] == [None, None]


def test_last_used_is_written_off_the_request_path(world: Any, application: Any) -> None:
    """Requests only note that a key was used; one statement writes it for all."""

    async def story() -> tuple[Any, Any]:
        async with application(world.key()) as (client, services):
            await client.get("/v1/queues")
            before = list_keys(world.connection)[0].last_used_at
            await services.keys.write_last_used()
            return before, list_keys(world.connection)[0].last_used_at

    before, after = asyncio.run(story())
    assert before is None
    assert after is not None


def test_first_key_is_written_once_for_its_owner_alone(world: Any, tmp_path: Path) -> None:
    """The file holds an admin key, mode 0600; starting again keeps it; a lost, damaged or revoked one is replaced."""
    home = tmp_path / "home"
    path = ensure_first_key(world.connection, home)
    key = path.read_text().strip()
    assert path == home.resolve() / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ensure_first_key(world.connection, home).read_text().strip() == key
    assert len(list_keys(world.connection)) == 1

    revoke_key(world.connection, list_keys(world.connection)[0].id)
    second = ensure_first_key(world.connection, home).read_text().strip()
    path.write_text("rubbish")
    third = ensure_first_key(world.connection, home).read_text().strip()
    assert len({key, second, third}) == 3
    assert list_keys(world.connection)[-1].scopes == ["admin", "user"]


def test_first_key_is_made_beside_a_running_keeper(world: Any, tmp_path: Path) -> None:
    """A keeper holds its lock for as long as it leads; a machine added to its fleet still gets a key."""
    with connect(world.database_url, application_name="keeper") as other, leadership(other) as leads:
        assert leads
        world.connection.execute("set lock_timeout = '2s'")
        assert ensure_first_key(world.connection, tmp_path / "home").read_text()


@pytest.mark.parametrize("endpoint", [each for each in ENDPOINTS if each.access == "admin"], ids=lambda each: each.name)
def test_admin_paths_refuse_ordinary_keys(shared_live: Any, shared_world: Any, endpoint: Any) -> None:
    """Whatever the table calls `admin` is closed to users."""
    with shared_live.client(shared_world.key()) as client:
        answer = client.request(
            endpoint.method, endpoint.path.replace("{id}", "x").replace("{path:path}", "x"), json={"name": "x"}
        )
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    "endpoint", [each for each in ENDPOINTS if each.access != "public"], ids=lambda each: each.name
)
def test_keyed_paths_refuse_no_key(shared_live: Any, endpoint: Any) -> None:
    """Whatever the table does not call `public` is closed to strangers."""
    with shared_live.client() as client:
        answer = client.request(
            endpoint.method, endpoint.path.replace("{id}", "x").replace("{n}", "0").replace("{path:path}", "x")
        )
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


OWNED = [each for each in ENDPOINTS if each.tag == "jobs" and "{id}" in each.path]


@pytest.mark.parametrize("endpoint", OWNED, ids=lambda each: each.name)
def test_foreign_and_unknown_jobs_look_alike(shared_live: Any, shared_world: Any, endpoint: Any) -> None:
    """On every path of a job, someone else's is answered as one that never was, and is left as it is."""
    worker = shared_world.worker()
    with shared_live.client(shared_world.key("ann")) as ann, shared_live.client(shared_world.key("bob")) as bob:
        mine = ann.post("/v1/jobs", json={"prompt": "secret"}).json()["id"]
        worker.claim()
        worker.finish()
        unknown = mine[:-12] + "000000000000"
        answers = [
            bob.request(
                endpoint.method,
                endpoint.path.replace("{id}", job).replace("{n}", "0"),
                json=endpoint.body.example if endpoint.body else None,
            )
            for job in (mine, unknown)
        ]
        assert [answer.status_code for answer in answers] == [404, 404]
        foreign, missing = ({**answer.json(), "request_id": None} for answer in answers)
        assert foreign == missing
        names = [sorted(set(answer.headers) - {"x-request-id", "date"}) for answer in answers]
        assert names[0] == names[1]
        assert ann.get(f"/v1/jobs/{mine}").json()["state"] == "succeeded"
        assert mine not in bob.get("/v1/jobs").text
        with shared_live.client(shared_world.key("root", ADMIN)) as admin:
            assert mine in admin.get("/v1/jobs").text


def test_workers_hide_what_others_draw(shared_live: Any, shared_world: Any) -> None:
    """Which jobs run where is an admin's to see."""
    job = "01990000-0000-7000-8000-000000000000"
    shared_world.connection.execute("update workers set current = array[%s]::uuid[]", (job,))
    with (
        shared_live.client(shared_world.key("root", ADMIN)) as admin,
        shared_live.client(shared_world.key("ann")) as ann,
    ):
        assert job in admin.get("/v1/workers").text
        assert job not in ann.get("/v1/workers").text
