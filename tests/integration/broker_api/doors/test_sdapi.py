"""The A1111 door over HTTP, with a painter in the worker's place."""

import base64
import io
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from PIL import Image

from jobs.prompts.infotext import parse_infotext

ASKED: dict[str, Any] = {"prompt": "a red circle", "seed": 7, "steps": 20, "width": 128, "height": 64}


def _eventually(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def _picture(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text, validate=True)))


def _base64(size: tuple[int, int] = (16, 8), **texts: str) -> str:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, "JPEG" if texts else "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _progress(client: httpx.Client, **query: object) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/sdapi/v1/progress", params=query).json()  # type: ignore[arg-type]
    return found


def _is_idle(progress: dict[str, Any]) -> bool:
    return bool(progress["progress"] == 0 and progress["state"]["job_count"] == 0)


def test_txt2img_answers_with_the_pictures(live: Any, world: Any, painter: Any) -> None:
    """Base64 without a prefix, one infotext and one seed per picture, `info` a string of JSON."""
    del painter
    with live.client(world.key()) as client:
        answer = client.post(
            "/sdapi/v1/txt2img", json=ASKED | {"batch_size": 2, "sampler_name": "DDIM", "subseed_strength": 1}
        )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert [_picture(image).size for image in body["images"]] == [(128, 64)] * 2
    assert isinstance(body["info"], str)
    info = json.loads(body["info"])
    assert (info["seed"], info["all_seeds"], info["index_of_first_image"]) == (7, [7, 8], 0)
    assert (info["sampler_name"], info["steps"], info["width"], info["sd_model_name"]) == (
        "DDIM",
        20,
        128,
        "shapes-sd15",
    )
    last = [text.split("\n")[-1] for text in info["infotexts"]]
    assert [parse_infotext(text).fields["Seed"] for text in last] == ["7", "8"]
    assert info["notes"] == ["subseed is ignored"]
    assert body["parameters"]["prompt"] == "a red circle"
    assert (body["parameters"]["seed"], body["parameters"]["cfg_scale"]) == (7, 7.0)


def test_txt2img_without_pictures(live: Any, world: Any, painter: Any) -> None:
    """`send_images: false` leaves them in the fleet, where the job is one like any other."""
    del painter
    with live.client(world.key()) as client:
        body = client.post("/sdapi/v1/txt2img", json=ASKED | {"send_images": False}).json()
        job = json.loads(body["info"])["jobs"][0]
        assert body["images"] == []
        view = client.get(f"/v1/jobs/{job}").json()
        assert client.get(view["images"][0]["url"]).status_code == 200
    assert (view["state"], view["request"]["seed"]) == ("succeeded", 7)


def test_key_comes_as_basic_password_or_bearer(live: Any, world: Any) -> None:
    """Any user name; nothing, and a wrong key, get A1111's answer and its challenge."""
    key = world.key()
    with live.client() as client:
        for auth in (("anyone", key), ("", key)):
            assert client.get("/sdapi/v1/options", auth=auth).status_code == 200
        assert client.get("/sdapi/v1/options", headers={"authorization": f"Bearer {key}"}).status_code == 200
        wrong = client.get("/sdapi/v1/options", auth=("a", "b"))
        none = client.get("/sdapi/v1/progress")
        foreign = client.post("/sdapi/v1/interrupt", auth=("a", key), headers={"origin": "http://evil.test"})
    assert (wrong.status_code, wrong.json()["detail"]) == (401, "Incorrect username or password")
    assert (none.status_code, none.json()["detail"]) == (401, "Not authenticated")
    assert wrong.headers["www-authenticate"].startswith("Basic ")
    assert foreign.status_code == 403


def test_client_without_a_key_acts_under_the_one_that_is_set(world: Any, start_server: Callable[..., Any]) -> None:
    """Only where the operator says so, and never for a page of another site; a wrong key stays wrong."""
    world.changes["sdapi_key"] = world.key("lab")
    with start_server() as live, live.client() as client:
        assert client.get("/sdapi/v1/options").status_code == 200
        assert client.get("/sdapi/v1/options", headers={"authorization": ""}).status_code == 200
        assert client.get("/sdapi/v1/options", auth=("a", "b")).status_code == 401
        assert client.get("/v1/jobs").status_code == 401
        assert client.post("/sdapi/v1/interrupt", headers={"sec-fetch-site": "cross-site"}).status_code == 403


@pytest.mark.parametrize(
    ("path", "body", "status", "detail"),
    [
        ("txt2img", {"sampler_name": "none such"}, 400, "Sampler not found"),
        ("txt2img", {"script_name": "none such"}, 422, "Script 'none such' not found"),
        ("img2img", {}, 404, "Init image not found"),
        ("interrogate", {"image": "YQ=="}, 404, "Model not found"),
        ("interrogate", {}, 404, "Image not found"),
        ("extra-single-image", {}, 404, "Image not found"),
        ("png-info", {"image": "YQ=="}, 422, "Invalid encoded image"),
        ("extra-single-image", {"image": "YQ==", "upscaler_1": "Lanczos"}, 422, "Invalid encoded image"),
        ("img2img", {"init_images": ["YQ=="], "mask": "YQ=="}, 422, "Invalid encoded image"),
        ("img2img", {"init_images": ["YQ=="]}, 422, "This is no PNG, JPEG or WebP picture."),
    ],
)
def test_refusals_speak_as_a1111(
    live: Any, world: Any, path: str, body: dict[str, Any], status: int, detail: str
) -> None:
    """The status and the words that its clients know, and no job."""
    with live.client(world.key()) as client:
        answer = client.post(f"/sdapi/v1/{path}", json=body)
    assert (answer.status_code, answer.json()["detail"]) == (status, detail)
    assert world.count("jobs") == 0


@pytest.mark.parametrize(
    ("path", "body", "loc"),
    [
        ("txt2img", {"steps": "many"}, ["body", "steps"]),
        ("txt2img", {"steps": 0}, ["body", "steps"]),
        ("txt2img", [], ["body"]),
        ("png-info", {}, ["body", "image"]),
        ("options", {"samples_format": "gif"}, ["body", "samples_format"]),
        ("options", {"sd_model_checkpoint": "none such"}, ["body", "sd_model_checkpoint"]),
    ],
)
def test_wrong_fields_are_listed_as_fastapi_does(live: Any, world: Any, path: str, body: Any, loc: list[str]) -> None:
    """422 with where, what and why."""
    with live.client(world.key()) as client:
        answer = client.post(f"/sdapi/v1/{path}", json=body)
    assert answer.status_code == 422, answer.text
    found = answer.json()["detail"][0]
    assert found["loc"] == loc
    assert set(found) == {"loc", "msg", "type"}


def test_refusal_of_admission_is_a_sentence(live: Any, world: Any) -> None:
    """An unknown checkpoint is a 422 with the names that are near."""
    with live.client(world.key()) as client:
        answer = client.post("/sdapi/v1/txt2img", json={"override_settings": {"sd_model_checkpoint": "shapes"}})
    assert answer.status_code == 422
    assert "shapes-sd15" in answer.json()["detail"]


def test_options_are_the_keys_own(live: Any, world: Any, painter: Any) -> None:
    """Another key sees its own; the whole dictionary may be sent back; the next request draws by them."""
    del painter
    world.add_model("other")
    ann, bob = world.key("ann"), world.key("ann")
    with live.client(ann) as client, live.client(bob) as second:
        usual = client.get("/sdapi/v1/options").json()
        assert usual["sd_model_checkpoint"].startswith("shapes-sd15 [")
        titles = [model["title"] for model in client.get("/sdapi/v1/sd-models").json()]
        [title] = [title for title in titles if title.startswith("other")]
        changed = usual | {"sd_model_checkpoint": title, "samples_format": "jpg"}
        answer = client.post("/sdapi/v1/options", json=changed)
        assert (answer.status_code, answer.json()) == (200, None)
        now = client.get("/sdapi/v1/options").json()
        assert (now["sd_model_checkpoint"], now["samples_format"]) == (title, "jpeg")
        assert now["sd_checkpoint_hash"] != usual["sd_checkpoint_hash"]
        assert second.get("/sdapi/v1/options").json() == usual
        info = json.loads(client.post("/sdapi/v1/txt2img", json=ASKED).json()["info"])
        assert info["sd_model_name"] == "other"
        client.post("/sdapi/v1/options", json={"sd_vae": "mine", "nonsense": 1})
        assert client.get("/sdapi/v1/options").json()["sd_vae"] == "mine"
        client.post("/sdapi/v1/options", json={"sd_vae": "None"})
        assert client.get("/sdapi/v1/options").json()["sd_vae"] == "Automatic"
        assert client.get("/sdapi/v1/checkpoint").json()["name"] == "other"
        assert client.post("/sdapi/v1/checkpoint", params={"sd_model_checkpoint": "shapes-sd15"}).json() == {"ok": True}
        assert client.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == usual["sd_model_checkpoint"]


def test_progress_shows_the_picture_that_forms(live: Any, world: Any, painter: Any, in_thread: Any) -> None:
    """Idle before and after; between them a fraction, the steps, a preview without prefix."""
    painter.gate.clear()
    with live.client(world.key()) as client, live.client(world.key()) as other:
        assert _is_idle(_progress(client))
        result = in_thread(lambda: client.post("/sdapi/v1/txt2img", json=ASKED | {"force_task_id": "task(x)"}))
        with httpx.Client(base_url=live.url, headers=client.headers, timeout=20) as poller:
            seen = _eventually(lambda: (found := _progress(poller))["current_image"] and found)
            assert seen["progress"] == 0.15
            assert (seen["state"]["sampling_step"], seen["state"]["sampling_steps"], seen["state"]["job_count"]) == (
                3,
                20,
                1,
            )
            assert base64.b64decode(seen["current_image"]).startswith(b"\xff\xd8")
            assert seen["current_task"] == "task(x)"
            # From what has passed, in tenths of seconds: nothing at first.
            assert _eventually(lambda: _progress(poller)["eta_relative"] > 0)
            assert _progress(poller, skip_current_image=True)["current_image"] is None
            assert _progress(poller, id_task="task(x)")["progress"] == 0.15
            assert _is_idle(_progress(poller, id_task="task(y)"))
            live_view = poller.post("/internal/progress", json={"id_task": "task(x)"}).json()
            assert live_view["live_preview"].startswith("data:image/jpeg;base64,")
            again = {"id_task": "task(x)", "id_live_preview": live_view["id_live_preview"]}
            assert poller.post("/internal/progress", json=again).json()["live_preview"] is None
            assert poller.get("/sdapi/v1/status").json()["step"] == 3
            # Another key of the same owner has nothing running.
            assert _is_idle(_progress(other))
            assert _is_idle(_progress(other, id_task="task(x)"))
            painter.gate.set()
            assert result().status_code == 200
            assert _is_idle(_progress(poller))
            done = poller.post("/internal/progress", json={"id_task": "task(x)"}).json()
            assert (done["active"], done["completed"]) == (False, True)


def test_interrupt_stops_the_keys_own_jobs_alone(live: Any, world: Any, painter: Any, in_thread: Any) -> None:
    """The other key's job, and what was sent through another door, go on; the interrupted call is answered."""
    painter.gate.clear()
    ann, bob = world.key("ann"), world.key("ann")
    with live.client(ann) as client, live.client(bob) as other, live.client(ann) as poller, live.client(bob) as second:
        native = poller.post("/v1/jobs", json={"prompt": "x"}).json()["id"]
        theirs = in_thread(lambda: other.post("/sdapi/v1/txt2img", json=ASKED))
        mine = in_thread(lambda: client.post("/sdapi/v1/txt2img", json=ASKED))
        _eventually(lambda: world.count("jobs") == 3)
        answer = poller.post("/sdapi/v1/interrupt")
        assert (answer.status_code, answer.json()) == (200, {})
        stopped = mine()
        assert stopped.status_code == 200
        assert (stopped.json()["images"], json.loads(stopped.json()["info"])["interrupted"]) == ([], True)
        assert len(json.loads(stopped.json()["info"])["infotexts"]) == 1
        assert not _is_idle(_progress(second))
        painter.gate.set()
        drawn = theirs()
        assert len(drawn.json()["images"]) == 1
        assert _eventually(lambda: poller.get(f"/v1/jobs/{native}").json()["state"] == "succeeded")


def test_interrupt_reaches_a_running_job(live: Any, world: Any, painter: Any, in_thread: Any) -> None:
    """And `skip` is the same: what waits behind it goes on."""
    painter.gate.clear()
    with live.client(world.key()) as client, live.client() as poller:
        poller.headers = client.headers
        first = in_thread(lambda: client.post("/sdapi/v1/txt2img", json=ASKED))
        _eventually(lambda: len(painter.shown) == 1)
        second = in_thread(lambda: poller.post("/sdapi/v1/txt2img", json=ASKED | {"seed": 8}))
        _eventually(lambda: world.count("jobs") == 2)
        assert client.post("/sdapi/v1/skip").json() == {}
        assert first().json()["images"] == []
        painter.gate.set()
        assert len(second().json()["images"]) == 1


def test_task_id_makes_one_job(live: Any, world: Any, painter: Any) -> None:
    """Sent again it gives the same picture; with another request it is refused."""
    del painter
    asked = ASKED | {"seed": -1, "force_task_id": "task(1)"}
    with live.client(world.key()) as client:
        first, again = (client.post("/sdapi/v1/txt2img", json=asked).json() for _ in range(2))
        changed = client.post("/sdapi/v1/txt2img", json=asked | {"prompt": "else"})
    assert first["images"] == again["images"]
    assert world.count("jobs") == 1
    assert changed.status_code == 409


def test_failed_job_is_a_500_with_its_code(live: Any, world: Any, in_thread: Any) -> None:
    """In JSON, as clients that never look at the status need it."""
    with live.client(world.key()) as client:
        result = in_thread(lambda: client.post("/sdapi/v1/txt2img", json=ASKED))
        _eventually(lambda: world.count("jobs") == 1)
        world.connection.execute(
            "update jobs set state = 'failed', finished_at = now(), epoch = 1, error_code = 'out_of_memory',"
            " error_message = 'Too little memory.', error_retryable = false"
        )
        answer = result()
    assert answer.status_code == 500
    assert (answer.json()["error"], answer.json()["detail"]) == ("out_of_memory", "Too little memory.")


def test_lists_have_the_shapes_that_clients_read(live: Any, world: Any) -> None:
    """Each list with the members that its clients index."""
    with live.client(world.key()) as client:

        def get(path: str) -> Any:
            answer = client.get(path)
            assert answer.status_code == 200, answer.text
            return answer.json()

        [model] = get("/sdapi/v1/sd-models")
        assert model["title"] == f"{model['model_name']} [{model['hash']}]"
        assert {"sha256", "filename", "config"} <= set(model)
        assert {sampler["name"] for sampler in get("/sdapi/v1/samplers")} >= {"Euler a", "DPM++ 2M", "DDIM"}
        schedulers = {each["name"]: each["label"] for each in get("/sdapi/v1/schedulers")}
        assert schedulers["karras"] == "Karras"
        assert next(iter(schedulers)) == "automatic"
        assert get("/sdapi/v1/upscalers")[0]["name"] == "None"
        assert get("/sdapi/v1/latent-upscale-modes")[0] == {"name": "Latent"}
        assert "controlnet m2m" in get("/sdapi/v1/scripts")["txt2img"]
        assert get("/sdapi/v1/embeddings") == {"loaded": {}, "skipped": {}}
        assert get("/sdapi/v1/script-info")[0]["name"] == "controlnet"
        assert get("/sdapi/v1/memory")["ram"]["total"] == 8 * 1024**3
        assert get("/sdapi/v1/cmd-flags")["api"] is True
        for name in (
            "hypernetworks",
            "face-restorers",
            "realesrgan-models",
            "prompt-styles",
            "extensions",
            "loras",
            "sd-vae",
        ):
            assert get(f"/sdapi/v1/{name}") == []
        assert get("/controlnet/version") == {"version": 2}
        assert get("/controlnet/model_list") == {"model_list": []}
        assert "canny" in get("/controlnet/module_list")["module_list"]
        assert get("/controlnet/settings") == {"control_net_unit_count": 3}
        assert "canny" in get("/controlnet/control_types")["control_types"]["All"]["module_list"]
        assert get("/internal/pending-tasks") == {"size": 0, "tasks": []}
        assert client.get("/sdapi/v1/lora", params={"lora": "x"}).status_code == 404
        assert client.post("/sdapi/v1/refresh-checkpoints").json() == {}
        assert client.get("/sdapi/v1/sd-models", params={"unknown": "1"}).status_code == 200


def test_png_info_reads_what_a_picture_says(live: Any, world: Any) -> None:
    """The text itself, and its fields; a picture that says nothing gives nothing."""
    text = "a cat\nNegative prompt: blur\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 64x32"
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode("utf-16-le")
    file = io.BytesIO()
    Image.new("RGB", (16, 8)).save(file, "JPEG", exif=exif)
    said = base64.b64encode(file.getvalue()).decode()
    with live.client(world.key()) as client:
        found = client.post("/sdapi/v1/png-info", json={"image": f"data:image/jpeg;base64,{said}"}).json()
        nothing = client.post("/sdapi/v1/png-info", json={"image": _base64()}).json()
    assert found["info"] == text
    assert (found["parameters"]["Seed"], found["parameters"]["Size-1"], found["parameters"]["Prompt"]) == (
        "5",
        "64",
        "a cat",
    )
    assert (nothing["info"], nothing["parameters"]) == ("", {})


def test_extras_without_an_upscaler_give_the_picture_back(live: Any, world: Any) -> None:
    """As A1111 does; nothing is drawn."""
    with live.client(world.key()) as client:
        body = client.post("/sdapi/v1/extra-single-image", json={"image": _base64()}).json()
    assert _picture(body["image"]).size == (16, 8)
    assert world.count("jobs") == 0
