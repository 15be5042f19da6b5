"""Resume a preprocessing, as another worker would; run by `test_preprocessing.py` in a process of its own."""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from jobs.contract import PreprocessParameters
from jobs.inputs import Inputs
from models_registry.entries import Kind
from pipelines.engine.checkpoint import Checkpoint
from pipelines.engine.engine import Counters
from pipelines.preprocessing.annotator import load_annotator
from pipelines.preprocessing.drawer import PreprocessDrawer
from pipelines.shelf import Shelf


def main(folder: Path) -> None:
    """Write the picture beside the checkpoint."""
    parameters = PreprocessParameters.model_validate(json.loads((folder / "parameters.json").read_text()))
    counters = Counters()
    shelf = Shelf({Kind.PREPROCESSOR: load_annotator}, torch.device("cpu"), torch.float32, counters)
    drawer = PreprocessDrawer(shelf.take, counters)
    checkpoint = Checkpoint.from_bytes((folder / "checkpoint").read_bytes())
    inputs = Inputs({}, {parameters.image: (folder / "source.png").read_bytes()})
    state = drawer.prepare(parameters, 0, inputs, resume=checkpoint)
    if state.step != 1 or state.phase != "decode":
        raise SystemExit(f"resumed at {state.step}, {state.phase}")
    [picture] = drawer.finish([state])
    state.close()
    np.save(folder / "picture.npy", picture.array)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
