"""`imagefleet jobs`: list, show, reorder, cancel, delete and watch jobs."""

from typing import Annotated

import typer

from cli.failure import CommandFailed
from cli.output import age, plain, print_json, print_table
from cli.speaking.fleet import open_client
from cli.speaking.following import follow, outcome
from client.errors import ClientError
from infra.settings import Settings
from jobs.contract import DiffusionParameters, JobView
from jobs.states import TERMINAL, State

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="List, show, reorder, cancel, delete and watch jobs."
)

#: What the server gives at once.
LARGEST_PAGE = 200
PROMPT_SHOWN = 60

Id = Annotated[str, typer.Argument(help="Id of the job.", metavar="ID")]
Ids = Annotated[list[str], typer.Argument(help="Ids of the jobs.", metavar="ID…")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_jobs(
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most, newest first.")] = 20,
    *,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    found: list[JobView] = []
    with open_client(Settings()) as client:
        cursor: str | None = None
        while len(found) < limit:
            page = client.list(state=state, cursor=cursor, limit=min(LARGEST_PAGE, limit - len(found)))
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
    if as_json:
        print_json(found)
        return
    rows = [
        (
            str(job.id),
            job.state,
            _progress(job),
            job.model,
            age(job.created_at),
            plain(_prompt(job), PROMPT_SHOWN),
        )
        for job in found
    ]
    print_table(("id", "state", "steps", "model", "age", "prompt"), rows, empty="No jobs.")


@app.command()
def show(job: Id, *, as_json: AsJson = False) -> None:
    """Show one job."""
    with open_client(Settings()) as client:
        found = client.read(job)
        url = client.url
    if as_json:
        print_json(found)
        return
    for title, text in _facts(found, url):
        typer.echo(f"{title:<12} {plain(text)}")


@app.command()
def cancel(jobs: Ids) -> None:
    """Cancel jobs: waiting ones at once, running ones within a step."""
    with open_client(Settings()) as client:
        for job in jobs:
            found = client.cancel(job)
            typer.echo(f"{found.id} {'stops within a step' if found.state not in TERMINAL else f'is {found.state}'}")


@app.command()
def priority(
    job: Id, priority: Annotated[int, typer.Argument(min=0, max=9, help="0 first, 9 last.", metavar="PRIORITY")]
) -> None:
    """Give a job that waits another priority."""
    with open_client(Settings()) as client:
        found = client.change_priority(job, priority)
    place = "" if found.position is None else f", number {found.position} in its queue"
    typer.echo(f"{found.id} has priority {found.request.priority}{place}")


@app.command()
def delete(jobs: Ids) -> None:
    """Delete jobs that have ended, and their pictures."""
    failed = 0
    with open_client(Settings()) as client:
        for job in jobs:
            try:
                client.delete(job)
                typer.echo(f"{job} deleted")
            except ClientError as problem:
                if len(jobs) == 1:
                    raise
                failed += 1
                typer.secho(f"{plain(job)} {problem}", err=True, fg="red")
    if failed:
        raise CommandFailed(f"{failed} of {len(jobs)} jobs were not deleted.")


@app.command()
def watch(job: Id, *, as_json: AsJson = False) -> None:
    """Follow one job until it has ended; fails when the job did."""
    with open_client(Settings()) as client:
        found = follow(client, client.read(job), quiet=as_json)
        url = client.url
    if as_json:
        print_json(found)
    if found.state is not State.SUCCEEDED:
        raise CommandFailed(outcome(found))
    if not as_json:
        for image in found.images:
            typer.echo(f"{url}{image.url}")


def _progress(job: JobView) -> str:
    return f"{job.progress.step}/{job.progress.steps}"


def _prompt(job: JobView) -> str:
    return job.request.prompt if isinstance(job.request, DiffusionParameters) else ""


def _diffusion_facts(request: DiffusionParameters) -> list[tuple[str, str | None]]:
    return [
        ("negative", request.negative_prompt or None),
        ("guidance", f"{request.guidance_scale:g}"),
        ("scheduler", " ".join(filter(None, (request.scheduler, request.schedule_type)))),
    ]


def _facts(job: JobView, url: str) -> list[tuple[str, str]]:
    request = job.request
    facts: list[tuple[str, str | None]] = [
        ("id", str(job.id)),
        ("state", f"{job.state}, to be cancelled" if job.cancel_requested and job.state not in TERMINAL else job.state),
        ("waits for", job.waiting_for),
        ("position", str(job.position) if job.position else None),
        ("error", f"{job.error.message} ({job.error.code})" if job.error else None),
        ("task", job.task),
        ("model", job.model),
        ("prompt", _prompt(job) or None),
        *(_diffusion_facts(request) if isinstance(request, DiffusionParameters) else ()),
        ("size", f"{request.width} x {request.height}"),
        ("steps", _progress(job)),
        ("seed", str(request.seed)),
        ("queue", job.queue),
        ("priority", str(request.priority)),
        ("worker", job.worker),
        ("created", f"{job.created_at:%Y-%m-%d %H:%M:%S %Z} ({age(job.created_at)} ago)"),
        ("took", f"{job.seconds:.1f} s" if job.seconds is not None else None),
        ("attempts", str(job.attempts) if job.attempts else None),
        ("losses", str(job.losses) if job.losses else None),
        *(("picture", f"{url}{image.url}") for image in job.images),
    ]
    return [(title, text) for title, text in facts if text is not None]
