"""Resume every checkpoint of a folder, as another worker would; run by the contract tests in a process of its own."""

import base64
import json
import sys
from pathlib import Path

import numpy as np
import torch

from jobs.contract import DiffusionJob, parse_parameters
from jobs.inputs import Inputs
from models_registry.entries import Kind, ModelEntry
from pipelines.engine.checkpoint import Checkpoint
from pipelines.loading import load


def main(folder: Path) -> None:
    """Write the latents and the picture of each case beside its checkpoint."""
    order = json.loads((folder / "cases.json").read_text())
    torch.set_num_threads(order["threads"])
    entries = [ModelEntry.model_validate_json(json.dumps(entry)) for entry in order["entries"]]
    pictures = {ref: base64.b64decode(text) for ref, text in order["pictures"].items()}
    inputs = Inputs({entry.ref: entry for entry in entries}, pictures)
    families = {entry.name: load(entry, "cpu") for entry in entries if entry.kind is Kind.CHECKPOINT}
    for case in order["cases"]:
        family = families[case["model"]]
        checkpoint = Checkpoint.from_bytes((folder / case["file"]).read_bytes())
        parameters = parse_parameters(case["parameters"])
        if not isinstance(parameters, DiffusionJob):
            raise SystemExit(f"{case} is no drawing")
        state = family.prepare(parameters, 0, inputs, resume=checkpoint)
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
