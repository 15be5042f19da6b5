"""What A1111's and SD.Next's clients send: unknown fields are ignored, null counts as absent, texts become numbers as FastAPI allows."""

from typing import Any, Final

from pydantic import BaseModel, Field

from broker_api.doors.lenient import Lenient
from jobs.parts import MAX_SIDE

#: So many pictures one request may ask for.
MOST_PICTURES: Final = 64


class Generation(Lenient):
    """What txt2img and img2img have in common; None takes the model's own default."""

    prompt: str = ""
    negative_prompt: str = ""
    styles: list[str] | None = None
    seed: int = -1
    subseed: int = -1
    subseed_strength: float = 0.0
    seed_resize_from_h: int = -1
    seed_resize_from_w: int = -1
    sampler_name: str | None = None
    #: SD.Next sends a number here, which nobody reads.
    sampler_index: str | int | None = None
    scheduler: str | None = None
    batch_size: int = Field(default=1, ge=1, le=MOST_PICTURES)
    n_iter: int = Field(default=1, ge=1, le=MOST_PICTURES)
    steps: int | None = None
    cfg_scale: float | None = None
    distilled_cfg_scale: float | None = None
    width: int | None = None
    height: int | None = None
    restore_faces: bool | None = None
    tiling: bool | None = None
    do_not_save_samples: bool = False
    do_not_save_grid: bool = False
    eta: float | None = None
    denoising_strength: float | None = None
    s_min_uncond: float | None = None
    s_churn: float | None = None
    s_tmax: float | None = None
    s_tmin: float | None = None
    s_noise: float | None = None
    override_settings: dict[str, Any] = Field(default_factory=dict)
    override_settings_restore_afterwards: bool = True
    refiner_checkpoint: str | None = None
    refiner_switch_at: float | None = None
    disable_extra_networks: bool = False
    comments: dict[str, Any] | None = None
    script_name: str | None = None
    script_args: list[Any] = Field(default_factory=list)
    alwayson_scripts: dict[str, Any] = Field(default_factory=dict)
    send_images: bool = True
    save_images: bool = False
    force_task_id: str | None = Field(default=None, max_length=150)
    infotext: str | None = None
    # SD.Next's own.
    sd_model_checkpoint: str | None = None
    clip_skip: int | None = None
    guidance_scale: float | None = None
    samples_format: str | None = None
    jpeg_quality: int | None = None
    control_units: list[dict[str, Any]] = Field(default_factory=list)
    detailer_enabled: bool = False
    enhance_prompt: bool = False


class Txt2Img(Generation):
    """The body of txt2img."""

    enable_hr: bool = False
    firstphase_width: int = Field(default=0, le=MAX_SIDE)
    firstphase_height: int = Field(default=0, le=MAX_SIDE)
    hr_scale: float = 2.0
    hr_upscaler: str | None = None
    hr_second_pass_steps: int = 0
    hr_resize_x: int = Field(default=0, le=MAX_SIDE)
    hr_resize_y: int = Field(default=0, le=MAX_SIDE)
    hr_checkpoint_name: str | None = None
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_prompt: str = ""
    hr_negative_prompt: str = ""
    hr_denoising_strength: float | None = None
    firstpass_image: str | None = None


class Img2Img(Generation):
    """The body of img2img."""

    init_images: list[str] = Field(default_factory=list)
    resize_mode: int = 0
    image_cfg_scale: float | None = None
    mask: str | None = None
    mask_blur: int | None = None
    mask_blur_x: int = 4
    mask_blur_y: int = 4
    mask_round: bool = True
    inpainting_fill: int = 0
    inpaint_full_res: bool = True
    inpaint_full_res_padding: int = 0
    inpainting_mask_invert: int = 0
    initial_noise_multiplier: float | None = None
    latent_mask: str | None = None
    include_init_images: bool = False


class Extras(Lenient):
    """What both forms of extras have in common."""

    resize_mode: int = Field(default=0, ge=0, le=1)
    show_extras_results: bool = True
    gfpgan_visibility: float = Field(default=0, ge=0, le=1)
    codeformer_visibility: float = Field(default=0, ge=0, le=1)
    codeformer_weight: float = Field(default=0, ge=0, le=1)
    upscaling_resize: float = Field(default=2, gt=0)
    upscaling_resize_w: int = Field(default=512, ge=1, le=MAX_SIDE)
    upscaling_resize_h: int = Field(default=512, ge=1, le=MAX_SIDE)
    upscaling_crop: bool = True
    upscaler_1: str = "None"
    upscaler_2: str = "None"
    extras_upscaler_2_visibility: float = Field(default=0, ge=0, le=1)
    upscale_first: bool = False


class ExtraSingle(Extras):
    """The body of extra-single-image."""

    image: str = ""


class NamedImage(Lenient):
    """One picture of a batch."""

    data: str
    name: str = ""


class ExtraBatch(Extras):
    """The body of extra-batch-images."""

    # As the originals spell it.
    imageList: list[NamedImage] = Field(min_length=1, max_length=MOST_PICTURES)  # noqa: N815


class PngInfo(Lenient):
    """The body of png-info."""

    image: str


class Interrogate(Lenient):
    """The body of interrogate."""

    image: str = ""
    model: str = "clip"


class Detect(Lenient):
    """The body of ControlNet's detect."""

    controlnet_module: str = "none"
    controlnet_input_images: list[str] = Field(default_factory=list, max_length=MOST_PICTURES)
    #: What webuiapi calls it.
    controlnet_images: list[str] = Field(default_factory=list, max_length=MOST_PICTURES)
    controlnet_processor_res: int = 512
    controlnet_threshold_a: float = -1
    controlnet_threshold_b: float = -1

    @property
    def images(self) -> list[str]:
        """Return the pictures under either name."""
        return self.controlnet_input_images or self.controlnet_images


class Options(BaseModel):
    """The body of options: any object."""

    given: dict[str, Any]


def parse_options(data: object) -> Options:
    """Read the body of options."""
    return Options.model_validate({"given": data})


class ProgressQuery(Lenient):
    """How to ask for progress."""

    skip_current_image: bool = False
    id_task: str | None = None


class InternalProgress(Lenient):
    """The body of `/internal/progress`."""

    id_task: str | None = None
    id_live_preview: int = -1
    live_preview: bool = True


class NameQuery(Lenient):
    """What SD.Next names in the query of single models."""

    lora: str = ""
    sd_model_checkpoint: str = ""
