"""Checkpoints that a new process goes on from, as an engine does after the one before it was killed."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.contract import DiffusionJob
from jobs.inputs import Inputs
from pipelines.engine.state import State
from tests.contracts.pipelines.running import Result


class Interrupted:
    """Runs that were left in the middle, in a folder that another process reads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cases: list[dict[str, Any]] = []

    def keep(self, case: str, parameters: DiffusionJob, state: State) -> None:
        """Write the checkpoint of a run where it stands; a case may have several."""
        name = f"{len(self._cases)}.checkpoint"
        (self._folder / name).write_bytes(state.checkpoint().to_bytes())
        self._cases.append(
            {
                "case": case,
                "file": name,
                "model": parameters.model,
                "parameters": parameters.model_dump(mode="json"),
            }
        )

    def resume(self, inputs: Inputs, seconds: float) -> dict[str, list[Result]]:
        """Return what a new process makes of each case's checkpoints, in their order, within so many seconds."""
        order = {
            "entries": [entry.model_dump(mode="json") for entry in inputs.models.values()],
            "pictures": {ref: base64.b64encode(data).decode() for ref, data in inputs.pictures.items()},
            "threads": torch.get_num_threads(),
            "cases": self._cases,
        }
        (self._folder / "cases.json").write_text(json.dumps(order))
        subprocess.run(
            [sys.executable, Path(__file__).with_name("resume_process.py"), self._folder], check=True, timeout=seconds
        )
        results: dict[str, list[Result]] = {}
        for each in self._cases:
            with np.load(self._folder / f"{each['file']}.npz") as arrays:
                results.setdefault(str(each["case"]), []).append(Result(arrays["latents"], arrays["picture"]))
        return results
