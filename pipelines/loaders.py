"""How each kind of component is read: what a `Shelf` is made with. A kind adds its line here."""

from collections.abc import Mapping
from types import MappingProxyType

from models_registry.entries import Kind
from pipelines.controlnets import load_controlnet
from pipelines.shelf import Load

LOADERS: Mapping[Kind, Load] = MappingProxyType(
    {
        Kind.CONTROLNET: load_controlnet,
    }
)
