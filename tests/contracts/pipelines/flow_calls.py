"""What a user of plain diffusers would call for each task of the models that predict a flow, over weights of his own."""

import io
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

from jobs.contract import DiffusionJob, parse_parameters
from models_registry.entries import Kind, Layout, ModelEntry
from tests.contracts.pipelines.running import Result

#: The library ships no types for these classes.
_DIFFUSERS: Any = diffusers

WIDTH, HEIGHT = 64, 48
#: The mask of every case: sides on the borders of latent cells, so that plain diffusers sees the same one.
MASKED = np.s_[16:40, 8:48]


def _noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))


def _mask() -> Image.Image:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[MASKED] = 255
    return Image.fromarray(mask)


PICTURES = {
    f"upload:{name}": picture for name, picture in {"a" * 64: _noise(1), "b" * 64: _noise(2), "c" * 64: _mask()}.items()
}
SOURCE, EDGES, HOLE = PICTURES


def png(picture: Image.Image) -> bytes:
    """Return the file of a picture."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def job_of(own: Mapping[str, Any], changes: Mapping[str, Any]) -> DiffusionJob:
    """Return a job of three steps for the model `tiny`: with the fields that a file of tests has of its own, and those of one test."""
    common = {
        "task": "txt2img",
        "model": "tiny",
        "prompt": "a red circle",
        "width": WIDTH,
        "height": HEIGHT,
        "steps": 3,
    }
    usual = {"scheduler": "Euler", "seed": 7, "preview_every": 0}
    parameters = parse_parameters({**common, **usual, **own, **changes})
    assert isinstance(parameters, DiffusionJob)
    return parameters


def entry_of(folder: Path, family: str, variant: str, kind: Kind = Kind.CHECKPOINT, mark: str = "0") -> ModelEntry:
    """Describe a folder as the registry would."""
    return ModelEntry(
        name=folder.name,
        kind=kind,
        layout=Layout.DIFFUSERS,
        family=family,
        variant=variant,
        path=folder,
        fingerprint=mark * 64,
        components=(),
        native_size=64,
        latent_factor=8,
        latent_channels=16,
    )


_PIPES: Mapping[tuple[str, str, bool], str] = MappingProxyType(
    {
        ("sd3", "txt2img", False): "StableDiffusion3Pipeline",
        ("sd3", "img2img", False): "StableDiffusion3Img2ImgPipeline",
        ("sd3", "inpaint", False): "StableDiffusion3InpaintPipeline",
        ("sd3", "txt2img", True): "StableDiffusion3ControlNetPipeline",
        ("flux", "txt2img", False): "FluxPipeline",
        ("flux", "img2img", False): "FluxImg2ImgPipeline",
        ("flux", "inpaint", False): "FluxInpaintPipeline",
        ("flux", "txt2img", True): "FluxControlNetPipeline",
        ("flux", "img2img", True): "FluxControlNetImg2ImgPipeline",
        ("flux", "inpaint", True): "FluxControlNetInpaintPipeline",
        ("fill", "inpaint", False): "FluxFillPipeline",
        ("canny", "txt2img", False): "FluxControlPipeline",
        ("canny", "img2img", False): "FluxControlImg2ImgPipeline",
        ("qwenimage", "txt2img", False): "QwenImagePipeline",
        ("qwenimage", "img2img", False): "QwenImageImg2ImgPipeline",
        ("qwenimage", "inpaint", False): "QwenImageInpaintPipeline",
        ("qwenimage", "txt2img", True): "QwenImageControlNetPipeline",
    }
)
_NETWORKS = {"sd3": "SD3ControlNetModel", "flux": "FluxControlNetModel", "qwenimage": "QwenImageControlNetModel"}


class PlainFlows:
    """Draw with diffusers alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pipes: dict[tuple[str, str, int], Any] = {}

    def __call__(self, wanted: DiffusionJob) -> Result:
        """Draw what the parameters say."""
        generator = torch.Generator("cpu").manual_seed(wanted.seed)
        match wanted.task:
            case "img2img":
                return self._call("img2img", wanted, generator, image=PICTURES[SOURCE], strength=wanted.strength)
            case "inpaint":
                source, hole = PICTURES[SOURCE], PICTURES[HOLE]
                drawn = self._call(
                    "inpaint", wanted, generator, image=source, mask_image=hole, strength=wanted.strength
                )
                laid = np.asarray(source).copy()
                laid[MASKED] = drawn.picture[MASKED]
                return Result(drawn.latents, laid)
            case _:
                return self._txt2img(wanted, generator)

    def _txt2img(self, wanted: Any, generator: torch.Generator) -> Result:
        first = self._call("txt2img", wanted, generator)
        if wanted.hires is None:
            return first
        size = (int(WIDTH * wanted.hires.scale), int(HEIGHT * wanted.hires.scale))
        image: Any = Image.fromarray(first.picture).resize(size, Image.Resampling.LANCZOS)
        if wanted.hires.upscaler == "latent":
            latents = torch.from_numpy(first.latents)
            if latents.ndim == 3:
                latents = _DIFFUSERS.FluxPipeline._unpack_latents(latents, HEIGHT, WIDTH, 8)  # noqa: SLF001 - theirs
            image = torch.nn.functional.interpolate(latents, (size[1] // 8, size[0] // 8), mode="bicubic")
        changed = wanted.model_copy(update={"steps": wanted.hires.steps or wanted.steps})
        return self._call("img2img", changed, generator, size, image=image, strength=wanted.hires.strength)

    def _call(
        self,
        task: str,
        wanted: DiffusionJob,
        generator: torch.Generator,
        size: tuple[int, int] = (WIDTH, HEIGHT),
        **arguments: Any,
    ) -> Result:
        pipe = self._pipe(task, wanted)
        kept: dict[str, torch.Tensor] = {}

        def keep(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
            kept.update(tensors)
            return {}

        sd3, qwen = wanted.model.startswith("sd3"), wanted.model.startswith("qwenimage")
        guidance = {"true_cfg_scale" if qwen else "guidance_scale": wanted.guidance_scale}
        if sd3 or qwen:
            arguments["negative_prompt"] = wanted.negative_prompt
        elif "schnell" in wanted.model:
            arguments["max_sequence_length"] = 256
        image = pipe(
            wanted.prompt,
            width=size[0],
            height=size[1],
            num_inference_steps=wanted.steps,
            generator=generator,
            callback_on_step_end=keep,
            output_type="np",
            **guidance,
            **arguments,
            **_controls(wanted, size, task),
        ).images[0]
        if sd3 and task == "inpaint":
            # Its own decoding forgets the shift.
            own = kept["latents"] / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor
            image = pipe.image_processor.postprocess(pipe.vae.decode(own)[0].detach(), output_type="np")[0]
        return Result(kept["latents"].numpy(), (image * 255).round().astype(np.uint8))

    def _pipe(self, task: str, wanted: DiffusionJob) -> Any:
        networks = [control.model for control in wanted.controls if control.model is not None]
        key = (task, wanted.model, len(networks))
        if key not in self._pipes:
            kind = next(name for name in ("sd3", "fill", "canny", "flux", "qwenimage") if name in wanted.model)
            extra: dict[str, Any] = {}
            if networks:
                cls = getattr(diffusers, _NETWORKS[kind])
                read = [cls.from_pretrained(self._folder / name) for name in networks]
                extra["controlnet"] = read[0] if len(read) == 1 else read
                if kind == "qwenimage" and len(read) > 1:
                    # It takes one network alone, for several pictures.
                    extra["controlnet"] = _DIFFUSERS.QwenImageMultiControlNetModel(read[:1])
            if kind == "sd3" and not (self._folder / wanted.model / "text_encoder_3").exists():
                extra |= {"text_encoder_3": None, "tokenizer_3": None}
            pipe = getattr(diffusers, _PIPES[kind, task, bool(networks)]).from_pretrained(
                self._folder / wanted.model, local_files_only=True, **extra
            )
            pipe.set_progress_bar_config(disable=True)
            if kind == "sd3" and networks:
                pipe.vae.encode = _settled(pipe.vae.encode)
            self._pipes[key] = (pipe, pipe.scheduler.config)
        pipe, config = self._pipes[key]
        pipe.scheduler = plain_flow_scheduler(wanted.scheduler, config)
        return pipe


def plain_flow_scheduler(name: str, config: Any) -> Any:
    """Build the scheduler that a user of plain diffusers would."""
    if name == "Euler":
        return _DIFFUSERS.FlowMatchEulerDiscreteScheduler.from_config(config)
    settings = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": config["shift"]}
    return _DIFFUSERS.UniPCMultistepScheduler(**settings, use_dynamic_shifting=config["use_dynamic_shifting"])


def _controls(wanted: DiffusionJob, size: tuple[int, int], task: str) -> dict[str, Any]:
    if not wanted.controls:
        return {}
    pictures = [PICTURES[control.image].resize(size, Image.Resampling.LANCZOS) for control in wanted.controls]
    if wanted.controls[0].model is None:
        return {"control_image": pictures[0]}
    values: dict[str, list[Any]] = {
        "control_image": pictures,
        "controlnet_conditioning_scale": [control.scale for control in wanted.controls],
        "control_guidance_start": [control.start for control in wanted.controls],
        "control_guidance_end": [control.end for control in wanted.controls],
    }
    if len(pictures) == 1:
        return {name: value[0] for name, value in values.items()}
    modes = {"control_mode": [None] * len(pictures)} if "flux" in wanted.model and task != "txt2img" else {}
    return {**values, **modes}


def _settled(encode: Any) -> Any:
    """Take the process's own noise out of an encoding."""

    def settled(*args: Any) -> Any:
        return SimpleNamespace(latent_dist=SimpleNamespace(sample=encode(*args).latent_dist.mode))

    return settled
