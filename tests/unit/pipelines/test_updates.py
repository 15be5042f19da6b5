"""Updates are multiplied as the whole matrices would be, and sketches estimate the products."""

from pathlib import Path

import pytest
import torch

from jobs.analysing.findings import SKETCH_LENGTH
from pipelines.adapters.deltas import Delta, Dense, LowRank
from pipelines.adapters.lora import Lora
from pipelines.analysis.sketch import signature
from pipelines.analysis.updates import Update, cosine, inner, update_of

Maker = torch.Generator


def low_rank(maker: Maker, outputs: int = 12, inputs: int = 10, rank: int = 3) -> LowRank:
    """Return a LoRA of a linear layer with alpha 2."""
    return LowRank(
        "x", torch.randn(rank, inputs, generator=maker), torch.randn(outputs, rank, generator=maker), None, 2 / rank
    )


def convolution(maker: Maker) -> LowRank:
    """Return a LoCon of a 3 x 3 convolution."""
    return LowRank("x", torch.randn(4, 6, 3, 3, generator=maker), torch.randn(8, 4, 1, 1, generator=maker), None, 0.5)


def tucker(maker: Maker) -> LowRank:
    """Return a LoCon of a 3 x 3 convolution in Tucker form."""
    return LowRank(
        "x",
        torch.randn(4, 6, 1, 1, generator=maker),
        torch.randn(8, 4, 1, 1, generator=maker),
        torch.randn(4, 4, 3, 3, generator=maker),
        0.5,
    )


def whole(maker: Maker) -> Dense:
    """Return a LoHa of a 3 x 3 convolution."""
    return Dense("x", torch.randn(8, 6, 3, 3, generator=maker), 0.25)


def expanded(delta: Delta) -> torch.Tensor:
    """Write out what a delta adds to the weight, by the definition of its form and not by its factors' order."""
    if isinstance(delta, Dense):
        return delta.weight.double() * delta.scale
    up, down = delta.up.double(), delta.down.double()
    if delta.mid is not None:
        product = torch.einsum("op,pqhw,qi->oihw", up.flatten(1), delta.mid.double(), down.flatten(1))
    else:
        product = torch.einsum("or,r...->o...", up.flatten(1), down)
    return product * delta.scale


@pytest.mark.parametrize("first", [convolution, tucker, whole])
@pytest.mark.parametrize("second", [convolution, tucker, whole])
def test_inner_equals_that_of_the_expanded_matrices(first: object, second: object) -> None:
    """Every two forms of a convolution's update multiply as the whole kernels do."""
    maker = torch.Generator().manual_seed(1)
    one, other = first(maker), second(maker)  # type: ignore[operator]
    found = inner(update_of(one), update_of(other))
    wanted = float((expanded(one) * expanded(other)).sum())
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9)


def lora(seed: int, **deltas: Delta) -> Lora:
    """Return a LoRA of these layers of the UNet, or of three drawn by the seed."""
    maker = torch.Generator().manual_seed(seed)
    drawn = deltas or {"a": low_rank(maker), "b": convolution(maker), "c": low_rank(maker, 7, 5)}
    return Lora(Path("/x"), f"print-{seed}", {"unet": drawn})


def flat(one: Lora) -> torch.Tensor:
    """Write out everything a LoRA adds as one vector."""
    return torch.cat([expanded(delta).flatten() for delta in one.deltas["unet"].values()])


def test_cosine_equals_the_expanded_one() -> None:
    """Over several layers of several forms, within 1e-5."""
    one, other = lora(1), lora(2)
    wanted = torch.nn.functional.cosine_similarity(flat(one), flat(other), dim=0)
    found = cosine(one, other)
    assert abs(found.value - float(wanted)) < 1e-5
    assert found.layers == 3
    assert cosine(one, one).value == pytest.approx(1.0)


def test_cosine_counts_the_layers_that_only_one_changes() -> None:
    """A layer the other does not have, or has in another shape, makes them differ."""
    shared = low_rank(torch.Generator().manual_seed(1))
    mine = lora(0, a=shared, b=low_rank(torch.Generator().manual_seed(2)))
    theirs = lora(0, a=shared, b=low_rank(torch.Generator().manual_seed(2), 9, 4), c=shared)
    found = cosine(mine, theirs)
    assert found.layers == 1
    square = float((expanded(shared) ** 2).sum())
    lengths = float(flat(mine).norm() * flat(theirs).norm())
    assert found.value == pytest.approx(square / lengths)


def test_cosine_of_a_lora_that_changes_nothing_is_zero() -> None:
    """No division by its length."""
    nothing = lora(0, a=Dense("x", torch.zeros(12, 10), 1.0))
    assert cosine(nothing, lora(1)).value == 0.0
    assert not any(_signed(nothing))


def _signed(one: Lora, length: int = SKETCH_LENGTH) -> list[float]:
    work = signature(one, length)
    while True:
        try:
            next(work)
        except StopIteration as end:
            return list(end.value.sketch)


def test_sketches_estimate_cosines_within_their_bound() -> None:
    """Over many pairs the mean error is about none, and its spread at most 3 over the root of the length."""
    errors = []
    for seed in range(0, 60, 2):
        # Half of one is in the other: cosines from about 0.3 up.
        maker = torch.Generator().manual_seed(seed)
        shared, own = low_rank(maker), convolution(maker)
        one, other = lora(0, a=shared, b=own), lora(0, a=shared, b=convolution(maker))
        estimate = sum(x * y for x, y in zip(_signed(one), _signed(other), strict=True))
        errors.append(estimate - cosine(one, other).value)
    spread = (sum(error * error for error in errors) / len(errors)) ** 0.5
    bound = 3 / SKETCH_LENGTH**0.5
    assert spread < bound
    # One set of signs for all pairs, so their errors hang together a little.
    assert abs(sum(errors) / len(errors)) < bound


def test_sketches_are_unbiased() -> None:
    """A longer sketch comes nearer: with 64 times the length, the error is within 64 times less variance."""
    one, other = lora(1), lora(1, a=lora(1).deltas["unet"]["a"], b=lora(2).deltas["unet"]["b"])
    long = 32 * 1024
    estimate = sum(x * y for x, y in zip(_signed(one, long), _signed(other, long), strict=True))
    assert abs(estimate - cosine(one, other).value) < 3 * 3 / long**0.5


def test_sketch_follows_from_the_content_alone() -> None:
    """Made again it is the same, in whatever order the layers come."""
    one = lora(3)
    turned = Lora(one.path, one.fingerprint, {"unet": dict(reversed(list(one.deltas["unet"].items())))})
    assert _signed(one) == pytest.approx(_signed(turned))


def test_update_of_a_linear_layer_equals_that_of_a_1_x_1_convolution() -> None:
    """Files write one and the same layer as either."""
    linear = low_rank(torch.Generator().manual_seed(4))
    kernel = LowRank("x", linear.down[..., None, None], linear.up[..., None, None], None, linear.scale)
    assert update_of(linear).shape == update_of(kernel).shape == (12, 10)
    assert inner(update_of(linear), update_of(kernel)) == pytest.approx(inner(update_of(linear), update_of(linear)))
    assert isinstance(update_of(kernel), Update)
