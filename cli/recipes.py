"""`imagefleet recipes`: list, show, keep, draw and delete recipes."""

import base64
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.compose import stacked
from cli.failure import CommandFailed
from cli.output import print_json, print_table
from cli.speaking.fleet import open_client
from infra.settings import Settings

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List, show, keep, draw and delete recipes.")

Id = Annotated[str, typer.Argument(help="Id of the recipe.", metavar="ID")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_recipes(*, as_json: AsJson = False) -> None:
    """List one's own recipes, and those that others share."""
    with open_client(Settings()) as client:
        found = client.archives().recipes()
    if as_json:
        print_json(found)
        return
    rows = [(each["id"], each["name"], each["owner"], each["visibility"], _stack(each)) for each in found]
    print_table(("id", "name", "owner", "", "loras"), rows, empty="No recipes.")


@app.command()
def show(recipe: Id) -> None:
    """Show a recipe as JSON."""
    with open_client(Settings()) as client:
        print_json(client.archives().recipe(recipe))


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    *,
    prompt: Annotated[str, typer.Option(help="`<lora:name:weight>` in it joins the stack.")] = "",
    lora: Annotated[list[str] | None, typer.Option(help="NAME or NAME:WEIGHT.")] = None,
    job: Annotated[str | None, typer.Option(help="Take everything from what this job drew.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Share it.")] = False,
) -> None:
    """Keep a recipe."""
    wanted: dict[str, Any] = {"name": name, "visibility": "public" if public else "private"}
    wanted |= {"prompt": prompt} if prompt else {}
    wanted |= {"loras": [stacked(each) for each in lora]} if lora else {}
    wanted |= {"from_job": job} if job else {}
    with open_client(Settings()) as client:
        print_json(client.archives().create_recipe(wanted))


@app.command()
def read(
    picture: Annotated[Path, typer.Argument(help="A picture of ours or of A1111.")],
    *,
    name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what the picture tells.")] = False,
) -> None:
    """Read a recipe out of a picture's metadata, and keep it."""
    try:
        image = base64.b64encode(picture.read_bytes()).decode()
    except OSError as problem:
        raise CommandFailed(f"{picture} cannot be read: {problem.strerror}.") from None
    wanted = {"image": image, "dry_run": dry_run} | ({"name": name} if name else {})
    with open_client(Settings()) as client:
        print_json(client.archives().recipe_of_picture(wanted))


@app.command()
def draw(recipe: Id, *, seed: Annotated[int | None, typer.Option(help="-1 draws one.")] = None) -> None:
    """Draw a recipe."""
    with open_client(Settings()) as client:
        job = client.archives().generate_recipe(recipe, {} if seed is None else {"seed": seed})
    typer.echo(f"job {job['id']}")


@app.command()
def delete(recipe: Id) -> None:
    """Delete a recipe of one's own."""
    with open_client(Settings()) as client:
        client.archives().delete_recipe(recipe)


def _stack(recipe: dict[str, Any]) -> str:
    return ", ".join(
        f"{lora['name']} {lora['weight']:g}{' (missing)' if lora['missing'] else ''}" for lora in recipe["loras"]
    )
