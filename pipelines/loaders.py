"""How each kind of component is read: what a `Shelf` is made with. A kind adds its line here."""

from collections.abc import Mapping
from types import MappingProxyType

from models_registry.entries import Kind
from pipelines.adapters.embedding import load_embedding
from pipelines.adapters.lora import load_lora
from pipelines.adapters.vae import load_vae
from pipelines.controlnets import load_controlnet
from pipelines.preprocessing.annotator import load_annotator
from pipelines.shelf import Load
from pipelines.upscaling.upscaler import load_upscaler

LOADERS: Mapping[Kind, Load] = MappingProxyType(
    {
        Kind.CONTROLNET: load_controlnet,
        Kind.LORA: load_lora,
        Kind.EMBEDDING: load_embedding,
        Kind.VAE: load_vae,
        Kind.UPSCALER: load_upscaler,
        Kind.PREPROCESSOR: load_annotator,
    }
)
