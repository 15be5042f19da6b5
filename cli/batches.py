"""`imagefleet batches`: list, show, cancel and watch batches, and fetch their pictures."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from cli.failure import CommandFailed
from cli.output import age, plain, print_json, print_table
from cli.speaking.fleet import open_client
from cli.speaking.pictures import Target, write_picture
from client.views import FINAL_EVENTS, BatchView
from infra.settings import Settings

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List, show, cancel and watch batches.")

#: What the server gives at once.
LARGEST_PAGE = 200

Id = Annotated[str, typer.Argument(help="Id of the batch.", metavar="ID")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_batches(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most, newest first.")] = 20,
    *,
    as_json: AsJson = False,
) -> None:
    """List batches, newest first."""
    found: list[BatchView] = []
    with open_client(Settings()) as client:
        cursor: str | None = None
        while len(found) < limit:
            page = client.batches(cursor=cursor, limit=min(LARGEST_PAGE, limit - len(found)))
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
    if as_json:
        print_json(found)
        return
    rows = [(str(batch.id), batch.state, str(batch.size), age(batch.created_at), _counts(batch)) for batch in found]
    print_table(("id", "state", "jobs", "age", "of which"), rows, empty="No batches.")


@app.command()
def show(batch: Id, *, as_json: AsJson = False) -> None:
    """Show one batch and its jobs."""
    with open_client(Settings()) as client:
        found, jobs = client.batch(batch), list(client.batch_jobs(batch))
    if as_json:
        print_json({**found.model_dump(mode="json"), "jobs": jobs})
        return
    typer.echo(f"{found.id} {found.state}: {_counts(found)}")
    rows = [(str(job.id), job.state, f"{job.progress.step}/{job.progress.steps}", job.model) for job in jobs]
    print_table(("id", "state", "steps", "model"), rows, empty="Its jobs are deleted.")


@app.command()
def cancel(batch: Id, *, as_json: AsJson = False) -> None:
    """Cancel all jobs of a batch: waiting ones at once, running ones within a step."""
    with open_client(Settings()) as client:
        found = client.cancel_batch(batch)
    if as_json:
        print_json(found)
        return
    typer.echo(f"{found.id} {found.state}: {_counts(found)}")


@app.command()
def watch(batch: Id, *, as_json: AsJson = False) -> None:
    """Say how each job of a batch ends, until all have; fails when one did."""
    ended: Counter[str] = Counter()
    with open_client(Settings()) as client:
        for event in client.follow(batches=[batch]):
            if event.type in FINAL_EVENTS:
                ended[event.type] += 1
                if not as_json:
                    typer.echo(f"{event.job} {event.type}")
        if as_json:
            print_json(client.batch(batch))
    lost = ended.total() - ended["succeeded"]
    if lost:
        raise CommandFailed(f"{lost} of {ended.total()} jobs did not succeed.")


@app.command()
def download(
    batch: Id, folder: Annotated[Path, typer.Option("--output", "-o", help="A folder.", file_okay=False)] = Path()
) -> None:
    """Write the pictures of a batch's finished jobs into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with open_client(Settings()) as client:
        for job in client.batch_jobs(batch):
            for path, image in zip(Target(folder, None).paths(job), job.images, strict=True):
                write_picture(path, client.picture(job.id, image))
                typer.echo(path)


def _counts(batch: BatchView) -> str:
    return plain(", ".join(f"{number} {state}" for state, number in batch.counts.items() if number))
