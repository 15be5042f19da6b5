"""What the UNet of one file predicts: noise, or velocity; told in words, or by one layer that training moves far."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from models_registry.families import FAMILIES, Prediction
from models_registry.kinds.checkpoints.described import word
from models_registry.reading.bounded_files import Reads, open_bounded
from models_registry.reading.safetensors_header import Header, Tensor

#: A tensor without meaning but its name, which trainers of SDXL leave in their files.
_MARK: Final = "v_pred"
_WORDS: Final = word("768-?v|v[-_ ]?pred(?:iction)?")
_SAID: Final = {
    "epsilon": Prediction.EPSILON,
    "eps": Prediction.EPSILON,
    "v": Prediction.V,
    "v_prediction": Prediction.V,
}
#: Of Stable Diffusion 2.x: its values spread widely in networks that predict velocity, as far as the published ones go.
_LAYER: Final = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
_SPREAD: Final = 0.09
_PUBLISHED_WIDTH: Final = 320
_FORMATS: Final = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}


def predicted(header: Header, family: str, told: str | None, texts: Sequence[str], reads: Reads) -> Prediction:
    """Return what a network predicts; `told` is the variant that its author names, `texts` those in which a word may tell it."""
    variant = FAMILIES[family].variants.get(told or "")
    if variant is not None:
        return variant.prediction
    if _MARK in header.tensors:
        return Prediction.V
    said = _SAID.get(header.metadata.get("modelspec.prediction_type", "").strip().lower())
    if said is not None:
        return said
    if any(_WORDS.search(text) for text in texts):
        return Prediction.V
    return _by_layer(header, reads) if family == "sd2" else Prediction.EPSILON


def _by_layer(header: Header, reads: Reads) -> Prediction:
    tensor = header.tensors.get(_LAYER)
    if tensor is None or tensor.shape != (_PUBLISHED_WIDTH,):
        return Prediction.EPSILON
    values = _values(header, tensor, reads)
    return Prediction.V if values is not None and float(np.std(values)) > _SPREAD else Prediction.EPSILON


def _values(header: Header, tensor: Tensor, reads: Reads) -> "np.ndarray[tuple[int], np.dtype[np.float64]] | None":
    with open_bounded(header.path, reads) as file:
        raw = file.read_at(header.body_start + tensor.start, tensor.end - tensor.start)
    if tensor.dtype == "BF16":
        # The upper half of a float of four bytes.
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    known = _FORMATS.get(tensor.dtype)
    return None if known is None else np.frombuffer(raw, known).astype(np.float64)
