"""From the tensors of one layer to what they add: the arithmetic of LoRA, LoCon, LoHa and LoKr.

The formulas are those of LyCORIS (arXiv 2309.14859): LoHa is the elementwise product of two low-rank products, LoKr a Kronecker product of
which one or both factors may be low-rank. Either may keep its kernel in Tucker form.
"""

import math
from collections.abc import Mapping

import torch

from pipelines.adapters.deltas import Delta, Dense, LowRank

#: Parts that must all be there, and those that may.
_LORA = (frozenset({"down", "up"}), frozenset({"mid"}))
_LOHA = (frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}), frozenset({"hada_t1", "hada_t2"}))


class IncompleteError(ValueError):
    """The tensors of a layer do not make up an adapter."""


def rebuild(key: str, parts: Mapping[str, torch.Tensor], alpha: float | None, *, root: bool = False) -> Delta:
    """Return what the float32 tensors of one layer add, raising `IncompleteError` when they do not belong together.

    Without alpha the scale is 1; with `root` it is alpha over the rank's square root (rsLoRA).
    """
    found = frozenset(parts)
    try:
        if _is(found, _LORA):
            return _low_rank(key, parts, alpha, root=root)
        if _is(found, _LOHA) and ("hada_t1" in found) == ("hada_t2" in found):
            return _hadamard(key, parts, alpha)
        if _is_kronecker(found):
            return _kronecker(key, parts, alpha)
    # Factors that do not multiply: torch says so in words of its own.
    except (RuntimeError, ValueError, IndexError) as error:
        raise IncompleteError(f"tensors whose shapes do not go together ({str(error).splitlines()[0][:200]})") from None
    raise IncompleteError(f"the tensors {', '.join(sorted(found))} alone, which make up no adapter")


def _is(found: frozenset[str], form: tuple[frozenset[str], frozenset[str]]) -> bool:
    needed, optional = form
    return needed <= found <= needed | optional


def _is_kronecker(found: frozenset[str]) -> bool:
    first = found & {"lokr_w1", "lokr_w1_a", "lokr_w1_b"}
    second = found - first
    return first in ({"lokr_w1"}, {"lokr_w1_a", "lokr_w1_b"}) and second in (
        {"lokr_w2"},
        {"lokr_w2_a", "lokr_w2_b"},
        {"lokr_w2_a", "lokr_w2_b", "lokr_t2"},
    )


def _low_rank(key: str, parts: Mapping[str, torch.Tensor], alpha: float | None, *, root: bool) -> LowRank:
    down, up, mid = parts["down"], parts["up"], parts.get("mid")
    rank = down.shape[0]
    if down.ndim not in {2, 4} or up.ndim not in {2, 4} or up.shape[1] != rank or up[0].numel() != rank:
        raise ValueError(f"down {tuple(down.shape)}, up {tuple(up.shape)}")
    if mid is not None and (mid.ndim != 4 or mid.shape[:2] != (rank, rank) or down[0].numel() != down.shape[1]):  # noqa: PLR2004 - a kernel
        raise ValueError(f"mid {tuple(mid.shape)}, down {tuple(down.shape)}")
    return LowRank(key, down, up, mid, _scale(alpha, math.sqrt(rank) if root else rank, rank))


def _hadamard(key: str, parts: Mapping[str, torch.Tensor], alpha: float | None) -> Dense:
    weights = [
        _factor(parts[f"hada_w{number}_a"], parts[f"hada_w{number}_b"], parts.get(f"hada_t{number}")) for number in "12"
    ]
    rank = parts["hada_w1_b"].shape[0]
    return Dense(key, weights[0] * weights[1], _scale(alpha, rank, rank))


def _kronecker(key: str, parts: Mapping[str, torch.Tensor], alpha: float | None) -> Dense:
    ranks = [parts[name].shape[0] for name in ("lokr_w2_b", "lokr_w1_b") if name in parts]
    first = parts["lokr_w1"] if "lokr_w1" in parts else parts["lokr_w1_a"] @ parts["lokr_w1_b"]
    second = (
        parts["lokr_w2"]
        if "lokr_w2" in parts
        else _factor(parts["lokr_w2_a"], parts["lokr_w2_b"], parts.get("lokr_t2"))
    )
    if first.ndim != 2:  # noqa: PLR2004 - a matrix
        raise ValueError(f"lokr_w1 {tuple(first.shape)}")
    if second.ndim == 4:  # noqa: PLR2004 - a kernel
        first = first[..., None, None]
    # Two whole factors have no rank, and their alpha says nothing.
    scale = _scale(alpha, ranks[0], ranks[0]) if ranks else 1.0
    return Dense(key, torch.kron(first, second.contiguous()), scale)


def _factor(one: torch.Tensor, other: torch.Tensor, kernel: torch.Tensor | None) -> torch.Tensor:
    """Multiply two factors: outputs x rank by rank x inputs.

    Around a kernel (rank x rank x height x width) they are rank x outputs and rank x inputs.
    """
    if kernel is None:
        return one @ other
    return torch.einsum("ijkl,ip,jr->prkl", kernel, one, other)


def _scale(alpha: float | None, by: float, rank: int) -> float:
    return (rank if alpha is None else alpha) / by
