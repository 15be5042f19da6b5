"""A run at a step boundary as bytes, so that another process can go on from there, bit for bit.

It holds data alone, read back with `weights_only`: no pickled code. It knows no pipeline: what it holds of a scheduler
are the attributes that changed since the run was prepared, which only the same version of diffusers understands.
"""

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import diffusers
import numpy as np
import torch

_FORMAT = 2
#: Objects that schedulers rebuild from their own data at the next step.
_REBUILT = frozenset({"noise_sampler", "step"})


class CheckpointMismatchError(ValueError):
    """The checkpoint was written for another job, another model or another version."""


class CheckpointUnavailableError(RuntimeError):
    """The run is at no step boundary, or its scheduler holds something that cannot be written down."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything that prepare cannot draw anew from the parameters."""

    #: Digest of the model, the parameters and the picture's index.
    request: str
    #: Class name of the scheduler.
    scheduler_class: str
    #: Which pass of the run it is in, from 0, and what that pass took over from those before it.
    number: int
    carried: dict[str, torch.Tensor]
    #: State of the CPU generator when the pass began: preparing it again draws the same noise.
    began: torch.Tensor
    #: The last finished round of the loop, from 0.
    index: int
    #: Steps as the user counts them, over all passes.
    step: int
    total: int
    latents: torch.Tensor
    #: Encoded attributes of the scheduler that changed since prepare.
    scheduler: dict[str, Any]
    #: State of the CPU generator.
    generator: torch.Tensor
    diffusers: str = diffusers.__version__
    format: int = _FORMAT

    def to_bytes(self) -> bytes:
        """Write the checkpoint for keeping."""
        buffer = io.BytesIO()
        torch.save(asdict(self), buffer)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a checkpoint, raising `CheckpointMismatchError` when this version did not write it."""
        problem = "the checkpoint cannot be read"
        try:
            content = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
            if content["format"] == _FORMAT and content["diffusers"] == diffusers.__version__:
                return cls(**{field.name: content[field.name] for field in fields(cls)})
            problem = (
                f"the checkpoint was written under diffusers {content['diffusers']}; this is {diffusers.__version__}"
            )
        # Whatever unreadable bytes make torch raise, the answer is the same.
        except Exception as error:  # noqa: BLE001
            problem = f"{problem}: {type(error).__name__}"
        raise CheckpointMismatchError(problem)


def snapshot(scheduler: object) -> dict[str, Any]:
    """Note a scheduler's attributes; lists are copied because schedulers change them in place."""
    return {name: list(value) if isinstance(value, list) else value for name, value in vars(scheduler).items()}


def changes(scheduler: object, since: Mapping[str, Any]) -> dict[str, Any]:
    """Encode the attributes that differ from the snapshot, raising `CheckpointUnavailableError` for opaque ones."""
    return {
        name: _encode(name, value)
        for name, value in vars(scheduler).items()
        if name not in _REBUILT and not (name in since and _same(since[name], value))
    }


def restore(scheduler: object, since: Mapping[str, Any], changed: Mapping[str, Any], device: torch.device) -> None:
    """Put a freshly prepared scheduler where the encoded one was."""
    attributes = vars(scheduler)
    for name, value in since.items():
        attributes[name] = list(value) if isinstance(value, list) else value
    for name, value in changed.items():
        attributes[name] = _decode(value, device)


def _same(before: Any, now: Any) -> bool:
    if before is now:
        return True
    if type(before) is not type(now):
        return False
    if isinstance(now, torch.Tensor):
        return before.shape == now.shape and before.dtype == now.dtype and torch.equal(before, now)
    if isinstance(now, np.ndarray):
        return bool(np.array_equal(before, now))
    if isinstance(now, list | tuple):
        return len(before) == len(now) and all(map(_same, before, now))
    return bool(before == now)


def _encode(name: str, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        # Schedulers keep sigmas on the CPU and history on the device: each goes back to where it was.
        return {"tensor": value.detach().cpu(), "on_cpu": value.device.type == "cpu"}
    if isinstance(value, np.ndarray):
        return {"array": torch.from_numpy(np.ascontiguousarray(value))}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return {"items": [_encode(name, each) for each in value], "tuple": isinstance(value, tuple)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise CheckpointUnavailableError(f"the scheduler's {name} is a {type(value).__name__}, which is no plain data")


def _decode(value: Any, device: torch.device) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return value["tensor"] if value["on_cpu"] else value["tensor"].to(device)
    if "array" in value:
        return value["array"].numpy()
    items = [_decode(each, device) for each in value["items"]]
    return tuple(items) if value["tuple"] else items
