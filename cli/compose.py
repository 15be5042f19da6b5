"""`imagefleet compose`: turn adapters into a prompt, and draw it."""

from typing import Annotated, Any

import typer

from cli.output import plain, print_json
from cli.speaking.fleet import open_client
from infra.settings import Settings


def compose(
    prompt: Annotated[str, typer.Argument(help="What to draw, beside what the adapters say.")] = "",
    *,
    recipe: Annotated[str | None, typer.Option(help="Id or name of a recipe, in place of what is active.")] = None,
    lora: Annotated[list[str] | None, typer.Option(help="NAME or NAME:WEIGHT, in place of what is active.")] = None,
    model: Annotated[str | None, typer.Option(help="The checkpoint.")] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Submit the job at once.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Turn the active adapters, a recipe or a list into a prompt."""
    wanted: dict[str, Any] = {"prompt": prompt, "recipe": recipe, "model": model, "submit": submit}
    if lora:
        wanted["loras"] = [stacked(each) for each in lora]
    with open_client(Settings()) as client:
        found = client.archives().compose({name: value for name, value in wanted.items() if value is not None})
    if as_json:
        print_json(found)
        return
    typer.echo(plain(found["prompt"]))
    if found["negative_prompt"]:
        typer.echo(f"not: {plain(found['negative_prompt'])}")
    for warning in found["warnings"]:
        typer.secho(plain(warning), fg="yellow", err=True)
    if found["job"] is not None:
        typer.echo(f"job {found['job']['id']}")


def stacked(text: str) -> dict[str, Any]:
    """Read `NAME` or `NAME:WEIGHT`."""
    name, colon, weight = text.rpartition(":")
    try:
        return {"name": name, "weight": float(weight)} if colon else {"name": text}
    except ValueError:
        return {"name": text}
