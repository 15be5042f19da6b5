"""The commands that `imagefleet models` and `imagefleet adapters` have in common: look at entries of the library, and change them."""

from collections.abc import Sequence
from typing import Annotated

import typer

from cli.failure import CommandFailed
from cli.output import age, print_json, print_table, size
from cli.speaking.fleet import open_client
from client.library import EntryView, Library, Shelf, Uses
from infra.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Which = Annotated[str, typer.Argument(help="Its id or name: `name@version`, `name` for the newest version, an alias.")]
Several = Annotated[list[str], typer.Argument(help="Their ids or names.")]
HEADINGS = ("name", "kind", "family", "weights", "tags", "marks", "uses", "added")


def add_commands(app: typer.Typer, shelf: Shelf) -> None:
    """Give a verb the commands for the entries of one shelf."""
    _add_readers(app, shelf)
    _add_writers(app, shelf)


def print_entries(found: Sequence[EntryView], *, empty: str) -> None:
    """Print entries as a table."""
    print_table(HEADINGS, [_row(each) for each in found], empty=empty)


def _add_readers(app: typer.Typer, shelf: Shelf) -> None:
    @app.command()
    def find(
        words: Annotated[
            list[str] | None, typer.Argument(help="Beginnings of words of its name, tags, description.")
        ] = None,
        *,
        family: Annotated[str | None, typer.Option(help="`sd15`, `sdxl` …")] = None,
        tag: Annotated[list[str] | None, typer.Option(help="It has all of them.")] = None,
        favourite: Annotated[bool, typer.Option("--favourite", help="Only favourites.")] = False,
        active: Annotated[bool, typer.Option("--active", help="Only what is in the stack that is composed.")] = False,
        missing: Annotated[bool, typer.Option("--missing", help="Those whose files are away.")] = False,
        sort: Annotated[
            str | None, typer.Option(help="name, created, updated, size, rating, relevance or uses.")
        ] = None,
        limit: Annotated[int, typer.Option(min=1, max=1000, help="So many at most.")] = 50,
        as_json: AsJson = False,
    ) -> None:
        """Search the library."""
        asked = {
            "q": " ".join(words) if words else None, "family": family, "tag": ",".join(tag) if tag else None,
            "favourite": favourite or None, "active": active or None, "missing": missing or None, "sort": sort, "limit": limit,
        }  # fmt: skip
        with open_client(Settings()) as client:
            page = client.library(shelf).page(**asked)
        if as_json:
            print_json(page)
            return
        print_entries(page.items, empty="Nothing was found.")
        if page.next_cursor is not None:
            typer.echo(f"There is more: these are the first {limit}.")

    @app.command()
    def show(which: Which, *, as_json: AsJson = False) -> None:
        """Show one entry."""
        with open_client(Settings()) as client:
            entry = client.library(shelf).read(which)
        if as_json:
            print_json(entry)
        else:
            print_table(("", ""), _facts(entry), empty="")


def _add_writers(app: typer.Typer, shelf: Shelf) -> None:
    @app.command()
    def edit(
        which: Which,
        *,
        name: Annotated[str | None, typer.Option(help="A new name.")] = None,
        version: Annotated[str | None, typer.Option(help="A new version.")] = None,
        description: Annotated[str | None, typer.Option()] = None,
        licence: Annotated[str | None, typer.Option()] = None,
        base_model: Annotated[str | None, typer.Option()] = None,
        weight: Annotated[float | None, typer.Option(help="Used where a job names a LoRA without a weight.")] = None,
        trigger: Annotated[list[str] | None, typer.Option(help="Trigger words, in place of those there are.")] = None,
        alias: Annotated[list[str] | None, typer.Option(help="Other names, in place of those there are.")] = None,
        visibility: Annotated[str | None, typer.Option(help="public or private.")] = None,
        as_json: AsJson = False,
    ) -> None:
        """Change what is said of an entry."""
        given = {
            "name": name, "version": version, "description": description, "licence": licence, "base_model": base_model, "weight": weight,
            "trigger_words": trigger, "aliases": alias, "visibility": visibility,
        }  # fmt: skip
        changes = {field: value for field, value in given.items() if value is not None}
        if not changes:
            raise CommandFailed("Nothing to change: say what with an option.")
        with open_client(Settings()) as client:
            entry = client.library(shelf).change(which, changes)
        if as_json:
            print_json(entry)
        else:
            typer.echo(f"{entry.ref}: changed")

    @app.command()
    def tag(
        which: Several,
        *,
        add: Annotated[list[str] | None, typer.Option(help="Tags to put on.")] = None,
        remove: Annotated[list[str] | None, typer.Option(help="Tags to take off.")] = None,
    ) -> None:
        """Put tags on entries, or take them off."""
        if not add and not remove:
            raise CommandFailed("Name tags with --add or --remove.")
        for action, tags in (("tag", add), ("untag", remove)):
            if tags:
                _do(shelf, action, which, tags)

    @app.command()
    def activate(which: Several) -> None:
        """Take entries into the stack that is composed, in this order."""
        _do(shelf, "activate", which)

    @app.command()
    def deactivate(which: Several) -> None:
        """Take entries out of the stack that is composed."""
        _do(shelf, "deactivate", which)

    @app.command()
    def favourite(
        which: Several, *, remove: Annotated[bool, typer.Option("--remove", help="No longer.")] = False
    ) -> None:
        """Make entries favourites."""
        _do(shelf, "unfavourite" if remove else "favourite", which)

    @app.command()
    def delete(which: Several) -> None:
        """Delete entries, all or none; files in folders stay."""
        _do(shelf, "delete", which)


def _do(shelf: Shelf, action: str, which: Sequence[str], tags: Sequence[str] = ()) -> None:
    with open_client(Settings()) as client:
        library = client.library(shelf)
        done = library.bulk(action, ids=[_id(library, each) for each in which], tags=tags)
    typer.echo(f"{action}: {len(done.ids)}")


def _id(library: Library, which: str) -> str:
    entry = library.read(which)
    return entry.entry_id or entry.id


def _row(entry: EntryView) -> tuple[str, ...]:
    marks = entry.marks
    told = [
        "favourite" if marks.favourite else "",
        f"{marks.rating}/5" if marks.rating is not None else "",
        f"active {marks.position}" if marks.active else "",
    ]
    return (
        entry.ref,
        entry.kind,
        entry.family,
        size(entry.bytes),
        ", ".join(entry.tags),
        ", ".join(filter(None, told)),
        str(entry.usage.uses) if entry.usage.uses else "",
        age(entry.created_at),
    )


def _facts(entry: EntryView) -> list[tuple[str, str]]:
    facts = [
        ("name", entry.ref),
        ("id", entry.entry_id or entry.id),
        ("kind", f"{entry.kind}, {entry.variant}"),
        ("family", entry.family),
        ("base model", entry.base_model),
        ("weights", size(entry.bytes)),
        ("sha256", entry.sha256 or ""),
        ("also called", ", ".join(entry.aliases)),
        ("tags", ", ".join(entry.tags)),
        ("trigger words", ", ".join(entry.trigger_words)),
        ("weight", "" if entry.weight is None else f"{entry.weight:g}"),
        ("licence", entry.licence),
        ("source", entry.source),
        ("owner", entry.owner or "the fleet"),
        ("visibility", entry.visibility),
        ("used", _use(entry.usage)),
        ("missing", f"for {age(entry.missing_since)}" if entry.missing_since else ""),
        ("description", entry.description),
    ]
    return [(name, value) for name, value in facts if value]


def _use(usage: Uses) -> str:
    if not usage.uses:
        return ""
    told = [f"{usage.uses} times"]
    if usage.last_used_at is not None:
        told.append(f"{age(usage.last_used_at)} ago")
    if usage.typical_weight is not None:
        told.append(f"at {usage.typical_weight:g}")
    if usage.mean_seconds is not None:
        told.append(f"{usage.mean_seconds:.1f} s each")
    if usage.failure_share:
        told.append(f"{usage.failure_share:.0%} failed")
    return ", ".join(told)
