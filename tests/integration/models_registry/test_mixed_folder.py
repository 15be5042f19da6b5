"""A folder as people have them: checkpoints of every family, folders and single files, some damaged and some renamed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from infra.database import Connection
from models_registry.catalogue import read_catalogue
from models_registry.entries import Kind, Layout
from models_registry.reading.bounded_files import Reads
from models_registry.scanning.scan import ScanReport, scan
from tests.original_files import lay_beside, write_file
from tests.tiny import flux2, qwenimage, transformers, unets, zimage

#: Name of a folder → its builder, family, variant. Names lie where nothing else tells, and mislead elsewhere.
FOLDERS: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "stable-diffusion-v1-5": (unets.build_sd15, "sd15", "base"),
    "my favourite SDXL": (unets.build_sd15_inpaint, "sd15", "inpaint"),
    "stable-diffusion-2-base": (unets.build_sd2, "sd2", "base"),
    "model (3)": (unets.build_sd2_v, "sd2", "v"),
    "sd2-paint": (unets.build_sd2_inpaint, "sd2", "inpaint"),
    "stable-diffusion-xl-base-1.0": (unets.build_sdxl, "sdxl", "base"),
    "noob": (unets.build_sdxl_v, "sdxl", "v"),
    "xl-lightning": (unets.build_sdxl_refiner, "sdxl", "refiner"),
    "xl-paint": (unets.build_sdxl_inpaint, "sdxl", "inpaint"),
    "quick": (unets.build_sdxl_turbo, "sdxl", "turbo"),
    "quicker": (unets.build_sdxl_lightning, "sdxl", "lightning"),
    "consistent": (unets.build_sdxl_lcm, "sdxl", "lcm"),
    "my lcm": (unets.build_sdxl_lcm_full, "sdxl", "lcm-full"),
    "three": (transformers.build_sd3_medium, "sd3", "medium"),
    "three, small": (transformers.build_sd3_without_t5, "sd3", "medium"),
    "sd1.5 (really)": (transformers.build_sd35_medium, "sd3", "3.5-medium"),
    "large": (transformers.build_sd35_large, "sd3", "3.5-large"),
    "sd3.5-large-turbo": (transformers.build_sd35_large_turbo, "sd3", "3.5-large-turbo"),
    "FLUX.1-dev": (transformers.build_flux_dev, "flux", "dev"),
    "flux-fast": (transformers.build_flux_schnell, "flux", "schnell"),
    "filler": (transformers.build_flux_fill, "flux", "fill"),
    "edges": (transformers.build_flux_canny, "flux", "canny"),
    "FLUX-depth": (transformers.build_flux_depth, "flux", "depth"),
    "FLUX.1 small": (flux2.build_klein, "flux2", "klein"),
    "klein (distilled)": (flux2.build_klein_base, "flux2", "klein-base"),
    "klein, large": (flux2.build_dev, "flux2", "dev"),
    "not a FLUX": (qwenimage.build_qwenimage, "qwenimage", "base"),
    "Z-Image": (zimage.build_base, "zimage", "base"),
    "z, quick": (zimage.build_turbo, "zimage", "turbo"),
}
#: Name of a file → the folder that it is written from, family, variant.
FILES: dict[str, tuple[str, str, str]] = {
    "v1-5-pruned": ("stable-diffusion-v1-5", "sd15", "base"),
    "old one": ("model (3)", "sd2", "v"),
    "pony": ("stable-diffusion-xl-base-1.0", "sdxl", "base"),
    "PonyXL_Lightning": ("stable-diffusion-xl-base-1.0", "sdxl", "lightning"),
    "sd15-refined": ("xl-lightning", "sdxl", "refiner"),
    "sd3.5_medium": ("sd1.5 (really)", "sd3", "3.5-medium"),
    "flux1-all-in-one": ("FLUX.1-dev", "flux", "dev"),
    "flux1-fill": ("filler", "flux", "fill"),
}


def change(path: Path, **values: Any) -> None:
    """Change values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _pickled(folder: Path) -> None:
    (folder / "unet/diffusion_pytorch_model.safetensors").unlink()
    torch.save({}, folder / "unet/diffusion_pytorch_model.bin")


#: Name → the folder it is a copy of, what is done to it, the code it is refused by.
DAMAGED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "cut": ("noob", lambda f: _cut(f / "unet/diffusion_pytorch_model.safetensors"), "offsets_invalid"),
    "pickled": ("quick", _pickled, "pickle_refused"),
    "without-vae": ("large", lambda f: (f / "vae/diffusion_pytorch_model.safetensors").unlink(), "weights_missing"),
    "with-code": ("FLUX.1-dev", lambda f: (f / "transformer/pipeline.py").write_text(""), "code_refused"),
    "another-t5": ("flux-fast", lambda f: change(f / "text_encoder_2/config.json", d_model=32), "config_invalid"),
    "another-qwen": ("z, quick", lambda f: change(f / "text_encoder/config.json", hidden_size=32), "config_invalid"),
    "another-class": ("edges", lambda f: change(f / "model_index.json", vae=["os", "system"]), "class_refused"),
    "edit": ("not a FLUX", lambda f: change(f / "model_index.json", _class_name="QwenImageEditPipeline"), "unrecognised"),
    "flux2-dev": ("FLUX.1 small", lambda f: change(f / "model_index.json", _class_name="Flux2Pipeline"), "class_refused"),
    "kontext": ("FLUX.1-dev", lambda f: change(f / "model_index.json", _class_name="FluxKontextPipeline"), "unrecognised"),
}  # fmt: skip


def in_pieces(folder: Path, component: str, stem: str) -> None:
    """Cut a component's weights into two files, as the libraries save large ones."""
    place = folder / component
    whole = load_file(place / f"{stem}.safetensors")
    (place / f"{stem}.safetensors").unlink()
    names = [f"{stem}-{number:05}-of-00002.safetensors" for number in (1, 2)]
    places = {key: names[number % 2] for number, key in enumerate(sorted(whole))}
    for name in names:
        save_file({key: whole[key] for key, at in places.items() if at == name}, place / name)
    (place / f"{stem}.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the folder once; never change it."""
    root = tmp_path_factory.mktemp("models")
    for name, (build, _, _) in FOLDERS.items():
        build(root / "diffusers" / name)
    for name, (written, _, _) in FILES.items():
        write_file(root / "diffusers" / written, root / "Stable-diffusion" / f"{name}.safetensors")
    for name, (copied, damage, _) in DAMAGED.items():
        damage(Path(shutil.copytree(root / "diffusers" / copied, root / "broken" / name)))
    # Large models lie in pieces; a network alone has its parts beside it, or is refused.
    in_pieces(root / "diffusers/FLUX.1-dev", "transformer", "diffusion_pytorch_model")
    in_pieces(root / "diffusers/three", "text_encoder_3", "model")
    parts = ("vae", "text_encoder", "text_encoder_2")
    source = root / "diffusers/flux-fast"
    whole = write_file(source, root / "unet/flux1-schnell.safetensors", without=parts, bare=True)
    lay_beside(source, whole, *parts)
    write_file(source, root / "unet/flux1-alone.safetensors", without=parts, bare=True, beside=False)
    _cut(write_file(root / "diffusers/noob", root / "Stable-diffusion/half.safetensors"))
    (root / "Stable-diffusion/old.ckpt").write_bytes(b"\x80\x02")
    return root


def found(connection: Connection) -> dict[str, tuple[str, str, Layout]]:
    """Return family, variant and layout of every checkpoint by its name."""
    entries = read_catalogue(connection).of_kind(Kind.CHECKPOINT)
    return {entry.name: (entry.family, entry.variant, entry.layout) for entry in entries}


def refused(report: ScanReport, root: Path) -> dict[str, str]:
    """Return the code of each refusal by the name of what was refused."""
    return {refusal.path.relative_to(root).parts[1]: refusal.code for refusal in report.refused}


def test_a_mixed_folder_is_recognised_without_a_mistake(conn: Connection, mixed: Path) -> None:
    """More than thirty checkpoints: every whole one is what it is, every damaged one is refused with its reason, in counted reads."""
    reads = Reads()
    report = scan(conn, [mixed], reads)
    assert found(conn) == {
        **{name: (family, variant, Layout.DIFFUSERS) for name, (_, family, variant) in FOLDERS.items()},
        **{name: (family, variant, Layout.SINGLE_FILE) for name, (_, family, variant) in FILES.items()},
        "flux1-schnell": ("flux", "schnell", Layout.SINGLE_FILE),
    }
    assert refused(report, mixed) == {
        **{name: code for name, (_, _, code) in DAMAGED.items()},
        "flux1-alone.safetensors": "unrecognised",
        "half.safetensors": "offsets_invalid",
        "old.ckpt": "pickle_refused",
    }
    assert len(report.found) + len(report.refused) > 40
    # Each file is opened for its header and for its fingerprint, and read in three parts at most each time.
    opened = sum(1 for path in mixed.rglob("*") if path.is_file())
    assert reads.files <= 2 * opened
    assert reads.reads <= 3 * reads.files


def test_what_has_not_changed_is_not_read_again(conn: Connection, mixed: Path) -> None:
    """A second look at the same folder opens nothing, and says the same."""
    first = scan(conn, [mixed])
    reads = Reads()
    second = scan(conn, [mixed], reads)
    assert (reads.files, reads.reads) == (0, 0)
    assert (second.found, second.refused, second.added, second.changed) == (first.found, first.refused, (), ())


def test_real_sizes_are_read_by_their_headers_alone(mixed: Path, conn: Connection, tmp_path: Path) -> None:
    """A copy of each file that is a hundred megabytes larger costs no more than its header and some samples."""
    path = tmp_path / "files/large.safetensors"
    path.parent.mkdir()
    shutil.copy(mixed / "Stable-diffusion/pony.safetensors", path)
    shutil.copytree(mixed / "Stable-diffusion/pony.config", tmp_path / "files/large.config")
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    body, more = len(raw) - 8 - length, 100 * 2**20
    header["padding"] = {"dtype": "U8", "shape": [more], "data_offsets": [body, body + more]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + raw[8 + length :])
        file.truncate(8 + len(text) + body + more)
    reads = Reads()
    scan(conn, [tmp_path / "files"], reads)
    assert found(conn) == {"large": ("sdxl", "base", Layout.SINGLE_FILE)}
    assert reads.bytes < 2**20
