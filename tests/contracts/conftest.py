"""Import the pipelines before any test imports transformers, as every process of the product does."""

import pipelines  # noqa: F401 - for what it does to torchvision
