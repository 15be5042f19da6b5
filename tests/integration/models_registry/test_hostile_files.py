"""Hostile files are refused, each with its code, by whatever way they come, at little cost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from infra.database import Connection
from infra.storage import open_storage
from models_registry.contents.shelving import Wanted, take_in
from models_registry.refusals import ModelRefused
from models_registry.scanning.scan import scan
from tests.hostile_files import MIB, write_hostile

ROOT = Path(__file__).parents[3]
#: Looks at each file of a folder in a process of its own, and says what it was refused by, what was read of it, and the memory it took.
LOOK = """
import json, resource, sys
from pathlib import Path
from models_registry.reading.bounded_files import Reads
from models_registry.refusals import ModelRefused
from models_registry.contents.shelving import Wanted, check
said = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    reads = Reads()
    try:
        check(path, Wanted("name"), reads)
    except ModelRefused as refusal:
        said[path.name] = (refusal.code, reads.bytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Return a folder of hostile files, and their codes."""
    folder = tmp_path_factory.mktemp("hostile")
    return folder, write_hostile(folder)


def test_hostile_files_cost_little(hostile: tuple[Path, dict[str, str]]) -> None:
    """A process that looks at all of them stays under 256 MiB, and reads of each no more than a header may have."""
    folder, codes = hostile
    assert len(codes) >= 60
    # A process counts the memory of its parent as its own until it is another program: so a small one stands between.
    run = subprocess.run(
        ["/bin/sh", "-c", '"$0" -c "$1" "$2"; exit $?', sys.executable, LOOK, str(folder)],
        check=True, capture_output=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    said = {name: tuple(told) for name, told in json.loads(run.stdout).items()}
    links = {"loop.safetensors": "link_outside"}
    assert {name: code for name, (code, _, _) in said.items()} == codes | links
    assert max(read for _, read, _ in said.values()) <= 8 * MIB + 64
    assert max(peak for _, _, peak in said.values()) < 256 * 1024


def test_scan_refuses_hostile_files(conn: Connection, hostile: tuple[Path, dict[str, str]]) -> None:
    """Every one is named with its code, and nothing is offered; the next scan opens none of those that were judged."""
    folder, codes = hostile
    report = scan(conn, [folder])
    assert report.found == ()
    assert {refusal.path.name: refusal.code for refusal in report.refused} == codes
    opened: list[int] = []
    assert scan(conn, [folder], progress=lambda told: opened.append(told.opened)).refused == report.refused
    assert opened[-1] == sum(code == "file_unreadable" for code in codes.values())


def test_take_in_leaves_nothing_of_hostile_files(
    conn: Connection, hostile: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    """No entry, no object, no garbage."""
    folder, codes = hostile
    storage = open_storage((tmp_path / "storage").as_uri())
    for name in codes:
        with pytest.raises(ModelRefused):
            take_in(conn, folder / name, Wanted("name"), storage=storage)
    assert list(storage.list()) == []
    for table in ("models", "garbage"):
        assert conn.execute(f"select from {table}").fetchall() == []


@pytest.mark.parametrize("name", ["new\nline", "x" * 220, "\udcff\udcfe"])
def test_scan_refuses_names_that_nobody_can_write(conn: Connection, tmp_path: Path, name: str) -> None:
    """A name with a new line, too long a one, and one that is no UTF-8 are refused without opening the file."""
    (tmp_path / f"{name}.safetensors").write_bytes(b"x")
    assert [refusal.code for refusal in scan(conn, [tmp_path]).refused] == ["name_invalid"]
