"""`imagefleet adapters`: LoRAs, ControlNets, embeddings, VAEs, upscalers."""

import typer

from cli.advice import similar, suggest
from cli.model_uploads import upload
from cli.pulls import lookup, pull

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="LoRAs, ControlNets, embeddings, VAEs, upscalers: fetch, send and find them.",
)
app.command()(upload)
app.command()(pull)
app.command()(lookup)
app.command()(similar)
app.command()(suggest)
