"""`imagefleet verify`: draw every task with every model at hand, and print what came of it."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import typer

from cli.failure import CommandFailed
from cli.output import plain, print_json, print_table
from cli.running.first_picture import wait_until_ready
from cli.running.folders import model_folders
from cli.speaking.fleet import open_client
from cli.verification.cases import Case, Pixels, cases
from cli.verification.checks import decoded, problem_of
from client.client import Client
from client.errors import ClientError
from infra.ports import free_port
from infra.settings import Settings
from jobs.contract import JobView

STOP_SECONDS: Final = 60.0


class Result(NamedTuple):
    """What came of one case."""

    model: str
    what: str
    right: bool
    said: str
    seconds: float | None
    worker: str | None


def verify(
    steps: Annotated[
        int | None, typer.Option(min=1, max=200, help="Denoising steps; by default each model's own.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="Only these models and adapters.")] = None,
    *,
    own: Annotated[
        bool, typer.Option("--own", help="Start a fleet of its own for it, in a temporary folder, and stop it again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draw every task with every model at hand and print a table; fail when one of them is not right."""
    with _own_fleet() if own else open_client(Settings()) as client:
        results = _run(client, steps, model or [])
    if as_json:
        print_json([result._asdict() for result in results])
    else:
        rows = [
            (
                result.model,
                result.what,
                "right" if result.right else "WRONG",
                "" if result.seconds is None else f"{result.seconds:.1f} s",
                result.worker or "",
                result.said,
            )
            for result in results
        ]
        print_table(("model", "task", "", "time", "worker", ""), rows, empty="No models to verify.")
    wrong = sum(not result.right for result in results)
    if wrong:
        raise CommandFailed(f"{wrong} of {len(results)} are not right.")
    typer.secho(f"All {len(results)} are right.", err=True)


def _run(client: Client, steps: int | None, only: list[str]) -> list[Result]:
    wanted = [
        case
        for case in cases(client.models().items, client.adapters().items, steps)
        if not only or any(name == case.model or case.model.startswith(f"{name} on ") for name in only)
    ]
    # All at once, because a fleet draws on every worker it has.
    jobs = [(case, _submit(client, case)) for case in wanted]
    pictures: dict[int, Pixels] = {}
    results = []
    for case, job in jobs:
        result = job if isinstance(job, Result) else _look(client, case, job, pictures)
        typer.secho(f"{'right' if result.right else 'WRONG'}  {plain(case.model)}: {case.what}", err=True, dim=True)
        results.append(result)
    return results


def _submit(client: Client, case: Case) -> JobView | Result:
    try:
        return client.submit(case.request)
    except ClientError as problem:
        return Result(case.model, case.what, right=False, said=str(problem), seconds=None, worker=None)


def _look(client: Client, case: Case, job: JobView, pictures: dict[int, Pixels]) -> Result:
    ended = client.wait(job.id)
    if ended.error is not None or not ended.images:
        said = f"{ended.error.message} ({ended.error.code})" if ended.error else f"is {ended.state}"
    else:
        found = pictures[id(case)] = decoded(client.picture(job.id, ended.images[0]))
        before = None if case.unlike is None else pictures.get(id(case.unlike))
        said = problem_of(case, found, before) or ""
    return Result(case.model, case.what, not said, plain(said), ended.seconds, ended.worker)


@contextlib.contextmanager
def _own_fleet() -> Iterator[Client]:
    """Run a fleet with the same models in a folder and on a port of its own."""
    with tempfile.TemporaryDirectory(prefix="imagefleet-") as folder:
        home, settings = Path(folder) / "home", Settings()
        models = os.pathsep.join(str(each) for each in model_folders(settings))
        environment = {**os.environ, "IMAGEFLEET_HOME": str(home), "IMAGEFLEET_MODELS": models}
        environment |= {"IMAGEFLEET_HOST": "127.0.0.1", "IMAGEFLEET_PORT": str(free_port())}
        for name in ("DATABASE_URL", "REDIS_URL", "STORAGE_URL", "URL", "API_KEY"):
            environment.pop(f"IMAGEFLEET_{name}", None)
        log = Path(folder) / "up.log"
        with log.open("wb") as output:
            running = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "up"], env=environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{environment['IMAGEFLEET_PORT']}"
            with Client(url, _key_of(home, running, log)) as client:
                wait_until_ready(client, 1, threading.Event())
                yield client
        finally:
            running.send_signal(signal.SIGINT)
            running.wait(STOP_SECONDS)


def _key_of(home: Path, running: "subprocess.Popen[bytes]", log: Path) -> str:
    """Return the first key once the fleet has made it."""
    pause = threading.Event()
    while not (home / "api-key").is_file():
        if running.poll() is not None:
            raise CommandFailed(f"The fleet did not start: {log.read_text(errors='replace').strip()[-500:]}")
        pause.wait(0.1)
    return (home / "api-key").read_text(encoding="ascii").strip()
