"""`imagefleet downloads`: list, watch and steer what the fleet fetches."""

from typing import Annotated

import typer

from cli.output import age, plain, print_json, print_table, size
from cli.speaking.fleet import open_client
from cli.speaking.pulls import end_download, show_download
from client.pull_views import DownloadView
from infra.settings import Settings

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List, watch and steer what the fleet fetches.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Which = Annotated[str, typer.Argument(help="Id of the download.", metavar="ID")]


@app.command("list")
def list_all(
    *,
    state: Annotated[str | None, typer.Option(help="queued, running, paused, succeeded, failed or cancelled.")] = None,
    as_json: AsJson = False,
) -> None:
    """List downloads, newest first."""
    with open_client(Settings()) as client:
        found = client.pulls.list(state=state).items
    if as_json:
        print_json(found)
        return
    titles = ("id", "state", "fetched", "age", "name", "source", "")
    print_table(
        titles, [_row(each) for each in found], empty="No downloads. `imagefleet models pull SOURCE` starts one."
    )


@app.command()
def show(download: Which) -> None:
    """Print a download as JSON."""
    with open_client(Settings()) as client:
        print_json(client.pulls.read(download))


@app.command()
def watch(download: Which, *, as_json: AsJson = False) -> None:
    """Show how a download goes until it has ended."""
    with open_client(Settings()) as client:
        found = show_download(client.pulls.follow(download), client.pulls.read(download), quiet=as_json)
    if as_json:
        print_json(found)
    end_download(found, say=not as_json)


@app.command()
def pause(download: Which) -> None:
    """Stop a download for now; what is there stays."""
    with open_client(Settings()) as client:
        _say(client.pulls.pause(download))


@app.command()
def resume(download: Which) -> None:
    """Go on with a download that was paused or that failed."""
    with open_client(Settings()) as client:
        _say(client.pulls.resume(download))


@app.command()
def cancel(download: Which) -> None:
    """Stop a download for good."""
    with open_client(Settings()) as client:
        _say(client.pulls.cancel(download))


def _say(download: DownloadView) -> None:
    typer.echo(f"{download.id} {download.state}")


def _row(download: DownloadView) -> tuple[str, ...]:
    total = "?" if download.bytes_total is None else size(download.bytes_total)
    return (
        str(download.id),
        download.state,
        f"{size(download.bytes_done)} of {total}",
        age(download.created_at),
        download.ref or download.name or "",
        download.source,
        plain(download.error_message or ""),
    )
