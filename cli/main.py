"""The `imagefleet` command: `VERBS` names each verb's file, which is imported only when the verb is called."""

import importlib
import importlib.metadata
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, NamedTuple

import typer
from pydantic import ValidationError
from typer.core import TyperCommand, TyperGroup

from cli.failure import CommandFailed
from client.errors import ClientError, FleetUnreachable, Problem, Unauthorized


class Verb(NamedTuple):
    """Say where a verb is, and what for."""

    #: It has an `app`, or a function of the verb's name.
    module: str
    summary: str
    #: Everything behind the verb is handed on as it is.
    hands_on: bool = False


#: Imported by name, because together they import the whole product: a second or two that `imagefleet jobs` need not wait for.
VERBS: Final[Mapping[str, Verb]] = MappingProxyType(
    {
        "up": Verb("cli.up", "Start everything on this machine, and keep it running."),
        "generate": Verb("cli.generate", "Draw pictures from a prompt and write them to files."),
        "upscale": Verb("cli.upscale", "Enlarge a picture."),
        "preprocess": Verb("cli.preprocess", "Turn a picture into a control picture: edges, depth, poses."),
        "jobs": Verb("cli.jobs", "List, show, reorder, cancel, delete and watch jobs."),
        "batches": Verb("cli.batches", "List, show, cancel and watch batches, and fetch their pictures."),
        "results": Verb("cli.results", "Search pictures, show how one was drawn, and fetch them."),
        "verify": Verb("cli.verify", "Draw every task with every model at hand, and print what came of it."),
        "models": Verb("cli.models", "List models, fetch, send and look for new ones."),
        "adapters": Verb(
            "cli.adapters", "Search, change, fetch and send LoRAs, ControlNets, embeddings, VAEs, upscalers."
        ),
        "compose": Verb("cli.compose", "Turn adapters into a prompt, and draw it."),
        "recipes": Verb("cli.recipes", "List, show, keep, draw and delete recipes."),
        "archives": Verb("cli.archives", "Export, import, back up and restore the library."),
        "downloads": Verb("cli.downloads", "List, watch and steer what the fleet fetches."),
        "workers": Verb("cli.workers", "List the workers, and the queues in which something waits."),
        "keys": Verb("cli.keys", "Create, list and revoke API keys."),
        "doctor": Verb("cli.doctor", "Say what this machine lacks, and how to mend it."),
        "openapi": Verb("cli.openapi", "Print the API's OpenAPI document."),
        "migrate": Verb("cli.migrate", "Bring the database's tables to this version."),
        "api": Verb("cli.api", "Run the API alone."),
        "worker": Verb("cli.worker", "Run one worker alone."),
        "node": Verb("cli.node", "Run a worker on each device of this machine."),
        "keeper": Verb("cli.keeper", "Run the caretaker alone."),
        "celery": Verb("cli.celery", "Run one of Celery's own commands against this fleet.", hands_on=True),
    }
)

FAILED: Final = 1
USAGE: Final = 2


class Verbs(TyperGroup):
    """Find verbs in `VERBS`, and import only the one that is called."""

    _is_listing = False

    def list_commands(self, _: Any) -> list[str]:
        """Return the verbs in the order in which people meet them."""
        return list(VERBS)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show all verbs without importing them."""
        self._is_listing = True
        super().format_help(ctx, formatter)

    def get_command(self, _: Any, cmd_name: str) -> Any:
        """Return one verb, or None when there is none of this name."""
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        if self._is_listing:
            return TyperCommand(cmd_name, help=verb.summary)
        return _import(cmd_name, verb)


def _import(name: str, verb: Verb) -> Any:
    module = importlib.import_module(verb.module)
    found = getattr(module, "app", None)
    if found is None:
        found = typer.Typer(add_completion=False)
        passing = (
            {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []} if verb.hands_on else {}
        )
        found.command(context_settings=passing)(getattr(module, name))
    command = typer.main.get_command(found)
    command.name = name
    return command


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Draw pictures with a fleet of workers.",
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the flag
    if wanted:
        try:
            typer.echo(f"imagefleet {importlib.metadata.version('imagefleet')}")
        except importlib.metadata.PackageNotFoundError:
            typer.echo("imagefleet, run from a folder without being installed")
        raise typer.Exit


@app.callback()
def imagefleet(
    *,
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Draw pictures with a fleet of workers."""


def run() -> None:
    """Run the command line; what fails ends with one sentence and status 1, what was mistyped with status 2."""
    try:
        app()
    except CommandFailed as failure:
        _end(str(failure), FAILED)
    except ClientError as failure:
        _end(sentence(failure), FAILED)
    except ValidationError as failure:
        if failure.title != "Settings":
            raise
        _end(_settings_sentence(failure), USAGE)


def sentence(failure: ClientError) -> str:
    """Say what went wrong with the fleet, and what to do."""
    if isinstance(failure, FleetUnreachable):
        return f"{_capital(str(failure))}. Start one with `imagefleet up`, or say where it is with IMAGEFLEET_URL."
    if isinstance(failure, Unauthorized):
        return f"{failure.detail} The key is read from IMAGEFLEET_API_KEY, else from `api-key` in the home folder (IMAGEFLEET_HOME)."
    if isinstance(failure, Problem):
        return f"{_capital(failure.detail)} ({failure.code})"
    return f"{_capital(str(failure))}."


def _settings_sentence(failure: ValidationError) -> str:
    first = failure.errors(include_url=False)[0]
    name = "_".join(map(str, first["loc"])).upper()
    return f"IMAGEFLEET_{name} cannot be used: {first['msg']}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _end(text: str, status: int) -> None:
    typer.secho(text, err=True, fg="red")
    sys.exit(status)


if __name__ == "__main__":
    run()
