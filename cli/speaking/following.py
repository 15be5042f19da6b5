"""Follow a job on the terminal until it has ended."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cli.output import plain
from client.client import Client
from client.views import Event
from jobs.contract import JobView
from jobs.states import TERMINAL


def follow(client: Client, job: JobView, *, quiet: bool = False) -> JobView:
    """Show how a job goes on standard error, and return it when it has ended."""
    if job.state in TERMINAL:
        return job
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
        bar = progress.add_task(_waiting(job), total=job.progress.steps, completed=job.progress.step)

        def look_again() -> None:
            progress.update(bar, description=_waiting(client.read(job.id)))

        for event in client.events(job.id, on_silence=look_again):
            _show(progress, bar, event)
    return client.read(job.id)


def outcome(job: JobView) -> str:
    """Say in one sentence how a job ended, or that it has not."""
    if job.error is not None:
        return f"Job {job.id} failed: {plain(job.error.message)} ({job.error.code})"
    return f"Job {job.id} is {job.state}."


def _show(progress: Progress, bar: TaskID, event: Event) -> None:
    data = event.data
    if event.type == "started":
        progress.update(bar, description=plain(f"drawing on {data.get('worker', '?')}"), completed=0)
    elif event.type == "requeued":
        progress.update(bar, description=plain(f"waiting again: {data.get('reason', '?')}"), completed=0)
    elif event.type == "progress":
        progress.update(bar, completed=data.get("step", 0), total=data.get("steps"))


def _waiting(job: JobView) -> str:
    if job.state != "queued":
        return plain(f"drawing on {job.worker or '?'}")
    place = f" (number {job.position})" if job.position and job.position > 1 else ""
    return plain(f"waiting for {job.waiting_for or 'a free worker'}{place}", 70)
