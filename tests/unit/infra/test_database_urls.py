"""Database URLs in every spelling become what each driver wants."""

import pytest
from psycopg.conninfo import conninfo_to_dict

from infra.database import DatabaseUrlInvalid, connection_string, metadata, normalise_url, sqlalchemy_url


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+asyncpg"])
def test_every_spelling_is_understood(scheme: str) -> None:
    """What hosting sites and SQLAlchemy users write means the same."""
    url = f"{scheme}://u:p%40ss@db.example:5433/fleet?sslmode=require"
    assert normalise_url(url) == "postgresql://u:p%40ss@db.example:5433/fleet?sslmode=require"
    made = sqlalchemy_url(url)
    assert (made.drivername, made.password, made.port) == ("postgresql+psycopg", "p@ss", 5433)


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "fleet", "", "://u:secret@h"])
def test_other_databases_are_refused_without_repeating_secrets(url: str) -> None:
    """The refusal says what is wanted, and never shows the password."""
    with pytest.raises(DatabaseUrlInvalid, match="begins with postgresql://") as refused:
        normalise_url(url)
    assert "secret" not in str(refused.value)


def test_connection_string_adds_limits_and_keeps_what_was_given() -> None:
    """Limits and keepalives are added; the URL's own options and parameters win or stay."""
    url = "postgresql://u@h/d?connect_timeout=2&options=-c%20search_path%3Dfleet"
    made = conninfo_to_dict(connection_string(url, application_name="api", statement_seconds=1.5, generic_plans=True))
    assert made["connect_timeout"] == "2"
    assert made["keepalives_idle"] == "30"
    assert made["application_name"] == "imagefleet api"
    assert made["options"] == (
        "-c search_path=fleet -c statement_timeout=1500ms -c lock_timeout=1500ms"
        " -c idle_in_transaction_session_timeout=60s -c timezone=UTC -c plan_cache_mode=force_generic_plan"
    )


def test_constraints_are_named_alike_everywhere() -> None:
    """Each kind of constraint has a rule for its name."""
    assert set(metadata.naming_convention) >= {"ix", "uq", "ck", "fk", "pk"}
