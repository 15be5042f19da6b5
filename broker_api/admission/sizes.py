"""Which sizes a family draws, and which one a picture to start from suggests."""

from jobs.errors import SizeUnsupported
from jobs.geometry import Size
from models_registry.entries import ModelEntry
from models_registry.families import FAMILIES


def check_side(field: str, given: int, entry: ModelEntry) -> int:
    """Return a side that was asked for, raising `SizeUnsupported` unless the family draws it."""
    family = FAMILIES[entry.family]
    if given % family.size_step:
        raise SizeUnsupported(
            f"The {field} must be a multiple of {family.size_step} for {family.title}; {given} is not.", field=field
        )
    smallest, largest = bounds(entry)
    if not smallest <= given <= largest:
        raise SizeUnsupported(
            f"The {field} must be from {smallest} to {largest} for {family.title}; {given} is not.", field=field
        )
    return given


def bounds(entry: ModelEntry) -> tuple[int, int]:
    """Return the smallest and the largest side a model draws, pixels."""
    family = FAMILIES[entry.family]
    return min(family.min_side, entry.native_size), family.max_side


def check_pixels(size: Size, max_pixels: int, field: str) -> None:
    """Raise `SizeUnsupported` when a picture has more pixels than the server draws."""
    if size.width * size.height > max_pixels:
        raise SizeUnsupported(
            f"{size.width} x {size.height} is {size.width * size.height} pixels; this server draws at most {max_pixels}.",
            field=field,
        )


def check_inside(size: Size, entry: ModelEntry, max_pixels: int, field: str) -> None:
    """Raise `SizeUnsupported` unless a size that follows from others is one the family and the server draw."""
    smallest, largest = bounds(entry)
    if not smallest <= min(size) <= max(size) <= largest:
        raise SizeUnsupported(
            f"That makes {size.width} x {size.height}; {FAMILIES[entry.family].title} draws sides from {smallest} to {largest}.",
            field=field,
        )
    check_pixels(size, max_pixels, field)


def drawn_size(
    width: int | None, height: int | None, source: Size, entry: ModelEntry, max_pixels: int, *, exact: bool = False
) -> Size:
    """Return the size to draw at; what is left out follows from the source's shape.

    Sides that were not asked for are brought to the family's multiples and limits, or with `exact` left as they are.
    """
    if width is not None and height is not None:
        return Size(check_side("width", width, entry), check_side("height", height, entry))
    if width is not None:
        return Size(check_side("width", width, entry), _near(source.height * width / source.width, entry))
    if height is not None:
        return Size(_near(source.width * height / source.height, entry), check_side("height", height, entry))
    return source if exact else _like(source, entry, max_pixels)


def _like(source: Size, entry: ModelEntry, max_pixels: int) -> Size:
    """Return a size of the source's shape that the model draws: the source's own where possible."""
    smallest, largest = bounds(entry)
    factor = max(1.0, smallest / min(source))
    factor = min(factor, largest / max(source), (max_pixels / (source.width * source.height)) ** 0.5)
    found = Size(*(_near(side * factor, entry) for side in source))
    step = FAMILIES[entry.family].size_step
    while found.width * found.height > max_pixels and max(found) > smallest:
        # Rounding up has passed the limit.
        found = (
            Size(found.width - step, found.height)
            if found.width >= found.height
            else Size(found.width, found.height - step)
        )
    return found


def _near(side: float, entry: ModelEntry) -> int:
    """Return the nearest side that the model draws."""
    step = FAMILIES[entry.family].size_step
    smallest, largest = bounds(entry)
    return min(largest // step * step, max(-(-smallest // step) * step, round(side / step) * step))
