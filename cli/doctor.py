"""`imagefleet doctor`: say what this machine lacks, and how to mend it."""

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from cli.failure import CommandFailed
from cli.output import print_json
from infra.checks import Check, run_checks
from infra.settings import Settings
from workers.devices import find_gpus


def doctor(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Look at this machine for what is missing, and say how to mend it."""
    checks = [*run_checks(Settings()), check_gpus()]
    if as_json:
        print_json([{"name": check.name, "ok": check.ok, "why": check.why, "cure": check.cure} for check in checks])
    else:
        console = Console()
        for check in checks:
            console.print(_line(check), soft_wrap=True, highlight=False)
    bad = [check.name for check in checks if not check.ok]
    if bad:
        raise CommandFailed(f"{len(bad)} of {len(checks)} checks failed: {', '.join(bad)}.")


def check_gpus() -> Check:
    """List the GPUs as workers find them; none is no fault, for the CPU draws too."""
    gpus = find_gpus()
    if not gpus:
        return Check("gpu", ok=True, why="no GPU found: pictures are drawn on the CPU, slowly")
    return Check("gpu", ok=True, why=", ".join(f"{gpu.title} ({gpu.memory_bytes / 1024**3:.0f} GiB)" for gpu in gpus))


def _line(check: Check) -> Text:
    mark = ("✓ ", "green") if check.ok else ("✗ ", "red")
    line = Text.assemble(mark, f"{check.name:<10} {check.why}")
    if check.cure:
        line.append(f"\n{'':13}to mend it: {check.cure}", style="yellow")
    return line
