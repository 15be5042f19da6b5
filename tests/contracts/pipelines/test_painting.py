"""What the tasks that start from a picture promise about its pixels, with models of random weights."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from jobs.contract import DiffusionJob, parse_parameters
from jobs.errors import DrawingFailed, PictureUnreadable
from jobs.geometry import steps_per_picture
from jobs.inputs import Inputs
from pipelines.families.base import Family
from pipelines.loading import load
from tests.contracts.pipelines.conftest import build_tiny_sd15, entry_for

_SOURCE, _MASK = "upload:" + "a" * 64, "upload:" + "b" * 64
Raster = npt.NDArray[np.uint8]


def _file(raster: Raster) -> bytes:
    file = io.BytesIO()
    Image.fromarray(raster).save(file, "PNG")
    return file.getvalue()


def _source(width: int = 48, height: int = 40) -> Raster:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)


def _mask(kind: str, width: int = 48, height: int = 40) -> Raster:
    """Return a mask with one ragged hole: `hard`, `grey` levels, or everything."""
    if kind == "all":
        return np.full((height, width), 255, np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[7:23, 11:31] = 255
    mask[23:25, 15:19] = 255
    if kind == "grey":
        mask[7:23, 11:31] = np.linspace(20, 255, 20).astype(np.uint8)
    return mask


@pytest.fixture(scope="module", params=[False, True], ids=["4 channels", "9 channels"])
def painter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    """Return a checkpoint of each kind."""
    family = load(entry_for(build_tiny_sd15(tmp_path_factory.mktemp("models") / "tiny", inpaint=request.param)), "cpu")
    yield family
    family.close()


def _draw(family: Family, pictures: dict[str, Raster], **fields: Any) -> Raster:
    """Return the finished picture, having checked that no state stays open."""
    wanted = parse_parameters(
        {
            "model": "tiny",
            "prompt": "a red circle",
            "width": 48,
            "height": 40,
            "steps": 3,
            "guidance_scale": 3.0,
            "scheduler": "Euler",
            "seed": 7,
            "preview_every": 0,
            **fields,
        }
    )
    assert isinstance(wanted, DiffusionJob)
    state = family.prepare(wanted, 0, Inputs(pictures={ref: _file(raster) for ref, raster in pictures.items()}))
    try:
        while state.phase == "denoise":
            assert not family.step([state]).errors
        assert state.step in {0, steps_per_picture(wanted)}
        return family.finish([state])[0].array
    finally:
        state.close()


def _inpaint(family: Family, kind: str = "hard", **fields: Any) -> Raster:
    pictures = {_SOURCE: _source(), _MASK: _mask(kind)}
    return _draw(family, pictures, **{"task": "inpaint", "image": _SOURCE, "mask": _MASK, **fields})


@pytest.mark.parametrize("kind", ["hard", "grey"])
@pytest.mark.parametrize("blur", [0, 5])
@pytest.mark.parametrize("area", ["whole", "masked"])
def test_outside_of_the_mask_stays_bit_for_bit(painter: Family, kind: str, blur: int, area: str) -> None:
    """Hard, blurred and grey masks, drawn whole and by a cut-out of another size: only what the mask covers changes."""
    size = {"width": 48, "height": 40} if area == "whole" else {"width": 64, "height": 64}
    drawn = _inpaint(painter, kind, mask_blur=blur, inpaint_area=area, inpaint_padding=3, **size)
    outside = _mask(kind) == 0
    assert drawn.shape == (40, 48, 3)
    assert (drawn[outside] == _source()[outside]).all()
    assert (drawn[~outside] != _source()[~outside]).any(axis=-1).mean() > 0.9


def test_inverted_mask_changes_the_other_pixels(painter: Family) -> None:
    """What was white stays bit for bit."""
    drawn = _inpaint(painter, mask_invert=True, mask_blur=0)
    inside = _mask("hard") == 255
    assert (drawn[inside] == _source()[inside]).all()
    assert (drawn[~inside] != _source()[~inside]).any(axis=-1).mean() > 0.9


def test_blur_mixes_the_source_in_at_the_edge(painter: Family) -> None:
    """The outermost pixels are nearer to the source than without blur, the middle is drawn alone."""
    hard, soft = (_inpaint(painter, mask_blur=blur).astype(int) for blur in (0, 6))
    source = _source().astype(int)
    edge = np.s_[7, 11:31]
    assert np.abs(soft[edge] - source[edge]).mean() < 0.5 * np.abs(hard[edge] - source[edge]).mean()
    assert (soft[15, 21] == hard[15, 21]).all()


def test_size_that_is_no_multiple_is_drawn_and_kept(painter: Family) -> None:
    """A picture of 45 x 37 comes back as 45 x 37, outside of the mask bit for bit."""
    source, mask = _source(45, 37), _mask("hard", 45, 37)
    mask[30:, 40:] = 255
    drawn = _draw(
        painter, {_SOURCE: source, _MASK: mask}, task="inpaint", image=_SOURCE, mask=_MASK, width=45, height=37
    )
    assert drawn.shape == source.shape
    assert (drawn[mask == 0] == source[mask == 0]).all()
    assert (drawn[36, 44] != source[36, 44]).any()


def test_mask_of_another_size_is_brought_to_the_source(painter: Family) -> None:
    """A mask drawn on a thumbnail covers the same part."""
    small = np.zeros((20, 24), np.uint8)
    small[4:12, 6:16] = 255
    large = small.repeat(2, 0).repeat(2, 1)
    fields = {"task": "inpaint", "image": _SOURCE, "mask": _MASK}
    drawn = [_draw(painter, {_SOURCE: _source(), _MASK: mask}, **fields) for mask in (small, large)]
    assert np.array_equal(drawn[0], drawn[1])


@pytest.mark.parametrize("margins", [{"left": 8, "right": 16}, {"top": 5, "bottom": 3, "left": 1}])
def test_outpainting_keeps_the_picture_bit_for_bit(painter: Family, margins: dict[str, int]) -> None:
    """The canvas grows by what was asked, the old picture stands in it unchanged, and the new part is drawn."""
    left, top = margins.get("left", 0), margins.get("top", 0)
    drawn = _draw(painter, {_SOURCE: _source()}, task="inpaint", image=_SOURCE, outpaint=margins)
    assert drawn.shape == (40 + top + margins.get("bottom", 0), 48 + left + margins.get("right", 0), 3)
    old = np.s_[top : top + 40, left : left + 48]
    assert (drawn[old] == _source()).all()
    replicated = np.pad(
        _source(), ((top, margins.get("bottom", 0)), (left, margins.get("right", 0)), (0, 0)), mode="edge"
    )
    new = np.ones(drawn.shape[:2], bool)
    new[old] = False
    assert (drawn[new] != replicated[new]).any(axis=-1).mean() > 0.8


def test_outpainting_with_a_mask_draws_both(painter: Family) -> None:
    """What the mask covers and the new part change, the rest does not."""
    drawn = _inpaint(painter, outpaint={"right": 8})
    old, mask = drawn[:, :48], _mask("hard")
    assert (old[mask == 0] == _source()[mask == 0]).all()
    assert (old[mask > 0] != _source()[mask > 0]).any(axis=-1).mean() > 0.9


def test_masked_content_decides_the_start(painter: Family) -> None:
    """Below full strength the four kinds of content lead to four pictures; at full strength content under the mask is not seen."""
    kinds = ("original", "fill", "noise", "nothing")
    half = {_inpaint(painter, masked_content=kind, strength=0.4, mask_blur=0).tobytes() for kind in kinds}
    assert len(half) == 4


def test_empty_mask_returns_the_picture(painter: Family) -> None:
    """Where there is nothing to draw, nothing is."""
    before = painter.counters.denoise_calls
    empty = np.zeros((40, 48), np.uint8)
    for area in ("whole", "masked"):
        drawn = _draw(
            painter,
            {_SOURCE: _source(), _MASK: empty},
            task="inpaint",
            image=_SOURCE,
            mask=_MASK,
            inpaint_area=area,
        )
        assert np.array_equal(drawn, _source())
    assert painter.counters.denoise_calls == before


def test_mask_of_everything_is_drawn_whole(painter: Family) -> None:
    """Without an outside every pixel is the drawing's."""
    drawn = _inpaint(painter, "all")
    assert (drawn != _source()).any(axis=-1).mean() > 0.95


def test_strength_zero_calls_no_model(painter: Family) -> None:
    """The picture comes back resized and otherwise as it was."""
    counters = painter.counters
    before = (counters.denoise_calls, counters.encodes, counters.decodes)
    assert np.array_equal(_inpaint(painter, strength=0.0), _source())
    assert (counters.denoise_calls, counters.encodes, counters.decodes) == before


def test_inpainting_checkpoint_draws_nothing_else(painter: Family) -> None:
    """Its denoiser has no input without a mask: said in words, where an ordinary checkpoint draws."""
    if painter.pipe.unet.config.in_channels == 9:
        with pytest.raises(DrawingFailed, match="inpainting"):
            _draw(painter, {}, task="txt2img")
    else:
        assert _draw(painter, {}, task="txt2img").shape == (40, 48, 3)


def test_picture_that_cannot_be_read_fails_in_words(painter: Family) -> None:
    """Before any model is called."""
    wanted = {"task": "inpaint", "image": _SOURCE, "mask": _MASK}
    with pytest.raises(PictureUnreadable):
        _draw(painter, {_SOURCE: _source()}, **wanted)


class TestImg2Img:
    """Image to image with an ordinary checkpoint."""

    @pytest.fixture
    def pictures(self) -> dict[str, Raster]:
        """Return one source."""
        return {_SOURCE: _source(60, 40)}

    def test_strength_zero_returns_the_picture(self, family: Family, pictures: dict[str, Raster]) -> None:
        """Cut to the shape that was asked for, by no model."""
        drawn = _draw(family, pictures, task="img2img", image=_SOURCE, strength=0.0)
        assert np.array_equal(drawn, pictures[_SOURCE][:, 6:54])
        assert family.counters.denoise_calls + family.counters.encodes + family.counters.decodes == 0

    def test_strength_one_is_text_to_image(self, family: Family, pictures: dict[str, Raster]) -> None:
        """With the same seed, bit for bit, whatever the source."""
        drawn = _draw(family, pictures, task="img2img", image=_SOURCE, strength=1.0)
        assert np.array_equal(drawn, _draw(family, {}, task="txt2img"))
        assert family.counters.encodes == 0

    @pytest.mark.parametrize("steps", [1, 7, 10, 100])
    def test_every_strength_takes_the_steps_that_were_counted(
        self, family: Family, pictures: dict[str, Raster], steps: int
    ) -> None:
        """Products that floating point rounds down by one (0.29 x 100) included; small strengths take one step."""
        for strength in (0.01, 0.29, 0.57, 0.7, 0.99):
            before = family.counters.steps
            _draw(family, pictures, task="img2img", image=_SOURCE, strength=strength, steps=steps, width=16, height=16)
            assert family.counters.steps - before == max(1, int(steps * strength))

    def test_resize_modes_differ(self, family: Family, pictures: dict[str, Raster]) -> None:
        """Stretch, crop and fill see different sources."""
        drawn = {
            _draw(family, pictures, task="img2img", image=_SOURCE, strength=0.5, resize_mode=mode).tobytes()
            for mode in ("stretch", "crop", "fill")
        }
        assert len(drawn) == 3


def test_second_pass_reaches_its_size(family: Family) -> None:
    """The result is as large as the second pass, in multiples of the family's step."""
    drawn = _draw(family, {}, task="txt2img", hires={"scale": 1.3, "upscaler": "nearest"})
    assert drawn.shape == (48, 64, 3)
