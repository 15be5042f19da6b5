"""Preprocessors: the same size out as in, offline, from safetensors alone; and the task `preprocess` step by step."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.contract import PreprocessParameters
from jobs.errors import DrawingFailed, ModelDamaged, ModelMissing
from jobs.inputs import Inputs
from models_registry.entries import ANY_FAMILY, Kind, Layout, ModelEntry
from models_registry.preprocessors import PREPROCESSORS
from pipelines.engine.checkpoint import Checkpoint
from pipelines.engine.engine import Counters
from pipelines.engine.state import State
from pipelines.pictures import Pixels
from pipelines.preprocessing.annotator import load_annotator
from pipelines.preprocessing.convert import convert
from pipelines.preprocessing.convert import main as convert_main
from pipelines.preprocessing.drawer import PreprocessDrawer
from pipelines.preprocessing.networks import NETWORKS, quiet
from pipelines.preprocessing.preprocess import preprocess
from pipelines.preprocessing.weightless import WEIGHTLESS
from pipelines.shelf import Shelf
from tests.contracts.pipelines.upscalers import SOURCE, picture, png

CPU = torch.device("cpu")


def annotator_entry(path: Path) -> ModelEntry:
    """Describe a file in a folder `annotators` as the registry would."""
    return ModelEntry(
        name=path.stem,
        kind=Kind.PREPROCESSOR,
        layout=Layout.SINGLE_FILE,
        family=ANY_FAMILY,
        path=path,
        fingerprint=path.stem.encode().hex().ljust(64, "0")[:64],
        components=(),
    )


def save_random(name: str, folder: Path) -> ModelEntry:
    """Save the network of a preprocessor with random weights."""
    with quiet(), torch.random.fork_rng():
        torch.manual_seed(5)
        network = NETWORKS[name].make().network
    path = folder / f"{name}.safetensors"
    save_file({key: tensor.clone().contiguous() for key, tensor in network.state_dict().items()}, path)
    return annotator_entry(path)


@pytest.fixture
def shelf() -> Shelf:
    """Return an empty shelf."""
    return Shelf({Kind.PREPROCESSOR: load_annotator}, CPU, torch.float32, Counters())


def test_every_listed_preprocessor_is_there() -> None:
    """What the API accepts is what can be run, and nothing else."""
    without = {name for name, facts in PREPROCESSORS.items() if not facts.needs_weights}
    assert without == WEIGHTLESS.keys()
    assert PREPROCESSORS.keys() - without == NETWORKS.keys()
    assert all(name == facts.name for name, facts in PREPROCESSORS.items())
    for facts in PREPROCESSORS.values():
        assert all(each.low <= each.default <= each.high for each in facts.options.values())
        own = NETWORKS[facts.name].options.keys() if facts.needs_weights else facts.options.keys()
        assert own <= facts.options.keys()


@pytest.mark.parametrize("options", [{}, {"low_threshold": 20.0}, {"low_threshold": 10.0, "high_threshold": 30.0}])
def test_canny_equals_opencv(options: dict[str, float]) -> None:
    """White edges on black, three equal channels, by the thresholds asked for."""
    source = picture(90, 70)
    made = preprocess("canny", source, options)
    wanted = cv2.Canny(source, options.get("low_threshold", 100), options.get("high_threshold", 200))
    assert made.shape == source.shape
    assert set(np.unique(made)) == {0, 255}
    assert all(np.array_equal(made[..., channel], wanted) for channel in range(3))


@pytest.mark.parametrize("name", sorted(WEIGHTLESS))
@pytest.mark.parametrize("size", [(1, 1), (37, 21), (300, 40)])
def test_weightless_preprocessor_keeps_the_size_and_repeats(name: str, size: tuple[int, int]) -> None:
    """Any picture comes out as large as it went in, twice the same, and the source stays as it was."""
    source = picture(*size)
    before = source.copy()
    first, second = preprocess(name, source, {}), preprocess(name, source, {})
    assert first.shape == source.shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, second)
    assert np.array_equal(source, before)


def test_weightless_preprocessors_do_what_they_are_called() -> None:
    """A dark bar on bright ground is inverted, cut at a brightness, blurred, traced and moved."""
    source = np.full((64, 64, 3), 230, np.uint8)
    source[:, 28:32] = 20
    assert np.array_equal(preprocess("invert", source, {}), 255 - source)
    cut = preprocess("threshold", source, {"threshold": 100})
    assert np.array_equal(cut, np.where(source > 100, 255, 0))
    blurred = preprocess("blur", source, {"sigma": 3})
    assert 20 < blurred[32, 29, 0] < 230
    traced = preprocess("scribble_xdog", source, {})
    assert (traced[:, 29:31] == 255).all()
    assert (traced[:, :20] == 0).all()
    gradient = picture(64, 64)
    moved = preprocess("shuffle", gradient, {})
    assert not np.array_equal(moved, gradient)
    assert abs(float(moved.mean()) - float(gradient.mean())) < 60


@pytest.mark.parametrize(
    "name", ["softedge_hed", "softedge_pidinet", "softedge_teed", "mlsd", "lineart_realistic", "scribble_pidinet"]
)
def test_network_preprocessor_works_offline(
    name: str, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With weights from one safetensors file the real network runs, for odd sizes too, and opens no connection."""

    def refuse(*_args: object) -> None:
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    entry = save_random(name, tmp_path)
    for width, height in ((70, 45), (300, 3)):
        source = picture(width, height)
        made = preprocess(name, source, {"resolution": 64}, entry, shelf.take)
        assert made.shape == (height, width, 3)
        assert made.dtype == np.uint8
    counters: Counters = shelf._counters  # noqa: SLF001
    assert counters.component_loads == 1
    assert shelf.bytes >= sum(tensor.nbytes for tensor in load_file(entry.path).values() if tensor.is_floating_point())


def test_network_preprocessor_equals_its_detector(shelf: Shelf, tmp_path: Path) -> None:
    """At the size that the network sees, the result is controlnet-aux's own, bit for bit; other weights give another one."""
    entry = save_random("softedge_hed", tmp_path)
    source = picture(128, 64)
    made = preprocess("softedge_hed", source, {"resolution": 64}, entry, shelf.take)
    by_hand = NETWORKS["softedge_hed"].make()
    by_hand.network.load_state_dict(load_file(entry.path))
    wanted: Pixels = by_hand.detector(source, detect_resolution=64, image_resolution=64, output_type="np")
    assert np.array_equal(made, wanted)
    state = {name: tensor.clone() * 2 for name, tensor in load_file(entry.path).items()}
    save_file(state, tmp_path / "other.safetensors")
    other = entry.model_copy(update={"path": tmp_path / "other.safetensors", "fingerprint": "f" * 64})
    assert not np.array_equal(preprocess("softedge_hed", source, {"resolution": 64}, other, shelf.take), made)


def test_openpose_file_may_leave_the_first_part_of_names_away(tmp_path: Path) -> None:
    """The file that everybody has names its tensors otherwise than the network does."""
    entry = save_random("openpose", tmp_path)
    state = {name.split(".", 1)[1]: tensor.clone() for name, tensor in load_file(entry.path).items()}
    save_file(state, tmp_path / "short.safetensors")
    short = load_annotator(entry.model_copy(update={"path": tmp_path / "short.safetensors"}), CPU, torch.float32)
    whole = load_annotator(entry, CPU, torch.float32)
    pairs = [each.detector.body_estimation.model.state_dict() for each in (short, whole)]
    assert all(torch.equal(pairs[0][name], pairs[1][name]) for name in pairs[1])


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    """Cut, foreign, pickled and missing files fail with their name."""
    entry = save_random("softedge_teed", tmp_path)
    whole = entry.path.read_bytes()
    entry.path.write_bytes(whole[:-10])
    with pytest.raises(ModelDamaged, match=r"softedge_teed\.safetensors"):
        load_annotator(entry, CPU, torch.float32)
    save_file({"strange": torch.zeros(3)}, entry.path)
    with pytest.raises(ModelDamaged, match="strange"):
        load_annotator(entry, CPU, torch.float32)
    torch.save({"strange": torch.zeros(3)}, entry.path)
    with pytest.raises(ModelDamaged, match=r"softedge_teed\.safetensors"):
        load_annotator(entry, CPU, torch.float32)
    entry.path.unlink()
    with pytest.raises(ModelMissing, match=r"softedge_teed\.safetensors"):
        load_annotator(entry, CPU, torch.float32)


def test_preprocess_says_what_is_wrong() -> None:
    """An unknown name, an unknown option and absent weights are failures with words."""
    source = picture(8, 8)
    with pytest.raises(DrawingFailed, match="nope"):
        preprocess("nope", source, {})
    with pytest.raises(DrawingFailed, match="sigma"):
        preprocess("canny", source, {"sigma": 1})
    with pytest.raises(DrawingFailed, match="softedge_hed"):
        preprocess("softedge_hed", source, {})


def test_converter_takes_tensors_out_of_pickles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrapped and prefixed tensors come out by their names; code in the file is never run."""
    source, target = tmp_path / "weights.pth", tmp_path / "weights.safetensors"
    weights = torch.arange(6.0).reshape(2, 3)
    torch.save({"state_dict": {"module.a": weights.T, "module.b": weights}, "epoch": 3}, source)
    assert convert(source, target) == 2
    read = load_file(target)
    assert torch.equal(read["a"], weights.T)
    assert torch.equal(read["b"], weights)
    assert convert_main([str(source), str(target)]) == 0
    assert "2 tensors" in capsys.readouterr().out

    torch.save({"a": weights, "evil": _Evil(tmp_path / "was-run")}, source)
    target.unlink()
    assert convert_main([str(source), str(target)]) == 1
    assert "weights.pth" in capsys.readouterr().err
    assert not (tmp_path / "was-run").exists()
    assert not target.exists()
    torch.save([1, 2], source)
    assert convert_main([str(source), str(target)]) == 1


class _Evil:
    """Leave a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self._mark,))


# -- the task ------------------------------------------------------------------------------------------------------------


def parameters(source: Pixels, name: str = "canny", **options: float) -> PreprocessParameters:
    """Return the parameters of a preprocessing."""
    return PreprocessParameters(
        model=name,
        width=source.shape[1],
        height=source.shape[0],
        seed=3,
        preview_every=1,
        image=SOURCE,
        preprocessor=name,
        preprocessor_options=options,
    )


@pytest.fixture
def drawer(shelf: Shelf) -> Iterator[PreprocessDrawer]:
    """Return a drawer; every state must be closed at the end."""
    made = PreprocessDrawer(shelf.take, Counters())
    yield made
    left = set(made.open_states)
    made.close()
    assert not left


def end(drawer: PreprocessDrawer, state: State) -> Pixels:
    """Step to the end, finish and close."""
    while state.phase == "denoise":
        assert not drawer.step([state]).errors
    [made] = drawer.finish([state])
    state.close()
    return made.array


def test_stepped_preprocessing_equals_the_plain_one(drawer: PreprocessDrawer, tmp_path: Path) -> None:
    """One step makes the picture, beside another one and a cancelled one, with and without weights."""
    source, other = picture(60, 40), picture(31, 50, seed=2)
    state = drawer.prepare(parameters(source, low_threshold=30), 0, Inputs({}, {SOURCE: png(source)}))
    cancelled = drawer.prepare(parameters(source), 0, Inputs({}, {SOURCE: png(source)}))
    assert (state.step, state.total, state.phase) == (0, 1, "denoise")
    assert not drawer.step([state, cancelled]).errors
    entry = save_random("softedge_pidinet", tmp_path)
    late = drawer.prepare(
        parameters(other, "softedge_pidinet", resolution=64), 0, Inputs({entry.ref: entry}, {SOURCE: png(other)})
    )
    cancelled.close()
    assert (state.step, state.phase) == (1, "decode")
    preview = state.preview()
    made = end(drawer, state)
    assert preview is not None
    assert np.array_equal(preview, made)
    assert np.array_equal(made, preprocess("canny", source, {"low_threshold": 30}))
    take = Shelf({Kind.PREPROCESSOR: load_annotator}, CPU, torch.float32, Counters()).take
    wanted = preprocess("softedge_pidinet", other, {"resolution": 64}, entry, take)
    assert np.array_equal(end(drawer, late), wanted)


def test_preprocessing_resumed_in_a_new_process_equals_the_plain_one(drawer: PreprocessDrawer, tmp_path: Path) -> None:
    """Between the step and the end a checkpoint leads another process to the same bits."""
    source = picture(60, 40)
    wanted = parameters(source)
    state = drawer.prepare(wanted, 0, Inputs({}, {SOURCE: png(source)}))
    assert not drawer.step([state]).errors
    kept = state.checkpoint().to_bytes()
    state.close()
    assert Checkpoint.from_bytes(kept).step == 1
    (tmp_path / "checkpoint").write_bytes(kept)
    (tmp_path / "source.png").write_bytes(png(source))
    (tmp_path / "parameters.json").write_text(json.dumps(wanted.model_dump(mode="json")))
    subprocess.run(
        [sys.executable, Path(__file__).with_name("preprocess_process.py"), tmp_path], check=True, timeout=120
    )
    assert np.array_equal(np.load(tmp_path / "picture.npy"), preprocess("canny", source, {}))


def test_preprocessing_without_its_weights_is_told(drawer: PreprocessDrawer) -> None:
    """A network that was not handed over is a missing model."""
    source = picture(10, 10)
    with pytest.raises(ModelMissing, match="softedge_hed"):
        drawer.prepare(parameters(source, "softedge_hed"), 0, Inputs({}, {SOURCE: png(source)}))
    state = drawer.prepare(parameters(source, "canny", sigma=2), 0, Inputs({}, {SOURCE: png(source)}))
    assert isinstance(drawer.step([state]).errors[state], DrawingFailed)
    state.close()
