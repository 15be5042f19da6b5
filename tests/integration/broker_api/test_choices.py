"""What a form chooses among: schedulers, preprocessors; and lists that an admin narrows to their own."""

from typing import Any


def test_every_scheduler_listed_is_taken(shared_live: Any, clean_world: Any) -> None:
    """Each name, alone and with each of its schedules, is accepted as the list spells it."""
    with shared_live.client(clean_world.key()) as client:
        items = client.get("/v1/schedulers").json()["items"]
        assert {"Euler", "DPM++ 2M"} <= {each["name"] for each in items}
        for each in items:
            for schedule in [None, *(kind["name"] for kind in each["schedule_types"])]:
                body = {"prompt": "x", "scheduler": each["name"], "schedule_type": schedule}
                answer = client.post("/v1/jobs", params={"dry_run": True}, json=body)
                assert answer.status_code == 200, (body, answer.text)


def test_preprocessors_say_whether_they_can_be_used(shared_live: Any, clean_world: Any) -> None:
    """Those without weights can; those whose weights are not registered cannot."""
    with shared_live.client(clean_world.key()) as client:
        found = {each["name"]: each for each in client.get("/v1/preprocessors").json()["items"]}
    assert found["canny"]["available"]
    assert [option["name"] for option in found["canny"]["options"]] == ["low_threshold", "high_threshold"]
    assert not found["softedge_hed"]["available"]


def test_mine_leaves_out_what_others_own(shared_live: Any, clean_world: Any) -> None:
    """An admin sees everyone's jobs, pictures and batches, and with `mine` only their own; a job names its batch."""
    ann, root = clean_world.key("ann"), clean_world.key("root", ("user", "admin"))
    with shared_live.client(ann) as client:
        client.post("/v1/jobs", json={"prompt": "hers"})
        clean_world.worker().claim()
        batch = client.post("/v1/batches", json={"jobs": [{"prompt": "also hers"}]}).json()["id"]
    worker = clean_world.worker()
    worker.claim()
    worker.finish()
    with shared_live.client(root) as client:
        own = client.post("/v1/jobs", json={"prompt": "its own"}).json()["id"]
        everyones = client.get("/v1/jobs").json()["items"]
        assert len(everyones) == 3
        assert {job["batch"] for job in everyones} == {None, batch}
        assert [job["id"] for job in client.get("/v1/jobs", params={"mine": True}).json()["items"]] == [own]
        for path in ("/v1/results", "/v1/batches"):
            assert len(client.get(path).json()["items"]) == 1, path
            assert client.get(path, params={"mine": True}).json()["items"] == [], path
