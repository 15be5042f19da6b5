"""`imagefleet generate`: draw pictures from a prompt, or from a prompt and a picture, and write them to files."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.speaking.drawing import draw, picture
from cli.speaking.pictures import PictureFormat, Target
from client.client import Client

Format = Annotated[PictureFormat | None, typer.Option("--format", help="By default that of the file's name.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="A file, or a folder.")]
Hardware = Annotated[str | None, typer.Option(help="A hardware class (cpu, gpu-24g …) or a worker's tag.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the finished job as JSON.")]


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw; <lora:name:weight> adds a LoRA.")],
    negative: Annotated[str | None, typer.Option("--negative", help="What not to draw.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Name of a model; see `imagefleet models list`.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed draws the same picture; left out, one is drawn.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    width: Annotated[int | None, typer.Option("--width", "-W", help="Pixels.")] = None,
    height: Annotated[int | None, typer.Option("--height", "-H", help="Pixels.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How closely to follow the prompt.")] = None,
    scheduler: Annotated[str | None, typer.Option(help='For example "DPM++ 2M Karras" or "Euler a".')] = None,
    num_images: Annotated[int, typer.Option("--num-images", "-n", help="How many; each has its own seed.")] = 1,
    image: Annotated[
        str | None, typer.Option(help="A picture to start from: a file, upload:<id> or job:<id>/<n>.")
    ] = None,
    mask: Annotated[str | None, typer.Option(help="White is drawn anew, the rest of --image is kept.")] = None,
    strength: Annotated[float | None, typer.Option(help="0 returns --image, 1 does not look at it.")] = None,
    lora: Annotated[list[str] | None, typer.Option(help="name or name:weight; may be repeated.")] = None,
    control: Annotated[
        list[str] | None, typer.Option(help="ControlNet=picture: a file, upload:<id> or job:<id>/<n>; may be repeated.")
    ] = None,
    preprocessor: Annotated[str | None, typer.Option(help="Makes the controls' pictures first: canny …")] = None,
    vae: Annotated[str | None, typer.Option(help="Another VAE than the model's own.")] = None,
    clip_skip: Annotated[int | None, typer.Option(help="1 skips nothing, 2 the last layer.")] = None,
    hires: Annotated[float | None, typer.Option(help="Draw a second pass, so many times larger.")] = None,
    picture_format: Format = None,
    output: Output = None,
    hardware: Hardware = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Draw pictures from a prompt, write the files and print their paths."""
    if mask is not None and image is None:
        raise typer.BadParameter("a mask needs a picture: --image", param_hint="--mask")
    chosen = {
        "negative_prompt": negative,
        "model": model,
        "seed": seed,
        "steps": steps,
        "width": width,
        "height": height,
        "guidance_scale": guidance,
        "scheduler": scheduler,
        "strength": strength,
        "vae": vae,
        "clip_skip": clip_skip,
        "hires": None if hires is None else {"scale": hires},
        "loras": [_lora(text) for text in lora or ()] or None,
        "hardware": hardware,
    }
    controls = [_control(text) for text in control or ()]
    request: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    task = "txt2img" if image is None else "img2img" if mask is None else "inpaint"
    request |= {"task": task, "prompt": prompt, "num_images": num_images}

    def build(client: Client) -> dict[str, Any]:
        pictures = {"image": image, "mask": mask}
        sent = {field: picture(client, given) for field, given in pictures.items() if given is not None}
        own = {} if preprocessor is None else {"preprocessor": preprocessor}
        guided = [{"model": name, "image": picture(client, given), **own} for name, given in controls]
        return request | sent | ({"controls": guided} if guided else {})

    draw(build, Target(output, picture_format), as_json=as_json)


def _lora(text: str) -> dict[str, Any]:
    """Read `name` or `name:weight`."""
    name, colon, weight = text.rpartition(":")
    if not colon:
        return {"name": text}
    try:
        return {"name": name, "weight": float(weight)}
    except ValueError:
        raise typer.BadParameter(f"{weight!r} is no weight: name or name:weight", param_hint="--lora") from None


def _control(text: str) -> tuple[str, str]:
    """Read `model=picture`."""
    name, equals, given = text.partition("=")
    if not equals or not name or not given:
        raise typer.BadParameter(f"{text!r} is not ControlNet=picture", param_hint="--control")
    return name, given
