"""Measure how often each trained model obeys over HTTP, and write it into docs/accuracy.md: `make accuracy`."""

import argparse
import os
import tempfile
from pathlib import Path

from tests.acceptance.families.accuracy_page import PAGE, Count, read, write
from tests.acceptance.families.obedience import EACH, asked_of, cells, checkpoints, count_right
from tests.acceptance.tasks.conftest import Studio
from tests.fleet_process import FleetProcess


def main() -> None:
    """Measure what is named, or everything, on a fleet of its own; figures of what is not measured stay."""
    parser = argparse.ArgumentParser(prog="make accuracy", description=__doc__)
    parser.add_argument("names", nargs="*", help="only these models and additions")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    known = cells()
    wanted = [cell for cell in known if not options.names or cell.name in options.names]
    with tempfile.TemporaryDirectory(prefix="imagefleet-") as folder:
        fleet = FleetProcess(Path(folder) / "home", workers=1, threads=options.threads)
        fleet.start()
        try:
            with fleet.client() as http:
                for cell in wanted:
                    jobs = asked_of(cell)
                    count = Count(count_right(Studio(fleet, http), jobs), EACH * len(jobs))
                    print(f"{cell.name}, {cell.task}: {count.right} of {count.pictures}", flush=True)
                    text = PAGE.read_text(encoding="utf-8")
                    found = {**read(text), (cell.name, cell.task): count}
                    PAGE.write_text(write(text, known, checkpoints(), found), encoding="utf-8")
        finally:
            fleet.stop()


if __name__ == "__main__":
    main()
