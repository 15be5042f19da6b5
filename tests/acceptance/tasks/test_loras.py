"""LoRA stacks, embeddings, VAEs and clip skip over HTTP, judged by pixels."""

from collections.abc import Sequence

import numpy as np
import pytest

from reference_models.judge import Expected, judge
from reference_models.styles import frame_score, ground_score, inside, saturation
from tests.acceptance.tasks.conftest import Pixels, Studio

PROMPT = "a red circle on a blue background"
SEEDS = 6


def _with(studio: Studio, *loras: tuple[str, float], prompt: str = PROMPT, **fields: object) -> list[Pixels]:
    stack = [{"name": name, "weight": weight} for name, weight in loras]
    return studio.all(prompt=prompt, loras=stack, seed=40, num_images=SEEDS, **fields)


def _mean(scores: Sequence[float]) -> float:
    return float(np.mean(scores))


def test_weight_decides_how_much_of_a_lora_is_seen(studio: Studio) -> None:
    """The effects at -1, 0, 0.5 and 1 stand in this order."""
    found = [_mean([frame_score(each) for each in _with(studio, ("shapes-frame", w))]) for w in (-1.0, 0.0, 0.5, 1.0)]
    assert found[0] <= found[1] + 0.02
    assert found[1] < found[2] < found[3], found
    assert found[3] > 0.8, found


def test_two_loras_add_up(studio: Studio) -> None:
    """Both styles are in the picture, and the prompt is still followed."""
    both = _with(studio, ("shapes-frame", 1.0), ("shapes-ground", 1.0))
    plain = _with(studio)
    assert _mean([frame_score(each) for each in both]) > _mean([frame_score(each) for each in plain]) + 0.4
    assert _mean([ground_score(each) for each in both]) > _mean([ground_score(each) for each in plain]) + 0.4


def test_without_loras_the_picture_is_that_of_before(studio: Studio) -> None:
    """A, then B, then A again gives A's picture bit for bit, and no LoRA gives the base model's; a weight of 0 does too."""
    base = _with(studio)
    first = _with(studio, ("shapes-frame", 1.0))
    other = _with(studio, ("shapes-ground", 0.7), ("shapes-frame-2", -0.5))
    again = _with(studio, ("shapes-frame", 1.0))
    assert [each.tobytes() for each in again] == [each.tobytes() for each in first]
    assert [each.tobytes() for each in _with(studio)] == [each.tobytes() for each in base]
    assert [each.tobytes() for each in _with(studio, ("shapes-frame", 0.0))] == [each.tobytes() for each in base]
    assert not {each.tobytes() for each in other} & {each.tobytes() for each in (*first, *base)}


def test_tag_in_the_prompt_is_a_lora(studio: Studio) -> None:
    """`<lora:name:weight>` draws what the field draws, and leaves the prompt."""
    tagged = studio.view(prompt=f"{PROMPT} <lora:shapes-frame:0.8>", seed=3)
    field = studio.view(prompt=PROMPT, loras=[{"name": "shapes-frame", "weight": 0.8}], seed=3)
    assert tagged["request"]["prompt"].strip() == PROMPT
    assert tagged["request"]["loras"] == field["request"]["loras"]
    assert studio.picture(tagged).tobytes() == studio.picture(field).tobytes()


def test_kohya_layout_draws_what_diffusers_layout_draws(studio: Studio) -> None:
    """One LoRA in the layouts of two programs gives the same pictures bit for bit."""
    ours = _with(studio, ("shapes-frame", 0.9))
    theirs = _with(studio, ("frame-kohya", 0.9))
    assert [each.tobytes() for each in theirs] == [each.tobytes() for each in ours]


@pytest.mark.parametrize("name", ["frame-locon", "frame-loha", "frame-lokr"])
def test_other_layouts_change_the_picture(studio: Studio, name: str) -> None:
    """LoCon, LoHa and LoKr files are read and applied."""
    plain, changed = _with(studio)[0], _with(studio, (name, 0.02))[0]
    assert plain.tobytes() != changed.tobytes()


def test_embedding_means_what_it_was_trained_for(studio: Studio) -> None:
    """Its name draws its look; as a negative prompt it leads away from it."""
    named = studio.all(prompt="shapes-dusk", seed=1, num_images=8)
    right = [judge(each, Expected("circle", "orange", "purple")).all_right for each in named]
    assert sum(right) >= 6, right
    against = studio.all(prompt="a shape on a background", negative_prompt="shapes-dusk", seed=1, num_images=8)
    assert not any(judge(each, Expected("circle", "orange", "purple")).all_right for each in against)
    view = studio.view(prompt="Shapes-Dusk", seed=1)
    assert view["request"]["embeddings"] == ["shapes-dusk"]


def test_vae_of_the_request_decodes(studio: Studio) -> None:
    """The grey VAE takes the colours away and leaves the shape; the next job is coloured again."""
    grey = studio.draw(prompt=PROMPT, vae="shapes-grey", seed=7)
    coloured = studio.draw(prompt=PROMPT, seed=7)
    assert saturation(grey) < 0.08
    assert saturation(coloured) > 0.4


def test_clip_skip_reads_the_prompt_otherwise(studio: Studio) -> None:
    """Skipping the last layer gives another picture of the same thing."""
    plain, skipped = studio.draw(prompt=PROMPT, seed=7), studio.draw(prompt=PROMPT, seed=7, clip_skip=2)
    assert plain.tobytes() != skipped.tobytes()
    assert judge(skipped, Expected("circle", "red", "blue")).all_right


def test_stacked_styles_leave_the_shape(studio: Studio) -> None:
    """Inside the frame most pictures still show what the prompt says."""
    framed = _with(studio, ("shapes-frame", 1.0))
    right = [judge(inside(each), Expected("circle", "red", "blue")).all_right for each in framed]
    assert sum(right) >= SEEDS - 1, right
