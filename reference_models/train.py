"""Train a reference model from nothing: `python -m reference_models.train shapes-sd15`.

Checkpoints lie in the work folder: the same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Final, Protocol

import torch

from reference_models.card import write_card
from reference_models.measure import COUNT, measure
from reference_models.training import sd15
from reference_models.training.family import Family, prepare

HERE: Final = Path(__file__).parent
QUICK_QUESTIONS: Final = 4


class Trainer(Protocol):
    """Train one model into the target folder and return the seconds it took."""

    def __call__(self, family: Family, folder: Path, target: Path, *, quick: bool = False) -> float:
        """Train with checkpoints in the folder."""


MODELS: Final[dict[str, Trainer]] = {
    sd15.NAME: sd15.train,
}
"""Every model that can be trained; a new one is one file and one line here."""


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m reference_models.train", description=__doc__)
    parser.add_argument("model", choices=sorted(MODELS))
    parser.add_argument("--out", type=Path, help="folder of the model (default: beside this file)")
    parser.add_argument("--work", type=Path, default=Path(".training"), help="checkpoints and cached latents")
    parser.add_argument("--quick", action="store_true", help="a few steps only: proves that the code runs")
    parser.add_argument("--threads", type=int, default=2, help="1 is faster where other work fills the cores")
    return parser


def main(given: list[str] | None = None) -> None:
    """Train, measure, and write the model's card."""
    asked = arguments().parse_args(given)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(asked.threads)
    work = asked.work / "quick" if asked.quick else asked.work
    # A quick run must never end up in place of the real weights unless it was told to.
    target = asked.out or (work if asked.quick else HERE) / asked.model
    family = prepare(work, quick=asked.quick)
    seconds = dict(family.seconds)
    train: Trainer = MODELS[asked.model]
    seconds["denoiser"] = train(family, work, target, quick=asked.quick)
    write_card(target, measure(target, QUICK_QUESTIONS if asked.quick else COUNT), seconds)


if __name__ == "__main__":
    main()
