"""`python -m pipelines.preprocessing.convert FILE.pth OUT.safetensors`: weights out of a pickle, without running what is in it.

Everything else here opens safetensors alone.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

#: What training tools put around the tensors.
_WRAPPINGS = ("state_dict", "model", "params_ema", "params", "net_g")
_PREFIX = "module."


class NoWeightsError(ValueError):
    """The file holds no tensors, or more than tensors."""


def convert(source: Path, target: Path) -> int:
    """Write the tensors of a torch file as safetensors; return how many there are."""
    try:
        # Data alone: anything that would have to be run is refused by torch.
        content = torch.load(source, map_location="cpu", weights_only=True)
    # Unreadable bytes make torch raise many kinds.
    except Exception as error:  # noqa: BLE001
        raise NoWeightsError(f"{source} cannot be read: {str(error).splitlines()[0][:300]}") from None
    tensors = _tensors(content)
    if not tensors:
        raise NoWeightsError(f"{source} holds no tensors by name")
    save_file(tensors, target)
    return len(tensors)


def _tensors(content: object) -> dict[str, torch.Tensor]:
    for wrapping in _WRAPPINGS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapping), Mapping):
            content = content[wrapping]
    if not isinstance(content, Mapping):
        return {}
    # Copies, because safetensors writes no views of shared memory.
    return {
        str(name).removeprefix(_PREFIX): tensor.detach().clone().contiguous()
        for name, tensor in content.items()
        if isinstance(tensor, torch.Tensor)
    }


def main(arguments: Sequence[str]) -> int:
    """Convert the file that the command line names; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.preprocessing.convert", description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    named = parser.parse_args(arguments)
    try:
        count = convert(named.source, named.target)
    except (NoWeightsError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{named.target}: {count} tensors\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
