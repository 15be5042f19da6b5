"""`imagefleet models`: list the models, fetch, send and look for new ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from cli.failure import CommandFailed
from cli.output import plain, print_json, print_table, size
from cli.running.database import open_database
from cli.running.folders import model_folders
from cli.speaking.entries import add_commands
from cli.speaking.fleet import open_client
from cli.speaking.model_uploads import upload
from cli.speaking.pulls import lookup, pull
from cli.speaking.shelves import check
from client.views import AdapterView, ModelView
from infra.settings import Settings
from models_registry.entries import Kind, ModelRef
from models_registry.scanning.scan import ScanReport
from models_registry.scanning.scan import scan as scan_folders

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List models, fetch, send and look for new ones.")

app.command()(pull)
app.command()(upload)
app.command()(lookup)
app.command()(check)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_models(
    *,
    kind: Annotated[
        Kind, typer.Option(help="Checkpoints draw; the other kinds are added to them, or enlarge pictures.")
    ] = Kind.CHECKPOINT,
    as_json: AsJson = False,
) -> None:
    """List the models that can be asked for."""
    with open_client(Settings()) as client:
        found: Sequence[ModelView | AdapterView] = (
            client.models().items if kind is Kind.CHECKPOINT else client.adapters(kind=kind).items
        )
    if as_json:
        print_json(found)
        return
    empty = "No models. `imagefleet models scan FOLDER` looks for some."
    if kind is Kind.CHECKPOINT:
        headings = ("name", "family", "variant", "size", "weights", "steps", "scheduler", "")
        print_table(headings, [_model_row(each) for each in found if isinstance(each, ModelView)], empty=empty)
    else:
        titles = ("name", "family", "variant", "weights", "facts")
        print_table(titles, [_adapter_row(each) for each in found if isinstance(each, AdapterView)], empty=empty)


def _model_row(model: ModelView) -> tuple[str, ...]:
    return (
        model.name,
        model.family,
        model.variant,
        f"{model.native_size} px",
        size(model.bytes),
        str(model.default_steps),
        model.default_scheduler,
        "default" if model.is_default else "",
    )


def _adapter_row(adapter: AdapterView) -> tuple[str, ...]:
    facts = (
        ("scale", adapter.scale),
        ("rank", adapter.rank),
        ("vectors", adapter.vectors),
        ("text width", adapter.text_width),
    )
    told = ", ".join(f"{name} {value}" for name, value in facts if value is not None)
    return (adapter.name, adapter.family, adapter.variant, size(adapter.bytes), told)


@app.command()
def scan(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="By default IMAGEFLEET_MODELS and the fleet's own.")
    ] = None,
    *,
    again: Annotated[
        bool,
        typer.Option("--again", help="Open everything, also what has not changed or was taken out of the library."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look through folders for models: offer what is new, mark what is gone, say what is refused and why."""
    settings = Settings()
    chosen = folders or model_folders(settings)
    if not chosen:
        raise CommandFailed("There is no folder to look through: name one, or set IMAGEFLEET_MODELS.")
    with open_database(settings) as connection, Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Looking through the folders", total=None)
        report = scan_folders(
            connection, chosen, again=again, progress=lambda told: bar.update(task, completed=told.seen)
        )
    if as_json:
        print_json(_as_data(report))
    else:
        _print(report)
    away = [refusal for refusal in report.refused if refusal.code == "folder_missing"]
    if away:
        raise CommandFailed(f"{', '.join(plain(str(refusal.path)) for refusal in away)}: no such folder.")


def _as_data(report: ScanReport) -> dict[str, object]:
    refused = [{"path": str(path), "code": code, "reason": reason} for path, code, reason in report.refused]
    named = {
        name: [ref._asdict() for ref in getattr(report, name)] for name in ("found", "added", "changed", "missing")
    }
    return {**named, "refused": refused}


def _told(ref: ModelRef) -> str:
    return ref.name if ref.kind is Kind.CHECKPOINT else f"{ref.name} ({ref.kind})"


def _print(report: ScanReport) -> None:
    for ref in report.found:
        news = "added" if ref in report.added else "changed" if ref in report.changed else "as before"
        typer.echo(f"{_told(ref)}: {news}")
    for ref in report.missing:
        typer.secho(f"{_told(ref)}: missing, not offered until it is back", fg="yellow")
    for refusal in report.refused:
        typer.secho(f"not offered ({refusal.code}): {plain(str(refusal.path))} {refusal.reason}", fg="yellow")
    if not report.found:
        typer.echo("No models found.")


add_commands(app, "models")
