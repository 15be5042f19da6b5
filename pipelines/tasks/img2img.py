"""Image to image: noise is laid over a picture and taken away again under a prompt."""

from PIL import Image

from jobs.contract import Img2ImgParameters
from jobs.geometry import Size, denoising_steps
from pipelines.decoding import decode_picture
from pipelines.families.plan import Plan
from pipelines.resizing import resize
from pipelines.tasks.controls import guided_by
from pipelines.tasks.setting import Setting, make_pass
from pipelines.tasks.txt2img import from_noise


def plan_img2img(parameters: Img2ImgParameters, setting: Setting) -> Plan:
    """Draw over a picture: at strength 0 it comes back as it is, at 1 it is not looked at, and the drawing is that of the prompt alone."""
    size, mode = Size(parameters.width, parameters.height), parameters.resize_mode
    source = resize(decode_picture(setting.inputs.picture(parameters.image)), size, mode)
    count = denoising_steps(parameters.steps, parameters.strength)
    if count == 0:
        return Plan((), given=source)
    # A refiner draws over pictures and nothing else: at strength 1 it sees hardly anything of them.
    alone = parameters.strength >= 1 and setting.pipes.draws("txt2img")
    guided = guided_by(
        setting,
        parameters.controls,
        lambda picture: resize(picture, size, mode),
        task="txt2img" if alone else "img2img",
    )
    if alone:
        return Plan([from_noise(parameters, setting, guided)], setting.applied)
    drawn = make_pass(
        setting,
        "img2img",
        guided,
        size,
        steps=parameters.steps,
        count=count,
        arguments={"image": Image.fromarray(source), "strength": setting.strength(count, parameters.steps)},
    )
    return Plan([drawn], setting.applied)
