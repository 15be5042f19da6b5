"""Send every log line of a process, ours and the libraries', to standard error in one form.

An event is a constant of the module that logs it; what varies goes in keywords, never into the text.
"""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, Literal, TextIO

import structlog
from celery import signals
from structlog.typing import EventDict, Processor

Format = Literal["console", "json"]
Level = Literal["debug", "info", "warning", "error"]

#: Libraries that say at "info" what we say ourselves, or nothing of use.
QUIET: Final[Mapping[str, int]] = {
    "alembic": logging.WARNING,
    "asyncio": logging.WARNING,
    "httpcore": logging.WARNING,
    "httpx": logging.WARNING,
    "kombu": logging.WARNING,
    "psycopg.pool": logging.WARNING,
    "uvicorn.access": logging.WARNING,
}
_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")


def configure_logging(
    *, level: Level = "info", form: Format = "console", process: str, stream: TextIO | None = None
) -> None:
    """Route all logging of this process; called once, where the process begins. `process` goes into every line."""
    output = sys.stderr if stream is None else stream
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _name_process(process),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    ending: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        # As plain text: structured tracebacks carry local variables, and these carry secrets.
        structlog.processors.format_exc_info,
        mask_passwords,
    ]
    if form == "json":
        ending.append(structlog.processors.JSONRenderer(default=str))
    else:
        plain = structlog.dev.plain_traceback
        ending.append(structlog.dev.ConsoleRenderer(colors=output.isatty(), exception_formatter=plain))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=ending))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, quiet in QUIET.items():
        logging.getLogger(name).setLevel(max(quiet, root.level))
    # With a receiver Celery leaves logging alone; otherwise it would add handlers and set levels of its own.
    signals.setup_logging.connect(_keep_ours, weak=False, dispatch_uid="imagefleet")


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module; it works before and after `configure_logging`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def mask_passwords(_: Any, __: str, event: EventDict) -> MutableMapping[str, Any]:
    """Hide the passwords of URLs in every text of a line, wherever a library put them."""
    return {key: _masked(value) for key, value in event.items()}


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return _PASSWORD.sub(r"\1***@", value)
    if isinstance(value, Mapping):
        return {key: _masked(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(inner) for inner in value]
    return value


def _name_process(process: str) -> Processor:
    def add(_: Any, __: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    return add


def _keep_ours(**_: Any) -> None:
    """Stand in Celery's way."""
