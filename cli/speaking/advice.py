"""`imagefleet adapters similar` and `suggest`: find adapters like one, for a prompt, or to use together, with the reasons."""

from typing import Annotated

import typer

from cli.output import print_json, print_table
from cli.speaking.fleet import open_client
from client.views import Recommendations
from infra.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option(min=1, max=50, help="So many at most.")]
Sources = Annotated[
    str | None, typer.Option(help="Hear only these: `weights`, `text`, `use`, separated by commas.", metavar="LIST")
]
Wait = Annotated[float, typer.Option(min=0, max=60, help="Wait so many seconds for the fleet to look at what is new.")]


def similar(
    adapter: Annotated[str, typer.Argument(help="Its name, as jobs name it, or its id.")],
    *,
    together: Annotated[
        bool, typer.Option("--together", help="What works together with it, not what is like it.")
    ] = False,
    sources: Sources = None,
    limit: Limit = 10,
    wait: Wait = 10,
    as_json: AsJson = False,
) -> None:
    """Find adapters like one."""
    with open_client(Settings()) as client:
        ask = client.together if together else client.similar
        found = ask(adapter, sources=sources, limit=limit, wait=wait)
    _show(found, as_json=as_json)


def suggest(
    prompt: Annotated[str, typer.Argument(help="The prompt to find adapters for.")],
    *,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only what fits this checkpoint.")] = None,
    sources: Sources = None,
    limit: Limit = 10,
    wait: Wait = 10,
    as_json: AsJson = False,
) -> None:
    """Find adapters for a prompt."""
    with open_client(Settings()) as client:
        found = client.suggest(prompt, model=model, sources=sources, limit=limit, wait=wait)
    _show(found, as_json=as_json)


def _show(found: Recommendations, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    rows = [(item.adapter.ref, item.adapter.kind, f"{item.score:.2f}", item.why) for item in found.items]
    print_table(("name", "kind", "score", "why"), rows, empty="Nothing to recommend.")
    for source, report in found.sources.items():
        if report.state in {"waiting", "unavailable"}:
            typer.secho(f"{source}: {report.why}", fg="yellow", err=True)
