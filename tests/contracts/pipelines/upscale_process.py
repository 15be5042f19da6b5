"""Resume every enlargement of a folder, as another worker would; run by `test_upscaling.py` in a process of its own."""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from jobs.contract import UpscaleParameters
from jobs.inputs import Inputs
from models_registry.entries import Kind, ModelEntry
from pipelines.engine.checkpoint import Checkpoint
from pipelines.engine.engine import Counters
from pipelines.loading import load
from pipelines.shelf import Shelf
from pipelines.upscaling.drawer import UpscaleDrawer
from pipelines.upscaling.upscaler import load_upscaler


def main(folder: Path) -> None:
    """Write the picture of each case beside its checkpoint."""
    order = json.loads((folder / "cases.json").read_text())
    torch.set_num_threads(order["threads"])
    entries = [ModelEntry.model_validate_json(json.dumps(entry)) for entry in order["entries"]]
    counters = Counters()
    shelf = Shelf({Kind.UPSCALER: load_upscaler}, torch.device("cpu"), torch.float32, counters)
    checkpoints = [entry for entry in entries if entry.kind is Kind.CHECKPOINT]
    family = load(checkpoints[0], "cpu") if checkpoints else None
    drawer = UpscaleDrawer(shelf.take, counters, family)
    for case in order["cases"]:
        checkpoint = Checkpoint.from_bytes((folder / case["file"]).read_bytes())
        parameters = UpscaleParameters.model_validate(case["parameters"])
        inputs = Inputs(
            {entry.ref: entry for entry in entries}, {parameters.image: (folder / "source.png").read_bytes()}
        )
        state = drawer.prepare(parameters, 0, inputs, resume=checkpoint)
        if state.step != checkpoint.step:
            raise SystemExit(f"{case} resumed at {state.step}")
        while state.phase == "denoise":
            for failure in drawer.step([state]).errors.values():
                raise failure
        [picture] = drawer.finish([state])
        state.close()
        np.save(folder / f"{case['file']}.npy", picture.array)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
