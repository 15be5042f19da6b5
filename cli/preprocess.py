"""`imagefleet preprocess`: turn a picture into a control picture."""

from typing import Annotated, Any

import typer

from cli.generate import AsJson, Format, Hardware, Output
from cli.speaking.drawing import draw, picture
from cli.speaking.pictures import Target
from client.client import Client


def preprocess(
    preprocessor: Annotated[str, typer.Argument(help="For example canny.")],
    file: Annotated[str, typer.Argument(help="The picture: a file, upload:<id> or job:<id>/<n>.")],
    option: Annotated[list[str] | None, typer.Option(help="name=value; may be repeated.")] = None,
    picture_format: Format = None,
    output: Output = None,
    hardware: Hardware = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Make a control picture, write the file and print its path."""
    options = dict(_option(text) for text in option or ())

    def build(client: Client) -> dict[str, Any]:
        request: dict[str, Any] = {
            "task": "preprocess",
            "preprocessor": preprocessor,
            "image": picture(client, file),
            "preprocessor_options": options,
        }
        return request if hardware is None else request | {"hardware": hardware}

    draw(build, Target(output, picture_format), as_json=as_json)


def _option(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not name=number", param_hint="--option") from None
