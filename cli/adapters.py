"""`imagefleet adapters`: LoRAs, ControlNets, embeddings, VAEs, upscalers."""

import typer

from cli.model_uploads import upload
from cli.pulls import lookup, pull

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="LoRAs, ControlNets, embeddings, VAEs, upscalers: fetch and send them.",
)
app.command()(upload)
app.command()(pull)
app.command()(lookup)
