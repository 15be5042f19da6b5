"""The loaded network of a preprocessor, from one safetensors file. It does not know jobs."""

from pathlib import Path
from typing import Any

import torch

from jobs.errors import ModelDamaged, ModelMissing
from models_registry.entries import Layout, ModelEntry
from models_registry.reading.bounded_files import Reads
from models_registry.reading.safetensors_header import read_header
from models_registry.refusals import FileRefused
from pipelines.preprocessing.networks import NETWORKS, Network, quiet
from pipelines.reading import name_failure, read_tensors

#: Counters of batch normalisation: training wants them, files of old versions lack them.
_IDLE = "num_batches_tracked"


class Annotator:
    """One loaded network and the detector around it."""

    def __init__(self, detector: Any, network: torch.nn.Module) -> None:
        self.detector = detector
        #: What its weights take on the device.
        self.bytes = sum(each.nbytes for each in (*network.parameters(), *network.buffers()))


def load_annotator(entry: ModelEntry, device: torch.device, _dtype: torch.dtype) -> Annotator:
    """Load the network that the entry's name says, in full precision, which its detector computes in.

    Raises `ModelMissing`, `ModelDamaged` (naming the file) or `OutOfMemory`.
    """
    network, path = NETWORKS.get(entry.name), entry.path
    if network is None or entry.layout is not Layout.SINGLE_FILE:
        raise ModelDamaged(f"{path}: no preprocessor {entry.name} takes its weights from a {entry.layout}")
    if not path.is_file():
        raise ModelMissing(f"{path} is missing")
    try:
        read_header(path, Reads())
    except FileRefused as refused:
        raise ModelDamaged(f"{path} is damaged: {refused.reason}") from None
    return name_failure(path, lambda: _load(network, path, device))


def _load(network: Network, path: Path, device: torch.device) -> Annotator:
    with quiet(), torch.random.fork_rng(devices=[]):
        detector, module = network.make()
    state = _named(read_tensors(path)[0], module)
    lost = [name for name in module.state_dict() if name not in state and not name.endswith(_IDLE)]
    strange = sorted(state.keys() - module.state_dict().keys())
    if lost or strange:
        raise ModelDamaged(
            f"{path} does not fit: it lacks {len(lost)} tensors {lost[:1]} and has {len(strange)} others {strange[:1]}"
        )
    module.load_state_dict(state, strict=False)
    module.float().eval().requires_grad_(requires_grad=False)
    module.to(device)
    return Annotator(detector, module)


def _named(state: dict[str, torch.Tensor], module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors under the network's own names: OpenPose's file leaves the first part of each away."""
    names = list(module.state_dict())
    short = {name.split(".", 1)[-1]: name for name in names}
    if len(short) == len(names) and state.keys() == short.keys():
        return {short[name]: tensor for name, tensor in state.items()}
    return state
