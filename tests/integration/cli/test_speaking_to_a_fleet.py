"""Commands that speak to a fleet over HTTP."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.scripted_server import answer

JOB = "01936f2e-0000-7000-8000-000000000001"
PICTURE = b"the picture"
View = Callable[..., dict[str, Any]]


def image(index: int, seed: int) -> dict[str, Any]:
    """Describe one stored picture."""
    return {
        "index": index,
        "seed": seed,
        "width": 64,
        "height": 64,
        "mime": "image/png",
        "bytes": len(PICTURE),
        "sha256": hashlib.sha256(PICTURE).hexdigest(),
        "url": f"/v1/jobs/{JOB}/images/{index}",
    }


def stream(*events: tuple[int, int, str, dict[str, Any]]) -> bytes:
    """Write a whole stream of events."""
    text = "".join(
        f"id: {epoch}-{seq}\nevent: {kind}\ndata: "
        + json.dumps({"job": JOB, "epoch": epoch, "seq": seq, "type": kind, "at": "2026-01-01T00:00:00Z", "data": data})
        + "\n\n"
        for epoch, seq, kind, data in events
    )
    return answer(text, kind="text/event-stream")


def drawn(view: View, *seeds: int) -> list[bytes]:
    """Answer as a fleet does that draws these pictures."""
    images = [image(index, seed) for index, seed in enumerate(seeds)]
    done = view(state="succeeded", images=images, seconds=1.5, worker="cpu0@host")
    events = stream(
        (0, 1, "queued", {}),
        (1, 1, "started", {"worker": "w"}),
        (1, 2, "progress", {"step": 1, "steps": 4}),
        (1, 3, "succeeded", {}),
    )
    pictures = [answer(PICTURE, kind="image/png") for _ in seeds]
    return [answer(json.dumps(view()), 202), events, answer(json.dumps(done)), *pictures]


UPLOADED = json.dumps({"id": "a" * 64, "sha256": "a" * 64, "mime": "image/png", "width": 8, "height": 8, "bytes": 3})


def sent(script: Any, number: int) -> dict[str, Any]:
    """Return the request a command has submitted, as its call of this number."""
    assert (script.asked[number].method, script.asked[number].path) == ("POST", "/v1/jobs")
    found: dict[str, Any] = json.loads(script.asked[number].body)
    return found


def test_generate_uploads_pictures_and_names_them(command: Any, play: Any, view: View, tmp_path: Path) -> None:
    """Files become uploads first; references, LoRAs, controls and second passes go into the request as they are."""
    (tmp_path / "in.png").write_bytes(b"png")
    script = play([answer(UPLOADED, 201), answer(UPLOADED, 201), *drawn(view, 7)])
    done = command(
        "generate", "a circle", "--image", "in.png", "--mask", "job:1/0", "--strength", "0.5", "--lora", "frame:0.8", "--lora",
        "ground", "--control", "edges=in.png", "--preprocessor", "canny", "--vae", "grey", "--clip-skip", "2", "-o", "out.png",
        url=script.url,
    )  # fmt: skip
    assert done.status == 0, done.err
    assert [(each.path, each.body) for each in script.asked[:2]] == [("/v1/uploads", b"png")] * 2
    ref = f"upload:{'a' * 64}"
    assert sent(script, 2) == {
        "task": "inpaint", "prompt": "a circle", "num_images": 1, "image": ref, "mask": "job:1/0", "strength": 0.5,
        "loras": [{"name": "frame", "weight": 0.8}, {"name": "ground"}],
        "controls": [{"model": "edges", "image": ref, "preprocessor": "canny"}], "vae": "grey", "clip_skip": 2,
        "output": {"format": "png"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "request_"),
    [
        (("generate", "x", "--hires", "2"), {"task": "txt2img", "prompt": "x", "num_images": 1, "hires": {"scale": 2.0}}),
        (("generate", "x", "--image", "job:1/0"), {"task": "img2img", "prompt": "x", "num_images": 1, "image": "job:1/0"}),
        (
            ("upscale", "upload:1", "--scale", "3", "--upscaler", "lanczos", "--refine", "grass", "-m", "shapes-sd15"),
            {
                "task": "upscale", "image": "upload:1", "scale": 3.0, "upscaler": "lanczos", "refine": {"prompt": "grass"},
                "model": "shapes-sd15",
            },
        ),
        (
            ("preprocess", "canny", "job:1/0", "--option", "low_threshold=50"),
            {"task": "preprocess", "preprocessor": "canny", "image": "job:1/0", "preprocessor_options": {"low_threshold": 50.0}},
        ),
    ],
)  # fmt: skip
def test_verbs_ask_for_their_tasks(
    command: Any, play: Any, view: View, tmp_path: Path, arguments: tuple[str, ...], request_: dict[str, Any]
) -> None:
    """Each verb sends what its options say and writes the picture it gets."""
    script = play(drawn(view, 7))
    done = command(*arguments, "-o", "out.png", url=script.url)
    assert done.status == 0, done.err
    assert sent(script, 0) == request_ | {"output": {"format": "png"}}
    assert (tmp_path / "out.png").read_bytes() == PICTURE


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("generate", "x", "--mask", "a.png"), 2, "needs a picture"),
        (("generate", "x", "--lora", "frame:much"), 2, "no weight"),
        (("generate", "x", "--control", "edges"), 2, "ControlNet=picture"),
        (("preprocess", "canny", "job:1/0", "--option", "low"), 2, "name=number"),
        (("upscale", "no-such.png"), 1, "cannot be read"),
    ],
)
def test_verbs_refuse_what_cannot_be_sent(
    command: Any, play: Any, arguments: tuple[str, ...], status: int, says: str
) -> None:
    """A mistyped option ends with status 2 before anything is sent, a missing file with one sentence."""
    done = command(*arguments, url=play([]).url)
    assert done.status == status
    assert says in done.err


def test_generate_writes_the_file_and_prints_where(command: Any, play: Any, view: View, tmp_path: Path) -> None:
    """What was asked for is sent, what was not is left to the model; the path alone goes to standard output."""
    script = play(drawn(view, 7))
    options = [
        "--negative",
        "green",
        "--seed",
        "7",
        "--steps",
        "4",
        "-W",
        "64",
        "-H",
        "64",
        "--guidance",
        "5",
        "--scheduler",
        "Euler a",
    ]
    done = command(
        "generate", "a red circle", *options, "-m", "shapes-sd15", "--hardware", "cpu", "-o", "out.png", url=script.url
    )
    assert (done.status, done.out) == (0, f"{tmp_path / 'out.png'}\n")
    assert (tmp_path / "out.png").read_bytes() == PICTURE
    assert "seed 7" in done.err
    assert json.loads(script.asked[0].body) == {
        "task": "txt2img",
        "prompt": "a red circle",
        "negative_prompt": "green",
        "seed": 7,
        "steps": 4,
        "width": 64,
        "height": 64,
        "guidance_scale": 5.0,
        "scheduler": "Euler a",
        "model": "shapes-sd15",
        "hardware": "cpu",
        "num_images": 1,
        "output": {"format": "png"},
    }


def test_generate_sends_only_what_was_given(command: Any, play: Any, view: View, tmp_path: Path) -> None:
    """Several pictures are several files; the key of the home folder goes along; JSON is all that is printed."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home/api-key").write_text("if_secret\n")
    script = play(drawn(view, 7, 8))
    done = command("generate", "a", "-n", "2", "-o", "x.jpg", "--json", url=script.url)
    assert done.status == 0
    printed = json.loads(done.out)
    assert printed["files"] == [str(tmp_path / "x-0.jpg"), str(tmp_path / "x-1.jpg")]
    assert all(Path(file).read_bytes() == PICTURE for file in printed["files"])
    assert json.loads(script.asked[0].body) == {
        "task": "txt2img",
        "prompt": "a",
        "num_images": 2,
        "output": {"format": "jpeg"},
    }
    assert script.asked[0].headers["authorization"] == "Bearer if_secret"


def test_generate_tells_why_a_job_failed(command: Any, play: Any, view: View) -> None:
    """A failed job is a failed command: one sentence, the code, no file."""
    failed = view(state="failed", error={"code": "out_of_memory", "message": "Too little memory.", "retryable": False})
    script = play([answer(json.dumps(view()), 202), stream((1, 1, "failed", {})), answer(json.dumps(failed))])
    done = command("generate", "a", url=script.url)
    assert (done.status, done.out) == (1, "")
    assert "Too little memory. (out_of_memory)" in done.err
    assert "Traceback" not in done.err


def test_generate_tells_why_a_request_is_refused(command: Any, play: Any) -> None:
    """A refusal is the server's own sentence and code."""
    problem = {"code": "model_unknown", "detail": "no model is named 'x'", "status": 422, "field": "model"}
    done = command("generate", "a", "-m", "x", url=play([answer(json.dumps(problem), 422)]).url)
    assert (done.status, done.err) == (1, "No model is named 'x' (model_unknown)\n")


def test_generate_refuses_a_damaged_picture(command: Any, play: Any, view: View, tmp_path: Path) -> None:
    """Bytes that are not those recorded are not written."""
    script = play([*drawn(view, 7)[:-1], answer(b"other bytes", kind="image/png")])
    done = command("generate", "a", "-o", "out.png", url=script.url)
    assert done.status == 1
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_cancels_the_job(command: Any, play: Any, view: View, number: signal.Signals) -> None:
    """Interrupted, or killed politely, while it follows the job, the command asks for the job to be cancelled and says so."""
    events = stream((0, 1, "queued", {})) + b": held open"
    events = events.replace(b"content-length: ", b"content-length: 9")
    cancelled = answer(json.dumps(view(state="cancelled")))
    script = play([answer(json.dumps(view()), 202), events, cancelled])

    def interrupt() -> None:
        os.kill(os.getpid(), number)

    script.before = {2: interrupt}
    done = command("generate", "a", url=script.url)
    assert (done.status, done.err) == (1, f"Cancelled job {JOB}.\n")
    assert (script.asked[-1].method, script.asked[-1].path) == ("POST", f"/v1/jobs/{JOB}/cancel")


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "a"],
        ["jobs", "list"],
        ["jobs", "show", JOB],
        ["jobs", "watch", JOB],
        ["models", "list"],
        ["workers"],
    ],
)
def test_fleet_that_does_not_run_is_one_sentence(command: Any, arguments: list[str]) -> None:
    """No traceback, no waiting, status 1, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    done = command(*arguments, port=str(port))
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert f"http://127.0.0.1:{port}" in done.err
    assert "imagefleet up" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate"],
        ["generate", "a", "--steps", "many"],
        ["generate", "a", "-o", "a.gif"],
        ["generate", "a", "-o", "a.png", "--format", "jpeg"],
        ["jobs", "list", "--state", "lost"],
        ["nonsense"],
        ["generate", "a", "--nonsense"],
    ],
)
def test_mistyped_commands_are_usage_errors(command: Any, arguments: list[str]) -> None:
    """What cannot be understood ends with status 2, before anything is sent."""
    assert command(*arguments, url="http://127.0.0.1:9").status == 2


def test_mistyped_settings_are_usage_errors(command: Any) -> None:
    """A setting that cannot be used is named."""
    done = command("jobs", "list", port="many")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "IMAGEFLEET_PORT" in done.err


def test_missing_key_is_explained(command: Any, play: Any) -> None:
    """Where the key is looked for is said when the server wants one."""
    refusal = answer(json.dumps({"code": "unauthorized", "detail": "Send your API key."}), 401)
    done = command("jobs", "list", url=play([refusal]).url)
    assert done.status == 1
    assert "IMAGEFLEET_API_KEY" in done.err


def test_jobs_are_listed_over_pages(command: Any, play: Any, view: View) -> None:
    """As many as asked for, newest first, with their ids whole."""
    pages = [{"items": [view()], "next_cursor": "next"}, {"items": [view(id=JOB[:-1] + "2")], "next_cursor": "more"}]
    script = play([answer(json.dumps(page)) for page in pages])
    done = command("jobs", "list", "-n", "2", "--state", "queued", url=script.url)
    assert done.status == 0
    assert [JOB in done.out, JOB[:-1] + "2" in done.out, "a [red] circle" in done.out] == [True] * 3
    assert [asked.path for asked in script.asked] == [
        "/v1/jobs?state=queued&limit=2",
        "/v1/jobs?state=queued&cursor=next&limit=1",
    ]


def test_jobs_show_tells_what_a_job_waits_for(command: Any, play: Any, view: View) -> None:
    """Everything a person asks about a job stands there, and nothing in it steers the terminal."""
    found = view(waiting_for="a free worker", position=3)
    found["request"]["prompt"] = "a\x1b[2Jb"
    done = command("jobs", "show", JOB, url=play([answer(json.dumps(found))]).url)
    assert done.status == 0
    for text in (JOB, "a free worker", "64 x 64", "DPM++ 2M karras", "position     3"):
        assert text in done.out
    assert "\x1b" not in done.out


def test_jobs_priority_moves_a_job_that_waits(command: Any, play: Any, view: View) -> None:
    """The new priority is sent, and where the job now stands is told; a number beyond 9 is not sent at all."""
    moved = view(position=1)
    moved["request"]["priority"] = 0
    script = play([answer(json.dumps(moved))])
    done = command("jobs", "priority", JOB, "0", url=script.url)
    assert (done.status, done.out) == (0, f"{JOB} has priority 0, number 1 in its queue\n")
    assert (script.asked[0].method, script.asked[0].path) == ("PATCH", f"/v1/jobs/{JOB}")
    assert json.loads(script.asked[0].body) == {"priority": 0}
    assert command("jobs", "priority", JOB, "10", url=script.url).status == 2


def test_jobs_are_cancelled_and_deleted_one_by_one(command: Any, play: Any, view: View) -> None:
    """Each id is told its own outcome; one failure does not hide the others."""
    stopping = play([answer(json.dumps(view(state="cancelled"))), answer(json.dumps(view(state="running")), 202)])
    done = command("jobs", "cancel", JOB, JOB, url=stopping.url)
    assert (done.status, done.out) == (0, f"{JOB} is cancelled\n{JOB} stops within a step\n")
    refusal = answer(json.dumps({"code": "job_active", "detail": "It is running."}), 409)
    deleting = play([refusal, answer(status=204)])
    done = command("jobs", "delete", JOB, JOB, url=deleting.url)
    assert (done.status, done.out) == (1, f"{JOB} deleted\n")
    assert "It is running." in done.err


def test_jobs_watch_ends_as_the_job_does(command: Any, play: Any, view: View) -> None:
    """A watched job that succeeds prints where its pictures are; one that was cancelled fails the command."""
    done_view = view(state="succeeded", images=[image(0, 7)])
    script = play([answer(json.dumps(view())), stream((1, 1, "succeeded", {})), answer(json.dumps(done_view))])
    done = command("jobs", "watch", JOB, url=script.url)
    assert (done.status, done.out) == (0, f"{script.url}/v1/jobs/{JOB}/images/0\n")
    script = play([answer(json.dumps(view(state="cancelled")))])
    done = command("jobs", "watch", JOB, url=script.url)
    assert done.status == 1
    assert "cancelled" in done.err


def test_models_and_workers_are_listed(command: Any, play: Any) -> None:
    """Names are whole, however narrow the terminal would be."""
    model = {
        "name": "shapes-sd15",
        "title": "shapes-sd15 [0123456789]",
        "kind": "checkpoint",
        "family": "sd15",
        "variant": "base",
        "tasks": ["txt2img"],
        "native_size": 128,
        "size_step": 8,
        "min_side": 64,
        "max_side": 4096,
        "default_steps": 20,
        "default_guidance_scale": 5,
        "default_scheduler": "Euler",
        "fingerprint": "0" * 64,
        "bytes": 5_000_000,
        "is_default": True,
    }
    done = command("models", "list", url=play([answer(json.dumps({"items": [model]}))]).url)
    assert done.status == 0
    assert all(text in done.out for text in ("shapes-sd15", "sd15", "128 px", "4.8 MiB", "default"))
    lora = {
        "name": "frame",
        "title": "frame [0]",
        "kind": "lora",
        "family": "sd15",
        "variant": "locon",
        "fingerprint": "0",
        "bytes": 2048,
    }
    pages = [
        {"items": [lora | {"name": "glow"}], "next_cursor": "on"},
        {"items": [lora | {"rank": 8, "text_width": 64}]},
    ]
    script = play([answer(json.dumps(page)) for page in pages])
    done = command("models", "list", "--kind", "lora", url=script.url)
    assert done.status == 0
    assert all(text in done.out for text in ("glow", "frame", "locon", "2.0 KiB", "rank 8, text width 64"))
    assert script.asked[-1].path == "/v1/adapters?kind=lora&limit=1000&cursor=on"
    assert command("models", "list", "--kind", "hypernetwork", url=script.url).status == 2
    worker = {
        "name": "cpu0@host",
        "state": "idle",
        "online": False,
        "host": "host",
        "device": "cpu",
        "device_name": "A CPU",
        "hardware": "cpu",
        "serves": ["cpu", "night"],
        "tags": ["night"],
        "tasks": ["txt2img"],
        "memory_bytes": 8 * 1024**3,
        "engine": "fake",
        "version": "0",
        "warm": ["shapes-sd15@0123"],
        "loads": 1,
        "current": [],
        "started_at": "2026-01-01T00:00:00Z",
        "seen_at": "2026-01-01T00:00:00Z",
    }
    queue = {"name": "txt2img.cpu", "queued": 3, "running": 1, "oldest_wait_s": 2.5, "workers": 1}
    script = play([answer(json.dumps({"items": [worker]})), answer(json.dumps({"items": [queue]}))])
    done = command("workers", url=script.url)
    assert done.status == 0
    assert all(
        text in done.out for text in ("cpu0@host", "offline", "8.0 GiB", "cpu, night", "shapes-sd15", "txt2img.cpu")
    )


@pytest.mark.parametrize(("verb", "said"), [("drain", "takes no more jobs"), ("resume", "takes jobs again")])
def test_worker_is_sent_to_rest_and_back(command: Any, play: Any, verb: str, said: str) -> None:
    """The worker is named in the path, whatever its name holds, and the answer says what it does now."""
    worker = {
        "name": "cpu0@host", "state": "idle", "online": True, "host": "host", "device": "cpu", "device_name": "CPU",
        "hardware": "cpu", "serves": ["cpu"], "tags": [], "tasks": ["txt2img"], "memory_bytes": 8 << 30, "engine": "local",
        "version": "1.0", "warm": [], "loads": 1, "current": [], "started_at": "2026-01-01T00:00:00Z",
        "seen_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    script = play([answer(json.dumps(worker))])
    done = command("workers", verb, "cpu0@host", url=script.url)
    assert (done.status, script.asked[-1].path) == (0, f"/v1/workers/cpu0%40host/{verb}"), done.err
    assert f"cpu0@host {said}" in done.out


def test_speaking_to_a_fleet_imports_little() -> None:
    """A command that speaks to a fleet waits for no torch, no Celery, no database driver."""
    heavy = "{'torch', 'diffusers', 'celery', 'psycopg', 'sqlalchemy', 'redis', 'starlette'}"
    program = f"import sys, cli.main, cli.generate, cli.jobs, cli.workers; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
