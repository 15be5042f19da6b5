"""Send models' files to a fleet in pieces, going on where it was broken off."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from uuid import UUID

from client.answers import segment, understood
from client.connection import Connection
from client.errors import Conflict, NotFound, RequestUnusable
from client.pull_views import FileUploadView, TakenInView

#: Bytes of one request: what is sent again when the connection breaks.
PIECE = 8 * 1024 * 1024
_TUS = {"tus-resumable": "1.0.0"}
_BYTES = {**_TUS, "content-type": "application/offset+octet-stream"}
#: A large file is read once more by the server before it answers.
_FINISH_SECONDS = 1800.0
#: So often in a row a piece may be refused for another's.
_MOST_MOVES = 5
#: What a form holds: one text, or several.
Fields = Mapping[str, str | Sequence[str]]


class ModelFiles:
    """Send files over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def begin(self, size: int) -> UUID:
        """Announce a file of so many bytes, and return the upload's id."""
        answer = self._connection.ask(
            "POST", "/v1/files", headers={**_TUS, "upload-length": str(size)}, repeatable=False
        )
        return understood(FileUploadView, answer.content).id

    def received(self, upload: UUID | str) -> FileUploadView | None:
        """Return how far an upload is, or None when the fleet has forgotten it."""
        try:
            answer = self._connection.ask("GET", f"/v1/files/{segment(upload)}")
        except NotFound:
            return None
        return understood(FileUploadView, answer.content)

    def send(self, upload: UUID | str, path: Path, on_progress: Callable[[int], object] | None = None) -> None:
        """Send what the fleet does not have yet of a file; `on_progress` is called with how many bytes it has."""
        size = path.stat().st_size
        at = self._offset(upload, size)
        moves = 0
        with path.open("rb") as file:
            while at < size:
                if on_progress is not None:
                    on_progress(at)
                file.seek(at)
                data = file.read(PIECE)
                if not data:
                    raise RequestUnusable(f"{path} has become shorter while it was sent")
                headers = {**_BYTES, "upload-offset": str(at)}
                try:
                    self._connection.ask("PATCH", f"/v1/files/{segment(upload)}", content=data, headers=headers)
                except Conflict:
                    # It had arrived, and only the answer had not.
                    moves += 1
                    if moves > _MOST_MOVES:
                        raise
                    at = self._offset(upload, size)
                    continue
                moves = 0
                at += len(data)
        if on_progress is not None:
            on_progress(size)

    def finish(self, upload: UUID | str, fields: Fields, *, checkpoint: bool = False) -> TakenInView:
        """Make a file that has arrived an entry; `fields` are those of the form, `name` among them."""
        return self._take_in({**fields, "upload": str(upload)}, checkpoint=checkpoint)

    def upload(
        self,
        path: Path,
        fields: Fields,
        *,
        checkpoint: bool = False,
        on_progress: Callable[[int], object] | None = None,
    ) -> TakenInView:
        """Send a file and make it an entry."""
        upload = self.begin(path.stat().st_size)
        self.send(upload, path, on_progress)
        return self.finish(upload, fields, checkpoint=checkpoint)

    def _take_in(self, fields: Fields, *, checkpoint: bool) -> TakenInView:
        # Without file names these are plain fields of a form.
        parts = [
            (name, (None, text))
            for name, texts in fields.items()
            for text in ([texts] if isinstance(texts, str) else texts)
        ]
        path = "/v1/models/upload" if checkpoint else "/v1/adapters/upload"
        answer = self._connection.ask("POST", path, parts=parts, timeout=_FINISH_SECONDS)
        return understood(TakenInView, answer.content)

    def _offset(self, upload: UUID | str, size: int) -> int:
        found = understood(FileUploadView, self._connection.ask("GET", f"/v1/files/{segment(upload)}").content)
        if found.bytes != size:
            raise RequestUnusable(f"the upload was begun for a file of {found.bytes} bytes, not {size}")
        return found.received
