"""`imagefleet adapters`: LoRAs, ControlNets, embeddings, VAEs, upscalers."""

from typing import Annotated

import typer

from cli.output import print_json, print_table
from cli.speaking.advice import similar, suggest
from cli.speaking.entries import AsJson, add_commands, print_entries
from cli.speaking.fleet import open_client
from cli.speaking.model_uploads import upload
from cli.speaking.pulls import lookup, pull
from infra.settings import Settings

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="LoRAs, ControlNets, embeddings, VAEs, upscalers: search, change, fetch and send them.",
)


@app.command("list")
def list_adapters(
    *,
    kind: Annotated[
        str | None, typer.Option(help="lora, controlnet, embedding, vae, upscaler or preprocessor.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List every adapter, of one kind if asked."""
    with open_client(Settings()) as client:
        found = list(client.library().entries(kind=kind, sort="name"))
    if as_json:
        print_json(found)
    else:
        print_entries(found, empty="No adapters. `imagefleet models scan FOLDER` looks for some.")


@app.command()
def tags(*, as_json: AsJson = False) -> None:
    """Count the tags of the adapters."""
    with open_client(Settings()) as client:
        found = client.library().tags(limit=1000).items
    if as_json:
        print_json(found)
    else:
        print_table(("tag", "adapters"), [(each.tag, str(each.count)) for each in found], empty="No tags.")


add_commands(app, "adapters")
app.command()(upload)
app.command()(pull)
app.command()(lookup)
app.command()(similar)
app.command()(suggest)
