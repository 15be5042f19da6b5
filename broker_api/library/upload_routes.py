"""The part of the route table about files of models that people send."""

from typing import Final

from broker_api.endpoints import Answer, Endpoint, FileBody
from broker_api.library.file_refusals import FILE_REFUSALS
from broker_api.library.model_uploads import UploadForm, upload_adapter, upload_model
from broker_api.library.pull_refusals import (
    ChecksumMismatch,
    DiskFull,
    FileTooLarge,
    FormInvalid,
    OffsetMismatch,
    TooManyDownloads,
    TusUnsupported,
    UploadUnfinished,
)
from broker_api.library.taking_in import TakenIn
from broker_api.library.tus import (
    MEDIA_TYPE,
    FileUploadView,
    append_file,
    create_file,
    delete_file,
    describe_tus,
    read_file,
)
from broker_api.refusals import NotFound, StorageUnavailable
from jobs.errors import RequestRefused

_ERRORS: Final[tuple[type[RequestRefused], ...]] = (
    RequestRefused, NotFound, FormInvalid, FileTooLarge, UploadUnfinished, DiskFull, StorageUnavailable, *FILE_REFUSALS,
)  # fmt: skip
_ANSWERS: Final = (
    Answer(201, "Taken in: jobs may name it.", TakenIn),
    Answer(200, "The upload in pieces became this entry before.", TakenIn),
)
_RESUMABLE: Final = {"Tus-Resumable": "`1.0.0`."}
_OFFSETS: Final = {
    "Tus-Resumable": "`1.0.0`.",
    "Upload-Offset": "Bytes that are there.",
    "Upload-Length": "Bytes of the whole file.",
    "Upload-Expires": "When it is forgotten unless it is gone on with.",
}

#: Before those whose path ends with any name.
UPLOAD_ENDPOINTS: Final = (
    Endpoint(
        "POST", "/v1/adapters/upload", "uploadAdapter", "Upload a model's file", "downloads", upload_adapter,
        description=(
            "A form with the file in the field `file`: one safetensors file of any kind. It is streamed, checked without being opened by "
            "any library, and becomes an entry of yours. A large file goes to `/v1/files` in pieces first; name it in `upload` then."
        ),
        file=FileBody((), form=UploadForm, is_large=True), answers=_ANSWERS, errors=_ERRORS,
    ),
    Endpoint(
        "POST", "/v1/models/upload", "uploadModel", "Upload a checkpoint", "downloads", upload_model,
        description="As `/v1/adapters/upload`, for what draws by itself.",
        file=FileBody((), form=UploadForm, is_large=True), answers=_ANSWERS, errors=_ERRORS,
    ),
    Endpoint(
        "OPTIONS", "/v1/files", "describeFiles", "What of tus is spoken", "downloads", describe_tus,
        answers=(Answer(204, "Versions, extensions, limits.", headers={"Tus-Version": "`1.0.0`.", "Tus-Max-Size": "Bytes."}),),
    ),
    Endpoint(
        "POST", "/v1/files", "createFile", "Begin an upload in pieces", "downloads", create_file,
        description="By tus 1.0 (https://tus.io): any of its clients uploads here, and goes on where it was broken off.",
        headers={**_RESUMABLE, "Upload-Length": "Bytes of the whole file.", "Upload-Metadata": "Pairs of a name and base64."},
        answers=(Answer(201, "Begun.", FileUploadView, headers={"Location": "Path of the upload.", **_OFFSETS}),),
        errors=(FileTooLarge, TooManyDownloads, TusUnsupported),
    ),
    Endpoint(
        "GET", "/v1/files/{id}", "readFile", "Read how far an upload is", "downloads", read_file,
        description="`HEAD` answers by headers alone, as tus wants it.",
        answers=(Answer(200, "The upload.", FileUploadView, headers=_OFFSETS),), errors=(NotFound,),
    ),
    Endpoint(
        "PATCH", "/v1/files/{id}", "appendFile", "Send more of an upload", "downloads", append_file,
        headers={**_RESUMABLE, "Upload-Offset": "Byte it goes on from.", "Upload-Checksum": "`sha256` and base64 of the digest."},
        file=FileBody((MEDIA_TYPE,), field=None, is_large=True),
        answers=(Answer(204, "All of it is kept.", headers=_OFFSETS),),
        errors=(NotFound, OffsetMismatch, ChecksumMismatch, FileTooLarge, TusUnsupported, StorageUnavailable),
    ),
    Endpoint(
        "DELETE", "/v1/files/{id}", "deleteFile", "Forget an upload", "downloads", delete_file,
        headers=_RESUMABLE, answers=(Answer(204, "Forgotten.", headers=_RESUMABLE),), errors=(NotFound, TusUnsupported),
    ),
)  # fmt: skip
