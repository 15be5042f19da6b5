"""`imagefleet models`: list the models, and look for new ones."""

from pathlib import Path
from typing import Annotated

import typer

from cli.database import open_database
from cli.failure import CommandFailed
from cli.fleet import open_client
from cli.folders import model_folders
from cli.output import plain, print_json, print_table, size
from infra.settings import Settings
from models_registry.catalogue import ScanReport
from models_registry.catalogue import scan as scan_folders

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List models, and look for new ones.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_models(*, as_json: AsJson = False) -> None:
    """List the models that can be asked for."""
    with open_client(Settings()) as client:
        found = client.models().items
    if as_json:
        print_json(found)
        return
    rows = [
        (
            model.name,
            model.family,
            f"{model.native_size} px",
            size(model.bytes),
            str(model.default_steps),
            model.default_scheduler,
            "default" if model.is_default else "",
        )
        for model in found
    ]
    titles = ("name", "family", "size", "weights", "steps", "scheduler", "")
    print_table(titles, rows, empty="No models. `imagefleet models scan FOLDER` looks for some.")


@app.command()
def scan(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="By default IMAGEFLEET_MODELS and the fleet's own.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Look through folders for models: offer what is new, mark what is gone, say what is refused and why."""
    settings = Settings()
    chosen = folders or model_folders(settings)
    if not chosen:
        raise CommandFailed("There is no folder to look through: name one, or set IMAGEFLEET_MODELS.")
    with open_database(settings) as connection:
        report = scan_folders(connection, chosen)
    if as_json:
        print_json(_as_data(report))
    else:
        _print(report)
    away = [refusal for refusal in report.refused if refusal.code == "folder_missing"]
    if away:
        raise CommandFailed(f"{', '.join(plain(str(refusal.path)) for refusal in away)}: no such folder.")


def _as_data(report: ScanReport) -> dict[str, object]:
    refused = [{"path": str(path), "code": code, "reason": reason} for path, code, reason in report.refused]
    named = {name: getattr(report, name) for name in ("found", "added", "changed", "missing")}
    return {**named, "refused": refused}


def _print(report: ScanReport) -> None:
    for name in report.found:
        news = "added" if name in report.added else "changed" if name in report.changed else "as before"
        typer.echo(f"{name}: {news}")
    for name in report.missing:
        typer.secho(f"{name}: missing, not offered until it is back", fg="yellow")
    for refusal in report.refused:
        typer.secho(f"not offered ({refusal.code}): {plain(str(refusal.path))} {refusal.reason}", fg="yellow")
    if not report.found:
        typer.echo("No models found.")
