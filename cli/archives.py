"""`imagefleet archives`: export, import, back up and restore the library."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from cli.failure import CommandFailed
from cli.output import print_json, print_table, size
from cli.speaking.fleet import open_client
from infra.settings import Settings

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Export, import, back up and restore the library.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WithFiles = Annotated[bool, typer.Option("--files", help="With the models' files, not only their hashes.")]
Id = Annotated[str, typer.Argument(help="Id of the backup.", metavar="ID")]


@app.command("list")
def list_backups(*, as_json: AsJson = False) -> None:
    """List the backups, newest first."""
    with open_client(Settings()) as client:
        found = client.archives().backups()
    if as_json:
        print_json(found)
        return
    rows = [
        (
            each["id"], each["made_at"][:19], each["made_by"] or "schedule", each["files"], size(each["bytes"]), str(each["entries"]),
            each["damage"] or ("verified" if each["verified_at"] else ""),
        )
        for each in found
    ]  # fmt: skip
    print_table(("id", "made", "by", "files", "size", "entries", ""), rows, empty="No backups.")


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="The archive to write.")],
    *,
    files: WithFiles = False,
    tag: Annotated[str | None, typer.Option(help="Only entries with this tag.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only entries of this kind.")] = None,
    own: Annotated[bool, typer.Option("--own", help="Only those one has added.")] = False,
) -> None:
    """Export entries and recipes as a ZIP archive."""
    chosen = {"tag": tag, "kinds": kind or None, "own": own}
    wanted = {
        "files": "include" if files else "reference",
        "filter": {name: value for name, value in chosen.items() if value},
    }
    with open_client(Settings()) as client:
        told = client.archives().estimate(wanted)
        _follow(client.archives().export(wanted, file), told["bytes"])
    for name in told["without_files"]:
        typer.secho(f"{name}: its files are away, and are not in the archive", fg="yellow", err=True)
    typer.echo(f"{file}: {told['entries']} entries, {told['recipes']} recipes, {size(file.stat().st_size)}")


@app.command("import")
def import_archive(
    file: Annotated[Path, typer.Argument(help="The archive.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would become of each entry.")] = False,
    conflict: Annotated[str, typer.Option(help="skip, rename or replace what has the name of another.")] = "skip",
    as_json: AsJson = False,
) -> None:
    """Import an archive, all of it or nothing."""
    if not file.is_file():
        raise CommandFailed(f"{file}: no such file.")
    with open_client(Settings()) as client:
        report = client.archives().import_(file, dry_run=dry_run, conflict=conflict)
    if as_json:
        print_json(report)
        return
    rows = [
        (each["ref"], each["action"], each["as_ref"] or "", each["files"] or "", each["message"] or "")
        for each in report["entries"]
    ]
    rows += [
        (each["name"], each["action"], each["as_name"] or "", "recipe", each["message"] or "")
        for each in report["recipes"]
    ]
    print_table(("name", "", "here", "files", ""), rows, empty="Nothing to import.")


@app.command()
def backup(*, files: WithFiles = False) -> None:
    """Make a backup of the whole library."""
    with open_client(Settings()) as client:
        made = client.archives().back_up("include" if files else "reference")
    typer.echo(f"{made['id']}: {made['entries']} entries, {made['recipes']} recipes, {size(made['bytes'])}")


@app.command()
def verify(which: Id) -> None:
    """Read a backup to its end, and say whether it is sound."""
    with open_client(Settings()) as client:
        found = client.archives().verify(which)
    if found["damage"]:
        raise CommandFailed(f"Damaged: {found['damage']}.")
    typer.echo("sound")


@app.command()
def restore(which: Id, *, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Make the library what it was when the backup was made."""
    if not yes:
        typer.confirm("Everything that was added or changed since is lost. Restore?", abort=True)
    with open_client(Settings()) as client:
        done = client.archives().restore(which)
    typer.echo(f"{done['entries']} entries, {done['recipes']} recipes")
    for name in done["without_files"]:
        typer.secho(f"{name}: its files are nowhere", fg="yellow", err=True)


@app.command()
def fetch(which: Id, file: Annotated[Path, typer.Argument(help="The file to write.")]) -> None:
    """Download a backup."""
    with open_client(Settings()) as client:
        _follow(client.archives().fetch_backup(which, file), None)


@app.command()
def delete(which: Id) -> None:
    """Delete a backup."""
    with open_client(Settings()) as client:
        client.archives().delete_backup(which)


@app.command()
def schedule(
    hours: Annotated[float | None, typer.Option(help="Make a backup every so many hours; 0 makes none.")] = None,
    *,
    keep: Annotated[int, typer.Option(help="How many of these are kept.")] = 7,
    files: WithFiles = False,
) -> None:
    """Show, or set, when backups are made by themselves."""
    with open_client(Settings()) as client:
        if hours is None:
            print_json(client.archives().schedule())
            return
        wanted: dict[str, Any] = {
            "every_hours": hours or None,
            "keep": keep,
            "files": "include" if files else "reference",
        }
        print_json(client.archives().set_schedule(wanted))


def _follow(written: Iterator[int], total: int | None) -> None:
    with Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn(), transient=True) as progress:
        task = progress.add_task("", total=total)
        for done in written:
            progress.update(task, completed=done)
