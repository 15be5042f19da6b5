"""Latents of FLUX.2, of which its transformer sees four in one cell, and its pipelines' loops a row of cells."""

from typing import Final

import torch

#: Cells of the VAE beside each other that are one of the transformer's, each way.
PATCH: Final = 2


def patched(latents: torch.Tensor) -> torch.Tensor:
    """Return latents of the VAE (n x channels x height x width) four in one cell: n x 4 channels x half the height x half the width."""
    count, channels, height, width = latents.shape
    split = latents.view(count, channels, height // PATCH, PATCH, width // PATCH, PATCH).permute(0, 1, 3, 5, 2, 4)
    return split.reshape(count, channels * PATCH**2, height // PATCH, width // PATCH)


def unpatched(cells: torch.Tensor) -> torch.Tensor:
    """Return the four latents of each cell side by side again."""
    count, channels, height, width = cells.shape
    split = cells.reshape(count, channels // PATCH**2, PATCH, PATCH, height, width).permute(0, 1, 4, 2, 5, 3)
    return split.reshape(count, channels // PATCH**2, height * PATCH, width * PATCH)


def laid_out(tokens: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return a row of tokens (n x places x channels) as cells, n x channels x rows x columns."""
    return tokens.permute(0, 2, 1).reshape(len(tokens), -1, rows, columns)
