"""`imagefleet models pull`: let the fleet fetch a model, and watch it; `imagefleet models lookup`: ask CivitAI about those here."""

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from cli.failure import CommandFailed
from cli.output import plain, print_json
from cli.speaking.fleet import open_client
from client.pull_views import DownloadView, LookupView
from infra.settings import Settings
from models_registry.entries import Kind

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="May be repeated.")]


def pull(
    source: Annotated[
        str,
        typer.Argument(
            help="`owner/repo[:file][@revision]`, `civitai:<model>[@<version>]`, an AIR, or an https address."
        ),
    ],
    *,
    name: Annotated[str | None, typer.Option(help="By default what it is called at its source.")] = None,
    version: Annotated[str, typer.Option(help="Tells it from others of the same name.")] = "",
    kind: Annotated[Kind | None, typer.Option(help="What it must be.")] = None,
    sha256: Annotated[str | None, typer.Option(help="What the one file must hash to.")] = None,
    tags: Tags = None,
    private: Annotated[bool, typer.Option("--private", help="For you alone.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let the fleet fetch a model, and wait until it is there."""
    chosen = {"name": name, "kind": None if kind is None else kind.value, "sha256": sha256}
    fields = {field: value for field, value in chosen.items() if value is not None}
    with open_client(Settings()) as client:
        found = client.pulls.start(
            source,
            **fields,
            version=version,
            tags=tags or [],
            visibility="private" if private else "public",
        )
        if not detach:
            found = show_download(client.pulls.follow(found.id), found, quiet=as_json)
    if as_json:
        print_json(found)
    elif detach:
        typer.echo(f"Download {found.id} is {found.state}. `imagefleet downloads watch {found.id}` shows how it goes.")
    end_download(found, say=not as_json)


def lookup(*, as_json: AsJson = False) -> None:
    """Ask CivitAI about your entries by their hashes: trigger words, tags, pictures, where nobody wrote any."""
    with open_client(Settings()) as client:
        found = client.pulls.look_up()
        found = _show_lookup(client.pulls.follow_lookup(found.id), found, quiet=as_json)
    if as_json:
        print_json(found)
    else:
        typer.echo(f"{found.total} entries looked at, {found.found} known to CivitAI, {found.changed} changed.")
    if found.state == "failed":
        raise CommandFailed(plain(f"{found.error_message} ({found.error_code})"))


def show_download(news: Iterable[DownloadView], first: DownloadView, *, quiet: bool) -> DownloadView:
    """Show a download as a bar on standard error, and return it when it has ended or is paused."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    found = first
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
        bar = progress.add_task(_title(first), total=first.bytes_total, completed=first.bytes_done)
        for found in news:
            progress.update(bar, description=_title(found), total=found.bytes_total, completed=found.bytes_done)
    return found


def end_download(download: DownloadView, *, say: bool) -> None:
    """Say what became of a download; one that failed ends the command so."""
    if download.state == "failed":
        raise CommandFailed(plain(f"Download {download.id} failed: {download.error_message} ({download.error_code})"))
    if say and download.state == "succeeded":
        typer.echo(f"{plain(download.ref or '?')}: fetched")
    elif say and download.state in {"paused", "cancelled"}:
        typer.echo(f"Download {download.id} is {download.state}.")


def _show_lookup(news: Iterable[LookupView], first: LookupView, *, quiet: bool) -> LookupView:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    found = first
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
        bar = progress.add_task("entries", total=first.total)
        for found in news:
            waits = f"waiting: {found.error_message}" if found.error_message else "entries"
            progress.update(bar, description=plain(waits, 60), completed=found.done)
    return found


def _title(download: DownloadView) -> str:
    if download.state == "queued" and download.error_message:
        return plain(f"waiting: {download.error_message}", 60)
    return plain(download.name or download.source, 40)
