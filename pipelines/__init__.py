"""Turn parameters into pictures: a library usable alone, knowing no queue, database or HTTP."""

from pipelines.torchvision_operators import define_missing_operators

# Before anything below imports transformers, which imports torchvision.
define_missing_operators()
