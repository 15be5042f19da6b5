"""`imagefleet keys`: create, list and revoke API keys, directly in the database, so that it works without a key."""

from typing import Annotated

import typer

from broker_api.auth.keys import Scope, create_key, list_keys, revoke_key
from cli.failure import CommandFailed
from cli.output import age, print_json, print_table
from cli.running.database import open_database
from infra.settings import Settings

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Create, list and revoke API keys.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    owner: Annotated[str, typer.Option(help="Whose jobs its user sees.")] = "admin",
    *,
    admin: Annotated[bool, typer.Option("--admin", help="May see everything and manage keys.")] = False,
    retention_days: Annotated[
        float | None, typer.Option(min=0.001, help="How long its jobs are kept, instead of the fleet's retention.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it, this once."""
    scopes: tuple[Scope, ...] = ("user", "admin") if admin else ("user",)
    with open_database(Settings()) as connection:
        created = create_key(connection, owner=owner, name=name, scopes=scopes, retention_days=retention_days)
    if as_json:
        print_json(created)
        return
    typer.echo(created.key)
    typer.secho(f"Key {created.id} of {created.owner}: it is not shown again.", err=True, dim=True)


@app.command("list")
def list_all(*, as_json: AsJson = False) -> None:
    """List the keys, revoked ones too."""
    with open_database(Settings()) as connection:
        found = list_keys(connection)
    if as_json:
        print_json(found)
        return
    rows = [
        (
            key.id,
            key.owner,
            ", ".join(key.scopes),
            age(key.created_at),
            f"{age(key.last_used_at)} ago" if key.last_used_at else "never",
            "revoked" if key.revoked_at else "",
            key.name,
        )
        for key in found
    ]
    print_table(("id", "owner", "may", "age", "used", "", "name"), rows, empty="No keys.")


@app.command()
def revoke(key: Annotated[str, typer.Argument(help="Id of the key.", metavar="ID")]) -> None:
    """Revoke a key for good: within a second nothing takes it any more."""
    with open_database(Settings()) as connection:
        if not revoke_key(connection, key):
            raise CommandFailed("There is no key of this id; `imagefleet keys list` shows them.")
    typer.echo(f"{key} revoked")
