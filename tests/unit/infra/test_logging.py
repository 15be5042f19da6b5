"""All log lines of a process have one form, whoever wrote them."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from celery import signals

from infra.logging import configure_logging, get_logger

URL = "postgresql://fleet:hunter2@db.example/fleet"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Give a place for log lines; puts logging back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in ("kombu", "httpx", "uvicorn.access")}
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()
    signals.setup_logging.disconnect(dispatch_uid="imagefleet")


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_own_and_foreign_lines_have_one_form(stream: io.StringIO) -> None:
    """Ours, uvicorn's and celery's lines carry event, level, logger, process and time."""
    configure_logging(form="json", process="api", stream=stream)
    get_logger("jobs.store").info("job stored", job="7")
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 5)
    logging.getLogger("celery.worker").warning("consumer: %s", "lost")
    ours, uvicorn, celery = _lines(stream)
    assert (ours["event"], ours["job"], ours["logger"], ours["level"]) == ("job stored", "7", "jobs.store", "info")
    assert (uvicorn["event"], uvicorn["logger"]) == ("Started server process [5]", "uvicorn.error")
    assert (celery["event"], celery["level"]) == ("consumer: lost", "warning")
    assert all(line["process"] == "api" and line["timestamp"].endswith("Z") for line in (ours, uvicorn, celery))


def test_level_silences_what_is_below(stream: io.StringIO) -> None:
    """The level counts for everyone, and chatty libraries are quieter still."""
    configure_logging(level="info", form="json", process="api", stream=stream)
    get_logger("jobs").debug("hidden")
    logging.getLogger("httpx").info("hidden")
    logging.getLogger("httpx").warning("shown")
    assert [line["event"] for line in _lines(stream)] == ["shown"]


@pytest.mark.parametrize("form", ["json", "console"])
def test_passwords_are_masked_wherever_they_stand(stream: io.StringIO, form: Any) -> None:
    """In keywords, in messages of libraries, inside lists, and in tracebacks."""
    configure_logging(form=form, process="api", stream=stream)
    secret = "hunter2"
    get_logger("a").info("began", url=URL, urls=[URL, {"inner": URL}])
    try:
        int(URL)
    except ValueError:
        logging.getLogger("kombu").exception("broken: %s", f"redis://:{secret}@127.0.0.1/0")
    text = stream.getvalue()
    assert "Traceback" in text
    assert "fleet:***@db.example" in text
    assert secret not in text


def test_context_is_bound_once_for_all_lines(stream: io.StringIO) -> None:
    """What is bound for a request or a job stands in every line until it is cleared."""
    configure_logging(form="json", process="agent", stream=stream)
    with structlog.contextvars.bound_contextvars(job="42"):
        get_logger("a").info("one")
        logging.getLogger("b").warning("two")
    get_logger("a").info("three")
    assert [line.get("job") for line in _lines(stream)] == ["42", "42", None]


def test_celery_leaves_logging_alone(stream: io.StringIO) -> None:
    """A worker that starts does not add handlers or change levels."""
    configure_logging(form="json", process="agent", stream=stream)
    from_celery = signals.setup_logging.send(sender=None, loglevel="WARN", logfile=None, format="", colorize=False)
    assert from_celery
    assert len(logging.getLogger().handlers) == 1
    assert logging.getLogger().level == logging.INFO
