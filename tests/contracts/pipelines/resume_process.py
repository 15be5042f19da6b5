"""Resume every checkpoint of a folder, as another worker would; run by `test_contract.py` in a process of its own."""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from jobs.contract import Txt2ImgParameters
from models_registry.entries import ModelEntry
from pipelines.engine.checkpoint import Checkpoint
from pipelines.loading import load


def main(folder: Path) -> None:
    """Write the latents and the picture of each case beside its checkpoint."""
    order = json.loads((folder / "cases.json").read_text())
    torch.set_num_threads(order["threads"])
    family = load(ModelEntry.model_validate_json(json.dumps(order["entry"])), "cpu")
    for case in order["cases"]:
        checkpoint = Checkpoint.from_bytes((folder / case["file"]).read_bytes())
        parameters = Txt2ImgParameters.model_validate(case["parameters"])
        state = family.prepare(parameters, 0, resume=checkpoint)
        if state.step != checkpoint.step:
            raise SystemExit(f"{case} resumed at {state.step}")
        while state.phase == "denoise":
            for failure in family.step([state]).errors.values():
                raise failure
        latents = state._body.latents  # noqa: SLF001 - the picture's 8 bits would hide a difference
        if latents is None:
            raise SystemExit(f"{case} ended without latents")
        kept = latents.numpy().copy()
        (picture,) = family.finish([state])
        state.close()
        np.savez(folder / f"{case['file']}.npz", latents=kept, picture=picture.array)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
