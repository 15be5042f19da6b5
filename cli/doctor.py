"""`imagefleet doctor`: say what this machine lacks, and how to mend it."""

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from cli.failure import CommandFailed
from cli.output import print_json
from infra.checks import Check, run_checks
from infra.settings import Settings


def doctor(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Look at this machine for what is missing, and say how to mend it."""
    checks = run_checks(Settings())
    if as_json:
        print_json([{"name": check.name, "ok": check.ok, "why": check.why, "cure": check.cure} for check in checks])
    else:
        console = Console()
        for check in checks:
            console.print(_line(check), soft_wrap=True, highlight=False)
    bad = [check.name for check in checks if not check.ok]
    if bad:
        raise CommandFailed(f"{len(bad)} of {len(checks)} checks failed: {', '.join(bad)}.")


def _line(check: Check) -> Text:
    mark = ("✓ ", "green") if check.ok else ("✗ ", "red")
    line = Text.assemble(mark, f"{check.name:<10} {check.why}")
    if check.cure:
        line.append(f"\n{'':13}to mend it: {check.cure}", style="yellow")
    return line
