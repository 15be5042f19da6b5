"""`imagefleet results`: search pictures, show how one was drawn, fetch and delete them."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cli.failure import CommandFailed
from cli.output import age, plain, print_json, print_table, size
from cli.speaking.fleet import open_client
from cli.speaking.pictures import write_picture
from client.client import Client
from client.views import ResultView
from infra.settings import Settings
from jobs.contract import Image

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Search pictures, show and fetch them.")

#: What the server gives at once.
LARGEST_PAGE = 200
PROMPT_SHOWN = 60
_SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}

Query = Annotated[str | None, typer.Option("--query", "-q", help="Words of the prompt.")]
Model = Annotated[str | None, typer.Option(help="Of this model alone.")]
Batch = Annotated[str | None, typer.Option(help="Of this batch alone.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most, newest first.")]
Picture = Annotated[str, typer.Argument(help="A picture: <job>/<index>, or <job> for its first.", metavar="PICTURE")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_results(
    query: Query = None, model: Model = None, batch: Batch = None, limit: Limit = 20, *, as_json: AsJson = False
) -> None:
    """List pictures, newest first."""
    with open_client(Settings()) as client:
        found = _search(client, limit, q=query, model=model, batch=batch)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            f"{each.job}/{each.index}",
            f"{each.width} x {each.height}",
            size(each.bytes),
            each.model,
            age(each.finished_at),
            plain(each.prompt, PROMPT_SHOWN),
        )
        for each in found
    ]
    print_table(("picture", "size", "bytes", "model", "age", "prompt"), rows, empty="No pictures.")


@app.command()
def show(picture: Picture, *, as_json: AsJson = False) -> None:
    """Show how one picture was drawn."""
    with open_client(Settings()) as client:
        found = client.result(*_named(picture))
        url = client.url
    if as_json:
        print_json(found)
        return
    typer.echo(f"{url}{found.url}")
    typer.echo(f"{found.width} x {found.height}, {size(found.bytes)}, {plain(found.mime)}, seed {found.seed}")
    for name, value in found.request.items():
        if value not in (None, "", [], {}):
            typer.echo(f"{plain(name):<20} {plain(json.dumps(value, ensure_ascii=False))}")


@app.command()
def download(
    pictures: Annotated[list[str] | None, typer.Argument(help="<job>/<index> …", metavar="[PICTURE]…")] = None,
    folder: Annotated[Path, typer.Option("--output", "-o", help="A folder.", file_okay=False)] = Path(),
    query: Query = None,
    model: Model = None,
    batch: Batch = None,
    limit: Limit = 20,
) -> None:
    """Write pictures into a folder: those named, or those that a search finds; none is written over."""
    folder.mkdir(parents=True, exist_ok=True)
    with open_client(Settings()) as client:
        if pictures:
            found: list[ResultView] = [client.result(*_named(each)) for each in pictures]
        else:
            found = _search(client, limit, q=query, model=model, batch=batch)
        for each in found:
            path = folder / f"{each.job}-{each.index}{_SUFFIXES.get(each.mime, '')}"
            if not path.exists():
                image = Image(**each.model_dump(include=set(Image.model_fields)))
                write_picture(path, client.picture(each.job, image))
            typer.echo(path)


@app.command()
def delete(pictures: Annotated[list[str], typer.Argument(help="<job>/<index> …", metavar="PICTURE…")]) -> None:
    """Delete pictures."""
    with open_client(Settings()) as client:
        for each in pictures:
            client.delete_result(*_named(each))
            typer.echo(f"{each} deleted")


def _search(client: Client, limit: int, **query: str | None) -> list[ResultView]:
    found: list[ResultView] = []
    asked = {name: text for name, text in query.items() if text is not None}
    while len(found) < limit:
        page = client.results(**asked, limit=str(min(LARGEST_PAGE, limit - len(found))))
        found += page.items
        if page.next_cursor is None:
            break
        asked["cursor"] = page.next_cursor
    return found


def _named(picture: str) -> tuple[str, int]:
    job, _, index = picture.partition("/")
    if index and not (index.isascii() and index.isdigit()):
        raise CommandFailed(f"{plain(picture, 80)} is no picture: name it <job>/<index>.")
    return job, int(index or 0)
