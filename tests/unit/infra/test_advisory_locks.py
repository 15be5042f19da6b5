"""No two parts of the product wait for each other by accident."""

import re
from pathlib import Path

from infra import advisory_locks
from infra.advisory_locks import KEEPER, MIGRATIONS

#: A lock that is not of a text.
NUMBERED = re.compile(r"pg_(?:try_)?advisory\w*\((?!hashtext)")
PRODUCT = ("broker_api", "cli", "infra", "jobs", "keeper", "migrations", "models_registry", "workers")


def test_every_advisory_lock_has_a_number_of_its_own() -> None:
    """One number used twice let a running keeper stop every later start."""
    numbers = [value for name, value in vars(advisory_locks).items() if name.isupper()]
    assert {MIGRATIONS, KEEPER} < set(numbers)
    assert len(numbers) == len(set(numbers))


def test_every_advisory_lock_is_numbered_in_one_place() -> None:
    """Whoever takes a lock takes its number from the list, or makes it of a text by a hash of 64 bits."""
    root = Path(advisory_locks.__file__).parents[1]
    files = [path for package in PRODUCT for path in (root / package).rglob("*.py")]
    takers = [path for path in files if NUMBERED.search(path.read_text())]
    assert len(takers) >= 7
    assert not [path for path in takers if "from infra.advisory_locks import" not in path.read_text()]
