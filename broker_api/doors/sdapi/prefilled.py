"""Fill what a request leaves out from an infotext it carries, as A1111's field `infotext` does; pure."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from jobs.prompts.infotext import parse_infotext

_PLAIN: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = MappingProxyType(
    {
        "Steps": ("steps", int),
        "Sampler": ("sampler_name", str),
        "Schedule type": ("scheduler", str),
        "CFG scale": ("cfg_scale", float),
        "Seed": ("seed", int),
        "Denoising strength": ("denoising_strength", float),
        "Hires upscale": ("hr_scale", float),
        "Hires steps": ("hr_second_pass_steps", int),
        "Hires upscaler": ("hr_upscaler", str),
        "Mask blur": ("mask_blur", int),
    }
)
_SETTINGS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = MappingProxyType(
    {
        "Model": ("sd_model_checkpoint", str),
        "VAE": ("sd_vae", str),
        "Clip skip": ("CLIP_stop_at_last_layers", int),
    }
)


def prefilled(body: object) -> object:
    """Return the decoded body with what its `infotext` says in place of what it leaves out; a set field wins."""
    if not isinstance(body, dict) or not isinstance(body.get("infotext"), str) or not body["infotext"].strip():
        return body
    said = parse_infotext(body["infotext"])
    found: dict[str, Any] = {"prompt": said.prompt, "negative_prompt": said.negative_prompt}
    found |= _converted(_PLAIN, said.fields)
    width, mark, height = said.fields.get("Size", "").partition("x")
    if mark and width.strip().isdigit() and height.strip().isdigit():
        found |= {"width": int(width), "height": int(height)}
    if "hr_scale" in found or "hr_upscaler" in found:
        found["enable_hr"] = True
    given = {key: value for key, value in body.items() if value is not None}
    settings = _converted(_SETTINGS, said.fields)
    chosen = given.get("override_settings", {})
    merged = {**settings, **chosen} if isinstance(chosen, dict) else chosen
    return {**found, **given, "override_settings": merged}


def _converted(names: Mapping[str, tuple[str, Callable[[str], Any]]], fields: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    for written, (name, convert) in names.items():
        if written in fields:
            try:
                found[name] = convert(fields[written])
            except ValueError:
                continue
    return found
