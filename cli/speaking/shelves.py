"""`imagefleet models check`: what of the models is missing, doubled or orphaned, and how to settle it."""

from typing import Annotated

import typer

from cli.output import print_json, print_table, size
from cli.speaking.fleet import open_client
from client.shelves import Shelves
from infra.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def check(
    *,
    forget: Annotated[bool, typer.Option("--forget", help="Delete the entries whose files are away.")] = False,
    keep: Annotated[str | None, typer.Option(help="Of equal entries keep the one of this id.", metavar="ID")] = None,
    remove_orphans: Annotated[
        bool, typer.Option("--remove-orphans", help="Remove stored bytes that no entry has.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say which entries have lost their files, which are equal, and which stored bytes nobody has; settle it where asked."""
    with open_client(Settings()) as client:
        shelves = client.shelves
        settled = _settle(shelves, forget=forget, keep=keep, remove_orphans=remove_orphans)
        missing, duplicates, orphans = shelves.missing().items, shelves.duplicates().items, shelves.orphans().items
    if as_json:
        print_json({"settled": settled, "missing": missing, "duplicates": duplicates, "orphans": orphans})
        return
    for said in settled:
        typer.echo(said)
    rows = [(str(each.id), each.kind, each.ref, each.damage or "missing", each.path) for each in missing]
    print_table(("id", "kind", "name", "why", "path"), rows, empty="Nothing is missing.")
    equal = [
        (str(one.id), one.kind, one.ref, size(each.bytes), one.path) for each in duplicates for one in each.entries
    ]
    print_table(("id", "kind", "equal to others", "weights", "path"), equal, empty="Nothing is there twice.")
    stored = [(each.sha256, size(each.bytes)) for each in orphans]
    print_table(("stored without an entry", "bytes"), stored, empty="Nothing is stored without an entry.")


def _settle(shelves: Shelves, *, forget: bool, keep: str | None, remove_orphans: bool) -> list[str]:
    said = []
    if forget:
        away = [each.id for each in shelves.missing().items if each.missing_since is not None]
        deleted = shelves.forget(away).deleted if away else []
        said.append(f"Forgotten: {len(deleted)}.")
    if keep is not None:
        said.append(f"Deleted in favour of it: {len(shelves.keep(keep).deleted)}.")
    if remove_orphans:
        said.append(f"To be removed: {shelves.remove_orphans().removed}.")
    return said
