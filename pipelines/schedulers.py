"""From a scheduler's name to a diffusers scheduler that suits the model.

Which names exist is the business of `models_registry.schedulers`.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers

from models_registry.families import Prediction
from models_registry.schedulers import SchedulerSpec
from pipelines.flow_schedulers import FLOW_CLASSES, flow_settings, keep_shifting

#: Classes that pick their steps from a number of original steps, and refuse to take more.
STEP_BOUND = frozenset({"LCMScheduler", "TCDScheduler"})


def build_scheduler(spec: SchedulerSpec, model_config: Mapping[str, Any], steps: int) -> Any:
    """Build the scheduler of `spec` with the model's own noise settings (`pipe.scheduler.config`)."""
    if spec.prediction is Prediction.FLOW:
        return _build_flow(spec, model_config)
    cls = getattr(diffusers, spec.class_name)
    config = _known(model_config, cls)
    settings = dict(spec.config)
    if spec.class_name in STEP_BOUND:
        settings["original_inference_steps"] = max(steps, config.get("original_inference_steps") or 50)
    return cls.from_config(config, **settings)


def _build_flow(spec: SchedulerSpec, model_config: Mapping[str, Any]) -> Any:
    cls = FLOW_CLASSES[spec.class_name]
    settings = dict(spec.config)
    spacing = settings.pop("timestep_spacing", None)
    scheduler = cls.from_config(_known(model_config, cls), **flow_settings(model_config, cls), **settings)
    scheduler.spacing = spacing
    keep_shifting(scheduler, model_config)
    return scheduler


def _known(model_config: Mapping[str, Any], cls: Any) -> dict[str, Any]:
    """Return a model's settings as far as a class has them."""
    known = inspect.signature(cls.__init__).parameters
    # Private keys say which settings were nobody's choice; what another class alone knows would be complained about.
    return {name: value for name, value in model_config.items() if name.startswith("_") or name in known}


def seed_scheduler(scheduler: Any, seed: int) -> Any:
    """Tie a scheduler that draws noise without the pipeline's generator to the picture's seed; return it."""
    if hasattr(scheduler, "noise_sampler_seed"):
        # torchsde takes a signed seed.
        scheduler.noise_sampler_seed = seed % 2**63
    return scheduler
