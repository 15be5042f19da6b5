"""What the trained models are asked over HTTP and which pictures are right: for docs/accuracy.md and the test that holds it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np

import reference_models
from models_registry.detection import INDEX, detect
from models_registry.entries import ModelEntry
from models_registry.families import FAMILIES, tasks_of
from models_registry.reading.bounded_files import Reads
from reference_models.judge import SHAPE_OVERLAP, Expected, front_mask, judge, overlap
from reference_models.measure import Question, questions
from reference_models.measure_addons import ADD_ONS
from reference_models.measuring import controlnet, embedding, lora
from reference_models.pictures import COLOURS, SHAPES, SIDE, Pixels, Scene, draw
from reference_models.styles import frame_score, inside
from tests.acceptance.tasks.conftest import Studio

FOLDER: Final = Path(reference_models.__file__).parent
#: Each job asks for one prompt; its pictures have seeds that follow each other.
JOBS: Final = 8
EACH: Final = 4
SEEDS_APART: Final = 100
#: How much of the source an img2img job may change.
STRENGTH: Final = 0.8
SECOND_PASS: Final = MappingProxyType({"scale": 1.5, "strength": 0.4})
#: Pixels that stay on each side where the middle is painted anew.
KEPT: Final = 16
#: Score of a style from which on it is seen.
SEEN: Final = 0.5
HIRES: Final = "hires"
#: What is asked of a checkpoint, in the order of the table; hires is txt2img in two passes.
TASKS: Final[Mapping[str, str]] = MappingProxyType(
    {"txt2img": "txt2img", HIRES: "txt2img", "img2img": "img2img", "inpaint": "inpaint"}
)


class Cell(NamedTuple):
    """Name one figure: of which model or addition, at which task (of an addition: its kind), drawn by which checkpoint."""

    name: str
    task: str
    model: str


class Asked(NamedTuple):
    """Pair a job with what is right of its pictures."""

    request: dict[str, Any]
    right: Callable[[Pixels], bool]


def checkpoints() -> dict[str, ModelEntry]:
    """Return every trained checkpoint by its name, in the order of the families."""
    folders = sorted(path.parent for path in FOLDER.glob(f"shapes-*/{INDEX}"))
    found = {folder.name: detect(folder, Reads()) for folder in folders}
    families = list(FAMILIES)
    return dict(sorted(found.items(), key=lambda item: families.index(str(item[1].family))))


def cells() -> list[Cell]:
    """Return every figure that there must be: each checkpoint's tasks, then what can be added to one."""
    found = [
        Cell(name, task, name)
        for name, entry in checkpoints().items()
        for task, asked in TASKS.items()
        if asked in tasks_of(entry)
    ]
    kinds = {measure: kind for kind, (measure, _) in _ADDITIONS.items()}
    return found + [
        Cell(name, kinds[added.measure], lora.base_of(name).name)
        for name, added in ADD_ONS.items()
        if added.measure in kinds
    ]


def asked_of(cell: Cell) -> list[Asked]:
    """Return a cell's jobs, the same at every call."""
    jobs = _ADDITIONS[cell.task][1](cell.name) if cell.task in _ADDITIONS else _of_checkpoint(cell.task)
    return [
        Asked({"model": cell.model, "seed": SEEDS_APART * index, "num_images": EACH, **job.request}, job.right)
        for index, job in enumerate(jobs)
    ]


def count_right(studio: Studio, jobs: Sequence[Asked]) -> int:
    """Draw the jobs and return how many of their pictures are right."""
    return sum(job.right(picture) for job in jobs for picture in studio.all(**job.request))


def source_of(expected: Expected, *, background: str | None = None) -> Pixels:
    """Draw a picture that shows another shape in another colour, on the background that is told or another."""
    shape, colour, behind = (str(each) for each in (expected.shape, expected.colour, expected.background))
    others = [each for each in COLOURS if each not in {colour, behind}]
    other = SHAPES[(SHAPES.index(shape) + 2) % len(SHAPES)]
    return draw(Scene(other, others[0], background or others[1], 0.5, 0.5, 0.27))


def middle() -> Pixels:
    """Return the mask of the middle of a picture (height x width)."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[KEPT:-KEPT, KEPT:-KEPT] = 255
    return mask


def _shows(expected: Expected) -> Callable[[Pixels], bool]:
    return lambda picture: judge(picture, expected).all_right


def _of_checkpoint(task: str) -> list[Asked]:
    return [
        Asked({"prompt": each.prompt, **_task_fields(task, each)}, _shows(each.expected)) for each in questions(JOBS)
    ]


def _task_fields(task: str, asked: Question) -> dict[str, Any]:
    if task == HIRES:
        return {"hires": dict(SECOND_PASS)}
    if task == "img2img":
        return {"task": task, "image": source_of(asked.expected), "strength": STRENGTH}
    if task == "inpaint":
        source = source_of(asked.expected, background=asked.expected.background)
        return {"task": task, "image": source, "mask": middle()}
    return {}


def _of_lora(name: str) -> list[Asked]:
    """Both the style and the prompt are to be seen."""
    ground, score = "ground" in name, lora.SCORES.get(name, frame_score)

    def right(expected: Expected) -> Callable[[Pixels], bool]:
        return lambda picture: score(picture) >= SEEN and judge(inside(picture, ground=ground), expected).all_right

    added = {"loras": [{"name": name, "weight": 1.0}]}
    return [Asked({"prompt": each.prompt, **added}, right(each.expected)) for each in lora.asked_of(JOBS)]


def _of_controlnet(name: str) -> list[Asked]:
    """The prompt is followed, and the shape covers that of the edges."""

    def right(task: controlnet.Task) -> Callable[[Pixels], bool]:
        expected, wanted = Expected(task.scene.shape, task.colour, task.background), front_mask(task.target)[0]
        return lambda picture: (
            judge(picture, expected).all_right and overlap(front_mask(picture)[0], wanted) >= SHAPE_OVERLAP
        )

    return [
        Asked(
            {"prompt": task.prompt(generic=False), "controls": [{"model": name, "image": np.asarray(task.edges)}]},
            right(task),
        )
        for task in controlnet.tasks(JOBS)
    ]


def _of_embedding(name: str) -> list[Asked]:
    return [Asked({"prompt": name}, _shows(embedding.EXPECTED)) for _ in range(JOBS)]


#: By kind: how its card measures it, and what is asked of it here. Upscalers and autoencoders obey no prompt.
_ADDITIONS: Final[Mapping[str, tuple[Callable[..., Any], Callable[[str], list[Asked]]]]] = MappingProxyType(
    {
        "LoRA": (lora.measure, _of_lora),
        "ControlNet": (controlnet.measure, _of_controlnet),
        "embedding": (embedding.measure, _of_embedding),
    }
)
