"""Draw one picture as soon as the fleet can, so that whoever started it sees that it works."""

import threading
import time
from pathlib import Path
from typing import Final

from rich.console import Console

from cli.failure import CommandFailed
from client.client import Client
from client.errors import ClientError, FleetUnreachable, Unavailable
from jobs.states import TERMINAL

READY_SECONDS: Final = 180.0
PAUSE_SECONDS: Final = 0.25


def wait_until_ready(client: Client, workers: int, stop: threading.Event) -> bool:
    """Wait for the API and for as many workers; False when told to stop meanwhile. Raises CommandFailed."""
    end = time.monotonic() + READY_SECONDS
    problem = "its workers have not registered"
    while not stop.is_set():
        try:
            if sum(worker.online for worker in client.workers().items) >= workers:
                return True
        except (FleetUnreachable, Unavailable) as reason:
            problem = str(reason)
        if time.monotonic() > end:
            raise CommandFailed(f"The fleet did not come up within {READY_SECONDS:.0f} s: {problem}.")
        stop.wait(PAUSE_SECONDS)
    return False


def draw_first_picture(
    client: Client, prompt: str, folder: Path, console: Console, stop: threading.Event
) -> Path | None:
    """Draw a prompt with every default, write the file and return its path; None when it failed (which is said) or was stopped."""
    try:
        with console.status(f"Drawing “{prompt}” …"):
            view = client.submit({"task": "txt2img", "prompt": prompt})
            while view.state not in TERMINAL:
                if stop.wait(PAUSE_SECONDS):
                    return None
                view = client.read(view.id)
        if view.error is not None:
            console.print(f"[red]The first picture failed: {view.error.message}[/red]", highlight=False)
            return None
        image = view.images[0]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{view.id}-{image.index}.{image.mime.partition('/')[2]}"
        path.write_bytes(client.picture(view.id, image))
    except ClientError as problem:
        console.print(f"[red]The first picture failed: {problem}[/red]", highlight=False)
        return None
    return path
