"""`imagefleet upscale`: enlarge a picture."""

from typing import Annotated, Any

import typer

from cli.generate import AsJson, Format, Hardware, Output
from cli.speaking.drawing import draw, picture
from cli.speaking.pictures import Target
from client.client import Client


def upscale(
    file: Annotated[str, typer.Argument(help="The picture: a file, upload:<id> or job:<id>/<n>.")],
    scale: Annotated[float | None, typer.Option(help="How many times larger; by default the upscaler's own.")] = None,
    upscaler: Annotated[str | None, typer.Option(help="A registered upscaler, lanczos or nearest.")] = None,
    refine: Annotated[str | None, typer.Option(help="Redraw the result in tiles, by this prompt.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="The model that redraws.")] = None,
    picture_format: Format = None,
    output: Output = None,
    hardware: Hardware = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Enlarge a picture, write the file and print its path."""
    chosen = {
        "scale": scale,
        "upscaler": upscaler,
        "refine": None if refine is None else {"prompt": refine},
        "model": model,
        "hardware": hardware,
    }
    request: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}

    def build(client: Client) -> dict[str, Any]:
        return request | {"task": "upscale", "image": picture(client, file)}

    draw(build, Target(output, picture_format), as_json=as_json)
