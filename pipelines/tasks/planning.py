"""Which plan serves which task."""

from jobs.contract import DiffusionJob, Img2ImgParameters, InpaintParameters, Txt2ImgParameters
from pipelines.families.plan import Plan
from pipelines.tasks.img2img import plan_img2img
from pipelines.tasks.inpaint import plan_inpaint
from pipelines.tasks.setting import Setting
from pipelines.tasks.txt2img import plan_txt2img


def plan_task(parameters: DiffusionJob, setting: Setting) -> Plan:
    """Return how a picture of these parameters is drawn."""
    match parameters:
        case Txt2ImgParameters():
            return plan_txt2img(parameters, setting)
        case Img2ImgParameters():
            return plan_img2img(parameters, setting)
        case InpaintParameters():
            return plan_inpaint(parameters, setting)
