"""Read ControlNet units: A1111's in `alwayson_scripts`, SD.Next's in `control_units`; pure."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from pydantic import Field, ValidationError

from broker_api.doors.lenient import Lenient
from broker_api.doors.sdapi.payloads import Generation
from broker_api.doors.sdapi.refusals import FieldsRefused, ScriptRefused, details_of, field_refused
from models_registry.preprocessors import PREPROCESSORS

#: Units beyond these are dropped, as the extension does.
UNITS: Final = 3
SCRIPT: Final = "controlnet"
#: Always-on scripts that clients send whether or not they are used; what they would do is not done.
TOLERATED: Final = frozenset(
    {
        "adetailer", "animatediff", "roop", "reactor", "self attention guidance", "refiner", "seed", "sampler", "extra options",
        "dynamic prompts v2.17.1", "tiled diffusion", "tiled vae", "freeu integrated (sd 1.x, sd 2.x, sdxl)", "hypertile",
        "never oom integrated", "kohya hrfix integrated",
    }
)  # fmt: skip
_PATH: Final = "alwayson_scripts.controlnet.args"
_NEW_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {"guidance": "guidance_end", "lowvram": "low_vram", "input_image": "image"}
)
#: Beginnings of the extension's names of preprocessors to ours; the first that fits counts. Exact names of ours need no line.
_MODULES: Final[tuple[tuple[str, str], ...]] = (
    ("depth", "depth_midas"),
    ("openpose", "openpose"),
    ("dw_openpose", "openpose"),
    ("lineart_anime", "lineart_anime"),
    ("lineart_coarse", "lineart_coarse"),
    ("lineart", "lineart_realistic"),
    ("softedge_pidi", "softedge_pidinet"),
    ("softedge_teed", "softedge_teed"),
    ("teed", "softedge_teed"),
    ("softedge", "softedge_hed"),
    ("hed", "softedge_hed"),
    ("scribble_pidinet", "scribble_pidinet"),
    ("scribble_xdog", "scribble_xdog"),
    ("scribble", "scribble_hed"),
    ("mlsd", "mlsd"),
    ("normal", "normal_bae"),
    ("shuffle", "shuffle"),
    ("invert", "invert"),
    ("threshold", "threshold"),
    ("blur_gaussian", "blur"),
    ("tile_resample", "blur"),
    ("canny", "canny"),
)
#: What the extension's two sliders are called here, whichever a preprocessor has.
_FIRST_SLIDER: Final = ("low_threshold", "threshold", "score_threshold", "sigma")
_SECOND_SLIDER: Final = ("high_threshold", "distance_threshold")
_SDNEXT_TYPES: Final = frozenset({"", "controlnet"})


class Unit(Lenient):
    """One unit, as far as it is understood."""

    enabled: bool = True
    module: str = "none"
    model: str = "None"
    weight: float = Field(default=1.0, ge=0)
    image: Any = None
    mask: Any = None
    mask_image: Any = None
    control_mode: Any = 0
    processor_res: int = -1
    threshold_a: float = -1
    threshold_b: float = -1
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    hr_option: Any = 0
    pixel_perfect: bool = False


class SdNextUnit(Lenient):
    """One unit of SD.Next."""

    process: str = ""
    model: str = ""
    strength: float = Field(default=1.0, ge=0)
    start: float = 0.0
    end: float = 1.0
    override: str | None = None
    image: str | None = None
    unit_type: str = ""


def preprocessor_of(module: str) -> str | None:
    """Return the preprocessor that a module's name means; None for none."""
    wanted = module.strip().lower()
    if wanted in {"", "none"}:
        return None
    if wanted in PREPROCESSORS:
        return wanted
    return next((ours for beginning, ours in _MODULES if wanted.startswith(beginning)), wanted)


def options_of(preprocessor: str | None, threshold_a: float, threshold_b: float, resolution: int) -> dict[str, float]:
    """Return a preprocessor's options; a value outside its bounds leaves the default, as the extension does."""
    facts = None if preprocessor is None else PREPROCESSORS.get(preprocessor)
    if facts is None:
        return {}
    sliders = [(name, threshold_a) for name in _FIRST_SLIDER] + [(name, threshold_b) for name in _SECOND_SLIDER]
    return {
        name: value
        for name, value in [*sliders, ("resolution", float(resolution))]
        if name in facts.options and facts.options[name].low <= value <= facts.options[name].high
    }


def controls_of(payload: Generation, init_image: str | None, notes: list[str]) -> list[dict[str, Any]]:
    """Return the controls of a request; what cannot be done is added to the notes."""
    units: list[tuple[int, Unit]] = []
    for name, script in payload.alwayson_scripts.items():
        if name.strip().lower() == SCRIPT:
            units += _units(_arguments(name, script))
        else:
            _tolerate(name, script, notes)
    if len(units) > UNITS:
        notes.append(f"ControlNet units beyond {UNITS} are dropped")
    found = [_control(place, unit, init_image, notes) for place, unit in units[:UNITS] if unit.enabled]
    return [*found, *_sdnext(payload.control_units, init_image, notes)]


def _arguments(name: str, script: Any) -> list[Any]:
    arguments = script.get("args", []) if isinstance(script, dict) else None
    if not isinstance(arguments, list):
        raise field_refused(f"alwayson_scripts.{name}.args", "Input should be a valid list", "list_type")
    return arguments


def _tolerate(name: str, script: Any, notes: list[str]) -> None:
    if name.strip().lower() not in TOLERATED:
        raise ScriptRefused(f"always on script {name[:100]} not found")
    arguments = _arguments(name, script)
    if any(argument is True or isinstance(argument, dict) for argument in arguments[:1]):
        notes.append(f"the script {name[:100]} is not here")


def _units(arguments: Iterable[Any]) -> list[tuple[int, Unit]]:
    found = []
    for place, argument in enumerate(arguments):
        if argument is None or isinstance(argument, bool):
            continue
        if not isinstance(argument, dict):
            raise field_refused(f"{_PATH}.{place}", "Input should be a valid dictionary", "dict_type")
        given = dict(argument)
        for old, new in _NEW_NAMES.items():
            if old in given and given.get(new) is not None and given[old] is not None:
                raise field_refused(f"{_PATH}.{place}.{old}", f"{old} and {new} are the same: send one of them")
            if given.get(old) is not None:
                given[new] = given.pop(old)
        try:
            found.append((place, Unit.model_validate(given)))
        except ValidationError as error:
            raise _at(error, f"{_PATH}.{place}") from None
    return found


def _control(place: int, unit: Unit, init_image: str | None, notes: list[str]) -> dict[str, Any]:
    image = _image(unit.image) or init_image
    if image is None:
        raise field_refused(f"{_PATH}.{place}.image", "ControlNet is enabled but no input image is given")
    if unit.model.strip().lower() in {"", "none"}:
        raise field_refused(f"{_PATH}.{place}.model", "You have not selected any ControlNet Model.")
    mode = unit.control_mode[0] if isinstance(unit.control_mode, list) and unit.control_mode else unit.control_mode
    if mode not in (0, "0", "Balanced", "balanced", None):
        notes.append(f"ControlNet {place}: only the control mode 'Balanced' is here")
    if unit.mask is not None or unit.mask_image is not None:
        notes.append(f"ControlNet {place}: the mask is ignored")
    if unit.hr_option not in (0, "0", "Both", "HiResFixOption.BOTH"):
        notes.append(f"ControlNet {place}: it guides both passes")
    preprocessor = preprocessor_of(unit.module)
    return {
        "model": unit.model,
        "image": image,
        "scale": unit.weight,
        "start": unit.guidance_start,
        "end": unit.guidance_end,
        "preprocessor": preprocessor,
        "preprocessor_options": options_of(preprocessor, unit.threshold_a, unit.threshold_b, unit.processor_res),
    }


def _image(given: Any) -> str | None:
    """Find the picture in any of the forms that the extension takes."""
    if isinstance(given, list):
        given = given[0] if given else None
    if isinstance(given, dict):
        given = given.get("image")
    return given if isinstance(given, str) and given else None


def _sdnext(units: Iterable[Mapping[str, Any]], init_image: str | None, notes: list[str]) -> list[dict[str, Any]]:
    found = []
    for place, given in enumerate(units):
        try:
            unit = SdNextUnit.model_validate(given)
        except ValidationError as error:
            raise _at(error, f"control_units.{place}") from None
        if unit.unit_type.strip().lower() not in _SDNEXT_TYPES:
            notes.append(f"control unit {place}: {unit.unit_type[:50]} is not here")
            continue
        if unit.model.strip().lower() in {"", "none"}:
            continue
        image = unit.override or unit.image or init_image
        if image is None:
            raise field_refused(f"control_units.{place}.image", "The control unit has no image")
        control = {"model": unit.model, "image": image, "scale": unit.strength, "start": unit.start, "end": unit.end}
        found.append({**control, "preprocessor": preprocessor_of(unit.process)})
    return found


def _at(error: ValidationError, path: str) -> FieldsRefused:
    inside = details_of(error)
    before: list[str | int] = ["body", *(int(part) if part.isdigit() else part for part in path.split("."))]
    return FieldsRefused([{**detail, "loc": [*before, *detail["loc"][1:]]} for detail in inside])
