"""Send a job, follow it, and write its pictures to files: what `generate`, `upscale` and `preprocess` have in common."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from cli.failure import CommandFailed
from cli.output import print_json
from cli.speaking.fleet import open_client
from cli.speaking.following import follow, outcome
from cli.speaking.pictures import Target, write_picture
from client.client import Client
from client.errors import ClientError
from infra.settings import Settings
from jobs.contract import JobView
from jobs.pictures import JOB, UPLOAD
from jobs.states import State

#: Builds a request once there is a fleet to upload pictures to.
Builder = Callable[[Client], dict[str, Any]]


def draw(build: Builder, target: Target, *, as_json: bool) -> None:
    """Have a request drawn, write the files and print their paths; raise `CommandFailed` when it does not succeed."""
    target.prepare()
    with open_client(Settings()) as client:
        request = build(client) | {"output": {"format": str(target.format)}}
        job = _draw(client, request, quiet=as_json)
        if job.state is not State.SUCCEEDED:
            if as_json:
                print_json(job)
            raise CommandFailed(outcome(job))
        files = _write(client, job, target)
    if as_json:
        print_json(job.model_dump(mode="json") | {"files": [str(file) for file in files]})
        return
    for file in files:
        typer.echo(file)
    seeds = ", ".join(str(image.seed) for image in job.images)
    typer.secho(f"{job.model}, seed {seeds}, {job.seconds or 0:.1f} s on {job.worker}", err=True, dim=True)


def picture(client: Client, given: str) -> str:
    """Return how a request names a picture: `upload:` and `job:` as they are, a file once it is uploaded."""
    if given.startswith((UPLOAD, JOB)):
        return given
    try:
        content = Path(given).read_bytes()
    except OSError as problem:
        raise CommandFailed(f"{given} cannot be read: {problem.strerror}.") from None
    return f"{UPLOAD}{client.upload(content).id}"


def _draw(client: Client, request: dict[str, Any], *, quiet: bool) -> JobView:
    job = client.submit(request)
    try:
        with _interruptible():
            return follow(client, job, quiet=quiet)
    except KeyboardInterrupt:
        _cancel(client, job)
        raise CommandFailed(f"Cancelled job {job.id}.") from None


@contextmanager
def _interruptible() -> Iterator[None]:
    """Take Ctrl-C, also where a shell started the command in the background, and a polite kill alike."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _cancel(client: Client, job: JobView) -> None:
    try:
        client.cancel(job.id)
    except ClientError as problem:
        raise CommandFailed(f"Job {job.id} could not be cancelled: {problem}.") from None


def _write(client: Client, job: JobView, target: Target) -> list[Path]:
    files = target.paths(job)
    for image, file in zip(job.images, files, strict=True):
        try:
            write_picture(file, client.picture(job.id, image))
        except CommandFailed as problem:
            raise CommandFailed(f"{problem} The picture is still at {client.url}{image.url}.") from None
    return [file.absolute() for file in files]
