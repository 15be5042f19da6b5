"""No two parts of the product wait for each other by accident."""

from pathlib import Path

from infra import advisory_locks
from infra.advisory_locks import FIRST_KEY, KEEPER, MIGRATIONS, MODEL_SCAN

PRODUCT = ("broker_api", "cli", "infra", "jobs", "keeper", "migrations", "models_registry", "workers")


def test_every_advisory_lock_has_a_number_of_its_own() -> None:
    """One number used twice let a running keeper stop every later start."""
    numbers = [value for name, value in vars(advisory_locks).items() if name.isupper()]
    assert sorted(numbers) == sorted({MIGRATIONS, KEEPER, FIRST_KEY, MODEL_SCAN})


def test_every_advisory_lock_is_numbered_in_one_place() -> None:
    """Whoever takes a lock takes its number from the list."""
    root = Path(advisory_locks.__file__).parents[1]
    files = [path for package in PRODUCT for path in (root / package).rglob("*.py")]
    takers = [path for path in files if "pg_advisory" in (text := path.read_text()) or "pg_try_advisory" in text]
    assert len(takers) == 4
    assert not [path for path in takers if "from infra.advisory_locks import" not in path.read_text()]
