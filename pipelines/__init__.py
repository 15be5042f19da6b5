"""Turn parameters into pictures: a library usable alone, knowing no queue, database or HTTP."""
