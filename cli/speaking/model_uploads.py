"""`imagefleet adapters upload`: send a model's file in pieces; called again after a break it goes on where it was."""

import hashlib
import json
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from cli.failure import CommandFailed
from cli.output import plain, print_json
from cli.speaking.fleet import open_client
from client.client import Client
from client.errors import Invalid
from client.pull_views import TakenInView
from infra.files import make_private_folder, write_private
from infra.settings import Settings
from models_registry.entries import Kind

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def upload(
    file: Annotated[Path, typer.Argument(help="A safetensors file.", exists=True, dir_okay=False, readable=True)],
    *,
    name: Annotated[str | None, typer.Option(help="By default the file's own.")] = None,
    version: Annotated[str, typer.Option(help="Tells it from others of the same name.")] = "",
    kind: Annotated[Kind | None, typer.Option(help="What it must be.")] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", help="May be repeated.")] = None,
    trigger_words: Annotated[list[str] | None, typer.Option("--trigger-word", help="May be repeated.")] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    private: Annotated[bool, typer.Option("--private", help="For you alone.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send a model's file to the fleet and make it an entry; after a break, call it again: it goes on where it was."""
    settings = Settings()
    texts = {
        "name": name or file.stem,
        "version": version,
        "kind": "" if kind is None else kind.value,
        "description": description,
        "visibility": "private" if private else "public",
    }
    fields: dict[str, str | list[str]] = {field: text for field, text in texts.items() if text}
    fields |= {"tags": tags or [], "trigger_words": trigger_words or []}
    with open_client(settings) as client:
        made = _send(client, settings, file.absolute(), fields, quiet=as_json)
    if as_json:
        print_json(made)
    else:
        typer.echo(f"{plain(made.ref)}: {made.kind} for {made.family}, taken in")


def _send(
    client: Client, settings: Settings, file: Path, fields: dict[str, str | list[str]], *, quiet: bool
) -> TakenInView:
    note = _note(settings, client.url, file)
    upload = _begun(client, note, file)
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
        bar = progress.add_task(plain(file.name, 40), total=file.stat().st_size)
        client.model_files.send(upload, file, lambda there: progress.update(bar, completed=there))
        progress.update(bar, description="taking it in")
        try:
            made = client.model_files.finish(upload, fields)
        except Invalid as refusal:
            if refusal.field == "file":
                # The file itself is refused: sending the rest again would not help.
                note.unlink(missing_ok=True)
            raise
    note.unlink(missing_ok=True)
    return made


def _begun(client: Client, note: Path, file: Path) -> UUID:
    """Return the upload that was begun for this very file, or begin one."""
    try:
        known = client.model_files.received(UUID(json.loads(note.read_text(encoding="utf-8"))["upload"]))
    except (OSError, ValueError, KeyError, TypeError):
        known = None
    if known is not None and known.bytes == file.stat().st_size:
        return known.id
    upload = client.model_files.begin(file.stat().st_size)
    try:
        make_private_folder(note.parent)
        write_private(note, json.dumps({"upload": str(upload), "file": str(file)}))
    except OSError as problem:
        raise CommandFailed(f"{note.parent} cannot be written: {problem.strerror}.") from None
    return upload


def _note(settings: Settings, url: str, file: Path) -> Path:
    """Return where is written down which upload this file, as it is now, belongs to."""
    facts = file.stat()
    named = f"{url}\0{file}\0{facts.st_size}\0{facts.st_mtime_ns}"
    return settings.home.absolute() / "sending" / f"{hashlib.sha256(named.encode()).hexdigest()[:24]}.json"
