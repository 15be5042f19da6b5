"""`imagefleet generate`: draw pictures from a prompt and write them to files."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.failure import CommandFailed
from cli.fleet import open_client
from cli.following import follow, outcome
from cli.output import print_json
from cli.pictures import PictureFormat, Target, write_picture
from client.client import Client
from client.errors import ClientError
from infra.settings import Settings
from jobs.contract import JobView
from jobs.states import State


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    negative: Annotated[str | None, typer.Option("--negative", help="What not to draw.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Name of a model; see `imagefleet models list`.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed draws the same picture; left out, one is drawn.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    width: Annotated[int | None, typer.Option("--width", "-W", help="Pixels.")] = None,
    height: Annotated[int | None, typer.Option("--height", "-H", help="Pixels.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How closely to follow the prompt.")] = None,
    scheduler: Annotated[str | None, typer.Option(help='For example "DPM++ 2M Karras" or "Euler a".')] = None,
    num_images: Annotated[int, typer.Option("--num-images", "-n", help="How many; each has its own seed.")] = 1,
    picture_format: Annotated[
        PictureFormat | None, typer.Option("--format", help="By default that of the file's name.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file, or a folder.")] = None,
    hardware: Annotated[str | None, typer.Option(help="A hardware class (cpu, gpu-24g …) or a worker's tag.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the finished job as JSON.")] = False,
) -> None:
    """Draw pictures from a prompt, write the files and print their paths."""
    target = Target(output, picture_format)
    target.prepare()
    chosen = {
        "negative_prompt": negative,
        "model": model,
        "seed": seed,
        "steps": steps,
        "width": width,
        "height": height,
        "guidance_scale": guidance,
        "scheduler": scheduler,
        "hardware": hardware,
    }
    request: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    request |= {"task": "txt2img", "prompt": prompt, "num_images": num_images, "output": {"format": str(target.format)}}
    with open_client(Settings()) as client:
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
