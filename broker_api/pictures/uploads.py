"""Take pictures in ahead of the jobs that start from them, and give them back to their owner."""

from http import HTTPStatus
from typing import Final

from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from broker_api.endpoints import Call, not_found
from broker_api.http.answers import json_answer
from broker_api.pictures.images import is_known, picture_headers, verified
from broker_api.refusals import MediaTypeUnsupported
from jobs.errors import PictureRefused
from jobs.pictures import upload_of, upload_ref
from jobs.reading import StoredImage
from jobs.uploads import Upload, read_upload, upload_key

#: What a picture in the body itself may be declared as; what it is, its bytes say.
MEDIA_TYPES: Final = ("image/png", "image/jpeg", "image/webp", "application/octet-stream")
_FORM: Final = "multipart/form-data"
_FIELD: Final = "file"


class UploadView(BaseModel):
    """A picture that was taken in."""

    id: str = Field(description="What requests name it by: `upload:<id>`.")
    sha256: str
    mime: str
    width: int = Field(description="As it is shown: its EXIF orientation counts.")
    height: int
    bytes: int


async def create_upload(call: Call) -> Response:
    """Check a picture and keep it."""
    pictures = await call.services.pictures.take_file(await _file(call.request), _FIELD)
    created = await call.services.pictures.keep(call.principal.owner, pictures)
    upload = pictures.by_field[_FIELD]
    status = HTTPStatus.CREATED if upload.sha256 in created else HTTPStatus.OK
    return json_answer(_view(upload), status, {"location": f"/v1/uploads/{upload.sha256}"})


async def read_one_upload(call: Call) -> Response:
    """Return the bytes of a picture."""
    sha256 = call.request.path_params["sha256"]
    if upload_of(upload_ref(sha256)) is None:
        raise not_found()
    async with call.services.pool.connection() as connection:
        upload = await read_upload(connection, call.principal.sees, sha256)
    if upload is None:
        raise not_found()
    headers = picture_headers(f"upload-{sha256[:12]}", upload.mime, sha256)
    if is_known(call.request.headers.get("if-none-match"), headers["etag"]):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    if call.request.method == "HEAD":
        return Response(headers={**headers, "content-length": str(upload.bytes)})
    stored = StoredImage(upload_key(sha256), sha256, upload.mime, upload.bytes)
    return Response(await verified(call.services.storage, stored), headers=headers)


def _view(upload: Upload) -> UploadView:
    return UploadView(
        id=upload.sha256,
        sha256=upload.sha256,
        mime=upload.mime,
        width=upload.width,
        height=upload.height,
        bytes=upload.bytes,
    )


async def _file(request: Request) -> bytes:
    """Return the picture of a request, as bounded as its body is."""
    media_type = request.headers.get("content-type", MEDIA_TYPES[-1]).partition(";")[0].strip().lower()
    if media_type == _FORM:
        return await _file_of_form(request)
    if media_type not in MEDIA_TYPES and not media_type.startswith("image/"):
        raise MediaTypeUnsupported(
            f"This path does not read {media_type[:100]!r}: send the picture as the body with its own Content-Type, "
            f"or as the field `{_FIELD}` of a form.",
            field="Content-Type",
        )
    return await request.body()


async def _file_of_form(request: Request) -> bytes:
    try:
        async with request.form(max_files=1, max_fields=10) as form:
            sent = form.get(_FIELD)
            if isinstance(sent, UploadFile):
                return await sent.read()
    except HTTPException as problem:
        raise PictureRefused(f"The form cannot be read: {problem.detail}.", field=_FIELD) from None
    raise PictureRefused(f"The form has no file in the field `{_FIELD}`.", field=_FIELD)
