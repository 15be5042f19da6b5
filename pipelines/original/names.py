"""What the layers of a UNet were called in the original code, derived from the UNet itself: any depth, any width."""

import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

_WHOLE: Mapping[str, str] = MappingProxyType(
    {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        # SDXL's, for pooled text and sizes.
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }
)
_INNER: Mapping[str, str] = MappingProxyType(
    {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    }
)
_PLACE = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)")


def original_names(paths: Iterable[str]) -> dict[str, str]:
    """Return the original path of each module path of a UNet that had one."""
    known = list(paths)
    blocks = _blocks(known)
    return {path: original for path in known for original in _original(path, blocks)}


def _blocks(paths: Iterable[str]) -> Mapping[tuple[str, int], tuple[int, bool]]:
    """Return for each block (`down` or `up`, its number) how many layers it has, and whether they attend to the prompt."""
    blocks: dict[tuple[str, int], tuple[int, bool]] = {}
    for path in paths:
        if found := _PLACE.match(path):
            side, number, part, layer = found[1], int(found[2]), found[3], int(found[4])
            layers, attends = blocks.get((side, number), (0, False))
            if part == "resnets":
                layers = max(layers, layer + 1)
            blocks[side, number] = (layers, attends or part == "attentions")
    return blocks


def _original(path: str, blocks: Mapping[tuple[str, int], tuple[int, bool]]) -> Iterator[str]:
    for whole, original in _WHOLE.items():
        if path == whole or path.startswith(f"{whole}."):
            yield original + _inner(path[len(whole) :])
            return
    found = _PLACE.match(path)
    if found is None:
        return
    side, number, part, layer = found[1], int(found[2]), found[3], int(found[4])
    rest = path[found.end() :]
    layers, attends = blocks[side, number]
    before = sum(blocks[side, earlier][0] + (side == "down") for earlier in range(number))
    if part == "downsamplers":
        # The original's downsampling convolution is called `op` and fills a place of its own.
        yield f"input_blocks.{1 + before + layers}.0{rest.replace('.conv', '.op', 1)}"
    elif part == "upsamplers":
        # It sits behind the last layer of its block.
        yield f"output_blocks.{before + layers - 1}.{2 if attends else 1}{rest}"
    else:
        start = f"input_blocks.{1 + before + layer}" if side == "down" else f"output_blocks.{before + layer}"
        yield f"{start}.{int(part == 'attentions')}{_inner(rest) if part == 'resnets' else rest}"


def _inner(rest: str) -> str:
    """Rename what is inside a ResNet block; everything else is called the same."""
    head, _, tail = rest.removeprefix(".").partition(".")
    renamed = _INNER.get(head, head)
    return "".join(f".{each}" for each in (renamed, tail) if each)
