"""Enlarge pictures: with an upscaler's model tile by tile, by resampling, and by redrawing the result with a checkpoint."""
