"""`imagefleet workers`: who draws, what waits for them, and who is to rest."""

from typing import Annotated

import typer

from cli.output import age, print_json, print_table, size
from cli.speaking.fleet import open_client
from client.views import QueueView, WorkerView
from infra.settings import Settings

app = typer.Typer(add_completion=False, invoke_without_command=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="The worker's name, as the list shows it.")]


@app.callback()
def workers(context: typer.Context, *, as_json: AsJson = False) -> None:
    """List the workers, and the queues in which something waits; let one rest, or take jobs again."""
    if context.invoked_subcommand is not None:
        return
    with open_client(Settings()) as client:
        found, queues = client.workers().items, client.queues().items
    if as_json:
        print_json({"workers": found, "queues": queues})
        return
    titles = ("name", "state", "device", "memory", "serves", "warm", "seen")
    print_table(titles, [_worker_row(worker) for worker in found], empty="No workers. `imagefleet worker` starts one.")
    waiting = [queue for queue in queues if queue.queued or queue.running]
    if waiting:
        typer.echo()
        headings = ("queue", "waiting", "running", "workers", "longest wait")
        print_table(headings, [_queue_row(queue) for queue in waiting], empty="")


@app.command()
def drain(name: Name, *, as_json: AsJson = False) -> None:
    """Let a worker finish what it has begun and take no more, until it is resumed; for admins."""
    with open_client(Settings()) as client:
        changed = client.drain_worker(name)
    if as_json:
        print_json(changed)
        return
    typer.echo(f"{changed.name} takes no more jobs until it is resumed.")


@app.command()
def resume(name: Name, *, as_json: AsJson = False) -> None:
    """Let a worker take jobs again; for admins."""
    with open_client(Settings()) as client:
        changed = client.resume_worker(name)
    if as_json:
        print_json(changed)
        return
    typer.echo(f"{changed.name} takes jobs again.")


def _worker_row(worker: WorkerView) -> tuple[str, ...]:
    state = worker.state if worker.online else "offline"
    serves, warm = ", ".join(worker.serves), ", ".join(name.partition("@")[0] for name in worker.warm)
    return (
        worker.name,
        state,
        worker.device_name,
        size(worker.memory_bytes),
        serves,
        warm,
        f"{age(worker.seen_at)} ago",
    )


def _queue_row(queue: QueueView) -> tuple[str, ...]:
    wait = "" if queue.oldest_wait_s is None else f"{queue.oldest_wait_s:.0f} s"
    return (queue.name, str(queue.queued), str(queue.running), str(queue.workers), wait)
