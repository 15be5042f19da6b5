"""How each task becomes passes of diffusers pipelines, the same way for every family."""
