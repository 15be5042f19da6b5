"""`imagefleet adapters`: LoRAs, ControlNets, embeddings, VAEs and upscalers of the library."""

import typer

from cli.entries import AsJson, add_commands, print_entries
from cli.fleet import open_client
from cli.output import print_json, print_table
from infra.settings import Settings

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Search adapters, and change what is said of them.")


@app.command("list")
def list_adapters(*, kind: str | None = None, as_json: AsJson = False) -> None:
    """List every adapter, of one kind if asked: lora, controlnet, embedding, vae, upscaler, preprocessor."""
    with open_client(Settings()) as client:
        found = list(client.library().entries(kind=kind, sort="name"))
    if as_json:
        print_json(found)
    else:
        print_entries(found, empty="No adapters. `imagefleet models scan FOLDER` looks for some.")


def tags(*, as_json: AsJson = False) -> None:
    """Count the tags of the adapters."""
    with open_client(Settings()) as client:
        found = client.library().tags(limit=1000).items
    if as_json:
        print_json(found)
    else:
        print_table(("tag", "adapters"), [(each.tag, str(each.count)) for each in found], empty="No tags.")


add_commands(app, "adapters")
