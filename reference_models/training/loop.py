"""Run one training stage: AdamW, Muon beside it, warm-up and cosine decay, an average of the weights, resume after an interruption.

Knows nothing of pictures: a stage hands over its module and a function from a random generator to a loss.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

_LOG: Final = logging.getLogger(__name__)

Loss = Callable[[np.random.Generator], Tensor]

MUON: Final = 2.0
"""Rate of Muon, as a multiple of AdamW's."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Say how long and how fast one stage learns."""

    name: str
    steps: int
    rate: float
    warm_up: int = 50
    final_rate: float = 0.02
    """Learning rate of the last step, as a fraction of `rate`."""
    average: float = 0.0
    """Decay of the moving average of the weights; 0 keeps the last weights."""
    weight_decay: float = 0.0
    clip: float = 1.0
    seed: int = 0
    save_every: int = 250

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step."""
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        progress = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        low = self.rate * self.final_rate
        return low + (self.rate - low) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(slots=True)
class _State:
    step: int
    seconds: float
    average: nn.Module
    optimizer: torch.optim.Optimizer
    muon: torch.optim.Optimizer | None = None

    def set_rate(self, rate: float) -> None:
        """Let the next step go this far."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.muon is not None:
            for group in self.muon.param_groups:
                group["lr"] = MUON * rate

    def descend(self) -> None:
        """Change the weights by their gradients."""
        self.optimizer.step()
        if self.muon is not None:
            self.muon.step()


def _checkpoint(path: Path, module: nn.Module, state: _State) -> None:
    whole: dict[str, Any] = {
        "step": state.step,
        "seconds": state.seconds,
        "module": module.state_dict(),
        "average": state.average.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "muon": state.muon.state_dict() if state.muon else None,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(whole, part)
    part.replace(path)


def _resume(path: Path, module: nn.Module, state: _State) -> None:
    if not path.exists():
        return
    whole = torch.load(path, weights_only=True)
    module.load_state_dict(whole["module"])
    state.average.load_state_dict(whole["average"])
    state.optimizer.load_state_dict(whole["optimizer"])
    if state.muon is not None:
        state.muon.load_state_dict(whole["muon"])
    state.step, state.seconds = whole["step"], whole["seconds"]


@torch.no_grad()
def _blend(average: nn.Module, module: nn.Module, decay: float, step: int) -> None:
    # Early on a long memory would mostly remember the random start.
    decay = min(decay, (1 + step) / (10 + step))
    for kept, fresh in zip(average.state_dict().values(), module.state_dict().values(), strict=True):
        if kept.dtype.is_floating_point:
            kept.lerp_(fresh, 1 - decay)
        else:
            kept.copy_(fresh)


def _optimizers(
    plan: Plan, parameters: list[nn.Parameter], matrices: list[nn.Parameter]
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer | None]:
    others = {id(matrix) for matrix in matrices}
    rest = [parameter for parameter in parameters if id(parameter) not in others]
    usual = torch.optim.AdamW(rest, lr=plan.rate, betas=(0.9, 0.99), weight_decay=plan.weight_decay)
    if not matrices:
        return usual, None
    muon = torch.optim.Muon(
        matrices, lr=MUON * plan.rate, weight_decay=plan.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    return usual, muon


def fit(
    plan: Plan,
    module: nn.Module,
    loss: Loss,
    folder: Path,
    *,
    trained: Iterable[nn.Parameter] | None = None,
    matrices: Iterable[nn.Parameter] = (),
    on_save: Callable[[nn.Module, int], None] | None = None,
) -> float:
    """Train the module in place, from its checkpoint in the folder if there is one; return the seconds it took.

    Every step draws its batch from a generator seeded by the step, so a resumed run sees the same batches.
    The module ends up holding the averaged weights. Of its parameters, `matrices` are left to Muon. `on_save` gets the averaged module
    and the step.
    """
    parameters = list(module.parameters() if trained is None else trained)
    state = _State(
        0, 0.0, deepcopy(module).requires_grad_(requires_grad=False), *_optimizers(plan, parameters, list(matrices))
    )
    path = folder / f"{plan.name}.pt"
    _resume(path, module, state)
    module.train()
    shown, began = 0.0, time.monotonic() - state.seconds
    while state.step < plan.steps:
        state.set_rate(plan.rate_at(state.step))
        torch.manual_seed(plan.seed * 1_000_003 + state.step)
        value = loss(np.random.default_rng((plan.seed, state.step)))
        module.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward unannotated
        torch.nn.utils.clip_grad_norm_(parameters, plan.clip)
        state.descend()
        state.step += 1
        _blend(state.average, module, plan.average, state.step)
        shown = value.item() if state.step == 1 else 0.98 * shown + 0.02 * value.item()
        state.seconds = time.monotonic() - began
        if state.step % 50 == 0:
            _LOG.info("%s step %d loss %.4f, %.0f s", plan.name, state.step, shown, state.seconds)
        if state.step % plan.save_every == 0 or state.step == plan.steps:
            _checkpoint(path, module, state)
            if on_save is not None:
                on_save(state.average, state.step)
    module.load_state_dict(state.average.state_dict())
    module.eval()
    return state.seconds
