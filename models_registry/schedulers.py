"""Which schedulers exist, by the names people use: pure data, so that a request can be refused before any GPU sees it.

It does not know how a scheduler steps, nor a model's own scheduler settings: `pipelines.schedulers` joins those.
"""

import difflib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from models_registry.families import Prediction

#: Spelling of a schedule type that leaves the choice to the scheduler, as A1111's menu does.
AUTOMATIC = "automatic"


class SchedulerNameError(KeyError):
    """No such scheduler or schedule type; carries what was meant, perhaps."""

    def __init__(self, message: str, *, name: str, nearest: tuple[str, ...]) -> None:
        super().__init__(message)
        self.message = message
        self.name = name
        #: The closest known names, best first; empty when nothing is close.
        self.nearest = nearest

    def __str__(self) -> str:
        return self.message  # KeyError would show the quoted representation


class ScheduleType(NamedTuple):
    """Name one way to space the noise levels."""

    name: str
    label: str
    config: Mapping[str, Any]
    aliases: tuple[str, ...] = ()


class Flow(NamedTuple):
    """Say how a sampling method draws with models that predict a flow."""

    class_name: str
    config: Mapping[str, Any]
    #: Names of the schedule types it can follow there; without one it takes the model's own spacing.
    schedule_types: frozenset[str]


class Scheduler(NamedTuple):
    """Name one sampling method and say what it can do."""

    name: str
    class_name: str
    #: Settings that make the class this method, over the model's own.
    config: Mapping[str, Any]
    #: Names of the schedule types it can follow.
    schedule_types: frozenset[str]
    #: What "Automatic" means for it; None keeps the model's own spacing.
    automatic: str | None = None
    aliases: tuple[str, ...] = ()
    #: Calls of the denoiser per step: 2 for second-order methods.
    calls_per_step: int = 1

    @property
    def flow(self) -> Flow | None:
        """Return how it draws with models that predict a flow; None where it cannot."""
        return _FLOWS.get(self.name)

    @property
    def predictions(self) -> frozenset[Prediction]:
        """Return what a model it draws with may predict."""
        return frozenset({Prediction.EPSILON, Prediction.V} | ({Prediction.FLOW} if self.flow is not None else set()))


class SchedulerSpec(NamedTuple):
    """A scheduler chosen by name, ready to be built."""

    name: str
    class_name: str
    config: Mapping[str, Any]
    #: None keeps the model's own spacing.
    schedule_type: str | None
    calls_per_step: int
    #: `flow` has classes and settings of its own; the other two are told by the model's configuration.
    prediction: Prediction = Prediction.EPSILON

    @property
    def label(self) -> str:
        """Return the full A1111 name, e.g. `DPM++ 2M Karras`."""
        return self.name if self.schedule_type is None else f"{self.name} {SCHEDULE_TYPES[self.schedule_type].label}"


_PLAIN: Mapping[str, Any] = MappingProxyType(
    {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
)


def _sigmas(flag: str) -> Mapping[str, Any]:
    # These shapes span the whole noise range, so they start from evenly spaced steps whatever the model's config says.
    return MappingProxyType({**_PLAIN, "timestep_spacing": "linspace", flag: True})


def _spacing(spacing: str) -> Mapping[str, Any]:
    return MappingProxyType({**_PLAIN, "timestep_spacing": spacing})


SCHEDULE_TYPES: Mapping[str, ScheduleType] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            ScheduleType("uniform", "Uniform", _spacing("linspace")),
            ScheduleType("karras", "Karras", _sigmas("use_karras_sigmas")),
            # At A1111's rho of 1, polyexponential is the exponential schedule.
            ScheduleType("exponential", "Exponential", _sigmas("use_exponential_sigmas"), ("polyexponential",)),
            ScheduleType("beta", "Beta", _sigmas("use_beta_sigmas")),
            ScheduleType("sgm_uniform", "SGM Uniform", _spacing("trailing")),
            ScheduleType("simple", "Simple", _spacing("trailing")),
            ScheduleType("normal", "Normal", _spacing("linspace")),
            ScheduleType("ddim", "DDIM", _spacing("leading"), ("ddim_uniform",)),
        )
    }
)

_SPACINGS = frozenset({"uniform", "sgm_uniform", "simple", "normal", "ddim"})
_SHAPES = frozenset({"karras", "exponential", "beta"})
_ALL = _SPACINGS | _SHAPES
_NONE: frozenset[str] = frozenset()
#: What the own spacing of solvers for flows amounts to.
_FLOW_SPACINGS = frozenset({"simple", "sgm_uniform"})


def _dpm(algorithm: str, order: int, solver: str = "midpoint") -> Mapping[str, Any]:
    # Without the lower order at the end, the last step divides by a noise level of zero.
    return MappingProxyType(
        {"algorithm_type": algorithm, "solver_order": order, "solver_type": solver, "lower_order_final": True}
    )


_MULTISTEP = "DPMSolverMultistepScheduler"
_SINGLESTEP = "DPMSolverSinglestepScheduler"
_EMPTY: Mapping[str, Any] = MappingProxyType({})

SCHEDULERS: Mapping[str, Scheduler] = MappingProxyType(
    {
        scheduler.name: scheduler
        for scheduler in (
            Scheduler("Euler", "EulerDiscreteScheduler", _EMPTY, _ALL, None, ("k_euler",)),
            Scheduler(
                "Euler a",
                "EulerAncestralDiscreteScheduler",
                _EMPTY,
                _SPACINGS,
                None,
                ("k_euler_a", "k_euler_ancestral", "Euler ancestral"),
            ),
            Scheduler("DPM++ 2M", _MULTISTEP, _dpm("dpmsolver++", 2), _ALL, "karras", ("k_dpmpp_2m",)),
            Scheduler("DPM++ 2M SDE", _MULTISTEP, _dpm("sde-dpmsolver++", 2), _ALL, "exponential", ("k_dpmpp_2m_sde",)),
            Scheduler(
                "DPM++ 2M SDE Heun",
                _MULTISTEP,
                _dpm("sde-dpmsolver++", 2, "heun"),
                _ALL,
                "exponential",
                ("k_dpmpp_2m_sde_heun",),
            ),
            Scheduler("DPM++ 3M SDE", _MULTISTEP, _dpm("sde-dpmsolver++", 3), _ALL, "exponential", ("k_dpmpp_3m_sde",)),
            Scheduler("DPM++ SDE", "DPMSolverSDEScheduler", _EMPTY, _ALL, "karras", ("k_dpmpp_sde",), 2),
            Scheduler("DPM++ 2S", _SINGLESTEP, _dpm("dpmsolver++", 2), _SHAPES, "karras", ("k_dpmpp_2s",)),
            Scheduler(
                "DPM++ 2S a",
                _SINGLESTEP,
                _dpm("sde-dpmsolver++", 2),
                _SHAPES,
                "karras",
                ("k_dpmpp_2s_a", "k_dpmpp_2s_ancestral", "DPM++ 2S ancestral"),
            ),
            Scheduler("DPM2", "KDPM2DiscreteScheduler", _EMPTY, _ALL, "karras", ("k_dpm_2",), 2),
            Scheduler(
                "DPM2 a",
                "KDPM2AncestralDiscreteScheduler",
                _EMPTY,
                _ALL,
                "karras",
                ("k_dpm_2_a", "k_dpm_2_ancestral", "DPM2 ancestral"),
                2,
            ),
            Scheduler("Heun", "HeunDiscreteScheduler", _EMPTY, _ALL, None, ("k_heun",), 2),
            Scheduler("LMS", "LMSDiscreteScheduler", _EMPTY, _ALL, None, ("k_lms",)),
            Scheduler("DDIM", "DDIMScheduler", _EMPTY, _SPACINGS),
            Scheduler("DDPM", "DDPMScheduler", MappingProxyType({"variance_type": "fixed_small"}), _SPACINGS),
            Scheduler("PLMS", "PNDMScheduler", MappingProxyType({"skip_prk_steps": True}), _SPACINGS, None, ("PNDM",)),
            Scheduler(
                "UniPC", "UniPCMultistepScheduler", MappingProxyType({"solver_order": 2, "solver_type": "bh2"}), _ALL
            ),
            Scheduler("DEIS", "DEISMultistepScheduler", _dpm("deis", 2, "logrho"), _ALL),
            Scheduler("SA Solver", "SASolverScheduler", MappingProxyType({"algorithm_type": "data_prediction"}), _ALL),
            Scheduler("LCM", "LCMScheduler", _EMPTY, _NONE),
            Scheduler("TCD", "TCDScheduler", _EMPTY, _NONE),
        )
    }
)

#: DEIS, SA Solver and the ancestral methods have no form in diffusers that ends without noise; DPM++ 3M SDE adds more than it takes away.
_FLOWS: Mapping[str, Flow] = MappingProxyType(
    {
        "Euler": Flow("FlowMatchEulerDiscreteScheduler", _EMPTY, _FLOW_SPACINGS | {"normal", "uniform"} | _SHAPES),
        "Heun": Flow("FlowMatchHeunDiscreteScheduler", _EMPTY, _FLOW_SPACINGS | {"normal", "uniform"}),
        "DPM++ 2M": Flow(_MULTISTEP, SCHEDULERS["DPM++ 2M"].config, _FLOW_SPACINGS),
        "DPM++ 2M SDE": Flow(_MULTISTEP, SCHEDULERS["DPM++ 2M SDE"].config, _FLOW_SPACINGS),
        "DPM++ 2S": Flow(_SINGLESTEP, SCHEDULERS["DPM++ 2S"].config, _FLOW_SPACINGS),
        "UniPC": Flow("UniPCMultistepScheduler", SCHEDULERS["UniPC"].config, _FLOW_SPACINGS),
        "LCM": Flow("FlowMatchLCMScheduler", _EMPTY, _NONE),
    }
)


def _squeeze(name: str) -> str:
    """Reduce a name to what tells names apart, so that `dpmpp_2m` and `DPM++ 2M` are one."""
    return re.sub(r"[^a-z0-9]", "", name.casefold().replace("++", "pp"))


def _scheduler_names() -> Mapping[str, str]:
    names: dict[str, str] = {}
    for scheduler in SCHEDULERS.values():
        flow = () if scheduler.flow is None else (scheduler.flow.class_name,)
        for alias in (scheduler.name, scheduler.class_name, *scheduler.aliases, *flow):
            # The first scheduler of a class owns the class name: DPMSolverMultistepScheduler is DPM++ 2M.
            names.setdefault(_squeeze(alias), scheduler.name)
            # The `k_` of k-diffusion is left out by ComfyUI and SD.Next.
            names.setdefault(_squeeze(alias.removeprefix("k_")), scheduler.name)
    return MappingProxyType(names)


def _type_names() -> Mapping[str, str]:
    return MappingProxyType(
        {
            _squeeze(alias): kind.name
            for kind in SCHEDULE_TYPES.values()
            for alias in (kind.name, kind.label, *kind.aliases)
        }
    )


_SCHEDULER_NAMES = _scheduler_names()
_TYPE_NAMES = _type_names()
_SUFFIXES: Mapping[str, str] = MappingProxyType({**_TYPE_NAMES, AUTOMATIC: AUTOMATIC})


def _split(name: str) -> tuple[Scheduler, str | None]:
    """Split `DPM++ 2M Karras` into the scheduler and the schedule type."""
    squeezed = bare = _squeeze(name)
    if squeezed in _SCHEDULER_NAMES:
        return SCHEDULERS[_SCHEDULER_NAMES[squeezed]], None
    for suffix, kind in _SUFFIXES.items():
        head = squeezed.removesuffix(suffix)
        if head != squeezed and head in _SCHEDULER_NAMES:
            return SCHEDULERS[_SCHEDULER_NAMES[head]], kind
        bare = min(bare, head, key=len)
    nearest = _nearest(bare, _SCHEDULER_NAMES, 3)
    raise SchedulerNameError(_unknown("scheduler", name, nearest), name=name, nearest=nearest)


def _nearest(squeezed: str, names: Mapping[str, str], count: int) -> tuple[str, ...]:
    close = difflib.get_close_matches(squeezed[:200], names, n=8, cutoff=0.5)
    return tuple(dict.fromkeys(names[found] for found in close))[:count]


def _unknown(kind: str, name: str, nearest: tuple[str, ...]) -> str:
    hint = f"; near it: {', '.join(nearest)}" if nearest else ""
    return f"no {kind} is named {name[:80]!r}{hint}"


def find_schedule_type(name: str) -> str:
    """Return the canonical name of a schedule type, or `automatic`; raise `SchedulerNameError` for an unknown one."""
    kind = _SUFFIXES.get(_squeeze(name))
    if kind is None:
        nearest = _nearest(_squeeze(name), _SUFFIXES, 3)
        raise SchedulerNameError(_unknown("schedule type", name, nearest), name=name, nearest=nearest)
    return kind


def find_scheduler(
    name: str, schedule_type: str | None = None, *, prediction: Prediction = Prediction.EPSILON
) -> SchedulerSpec:
    """Return the scheduler a name means, raising `SchedulerNameError` for unknown names and impossible pairs.

    `name` is an A1111, ComfyUI or diffusers name, a schedule type behind it allowed; `schedule_type` None keeps the
    model's own spacing, `automatic` takes what A1111 takes for that scheduler. What draws, and by which schedule types,
    depends on what the model predicts.
    """
    scheduler, suffix = _split(name)
    kind = suffix
    if schedule_type is not None:
        given = find_schedule_type(schedule_type)
        if suffix not in {None, AUTOMATIC, given} and given != AUTOMATIC:
            message = f"{name[:80]!r} and schedule type {schedule_type[:80]!r} contradict each other"
            raise SchedulerNameError(message, name=name, nearest=(scheduler.name,))
        kind = suffix if given == AUTOMATIC and suffix is not None else given
    if prediction is Prediction.FLOW:
        return _for_flow(scheduler, None if kind == AUTOMATIC else kind, name)
    if kind == AUTOMATIC:
        kind = scheduler.automatic
    _check_kind(scheduler.name, kind, scheduler.schedule_types, name)
    config = scheduler.config if kind is None else MappingProxyType({**scheduler.config, **_config(scheduler, kind)})
    return SchedulerSpec(scheduler.name, scheduler.class_name, config, kind, scheduler.calls_per_step, prediction)


def _for_flow(scheduler: Scheduler, kind: str | None, name: str) -> SchedulerSpec:
    flow = scheduler.flow
    if flow is None:
        able = tuple(_FLOWS)
        message = f"{scheduler.name} cannot draw with a model that predicts a flow; these can: {', '.join(able)}"
        raise SchedulerNameError(message, name=name, nearest=able)
    _check_kind(scheduler.name, kind, flow.schedule_types, name)
    settings = {} if kind is None else SCHEDULE_TYPES[kind].config
    # Solvers space their steps in one way only; the shapes belong to Euler alone.
    wanted = {
        key: value
        for key, value in settings.items()
        if (key == "timestep_spacing" and scheduler.name in {"Euler", "Heun"} and kind not in _SHAPES) or value is True
    }
    config = MappingProxyType({**flow.config, **wanted})
    return SchedulerSpec(scheduler.name, flow.class_name, config, kind, scheduler.calls_per_step, Prediction.FLOW)


def _check_kind(title: str, kind: str | None, known: frozenset[str], name: str) -> None:
    if kind is None or kind in known:
        return
    labels = tuple(each.label for each in SCHEDULE_TYPES.values() if each.name in known)
    message = (
        f"{title} cannot follow {SCHEDULE_TYPES[kind].label}; it can follow: {', '.join(labels) or 'its own only'}"
    )
    raise SchedulerNameError(message, name=name, nearest=labels)


def _config(scheduler: Scheduler, kind: str) -> Mapping[str, Any]:
    # A class warns about settings it does not have, so each is given only its own.
    settings = SCHEDULE_TYPES[kind].config
    if scheduler.schedule_types == _SHAPES:
        return {key: value for key, value in settings.items() if key != "timestep_spacing"}
    if scheduler.schedule_types == _SPACINGS:
        return {key: value for key, value in settings.items() if key == "timestep_spacing"}
    return settings
