"""The part of the route table about pictures: search, thumbnails, signed URLs, replay."""

from typing import Final

from broker_api.admission.submit_errors import SUBMIT_ERRORS, WAITED_FOR
from broker_api.endpoints import Answer, Body, Endpoint, parse_json
from broker_api.native.jobs import CreateQuery, JobOrDryRun
from broker_api.native.replay import ReplayJob, ReplayPicture, replay_job, replay_picture
from broker_api.native.results import (
    Deleted,
    DeleteResults,
    ResultPage,
    ResultQuery,
    delete_many_results,
    delete_one_result,
    list_results,
    read_one_result,
)
from broker_api.pictures.images import (
    ImageQuery,
    SignedQuery,
    SignedUrl,
    SignUrl,
    read_picture,
    read_signed_picture,
    sign_url,
)
from broker_api.refusals import (
    DatabaseUnavailable,
    MetadataMissing,
    NotFound,
    PictureDamaged,
    PictureMissing,
    SignatureInvalid,
    StorageUnavailable,
    UrlExpired,
)
from jobs.contract import JobView
from jobs.cursors import CursorInvalid
from jobs.errors import PictureRefused
from jobs.labels import LabelsInvalid
from jobs.results import ResultDetail

_NOT_MODIFIED: Final = Answer(304, "The client's copy is still right.")
_PICTURE: Final = Answer(200, "The picture.", media_type="image/*", headers={"ETag": "The SHA-256 of the bytes."})
_BAD_PICTURES: Final = (NotFound, PictureMissing, PictureDamaged, StorageUnavailable)
_IF_NONE_MATCH: Final = {"If-None-Match": "ETags the client has."}
_LOCATION: Final = {"Location": "Path of the job."}
_ACCEPTED: Final = (
    Answer(202, "Accepted: it waits or runs.", JobView, headers=_LOCATION),
    Answer(
        200,
        "Accepted and ended within `wait`; or with `dry_run` what would become of it.",
        JobOrDryRun,
        headers=_LOCATION,
    ),
)
_ONE_PIXEL: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAAOnRFWHRwYXJhbWV0ZXJzAGEgcmVkIGNpcmNsZQpTdGVwczogMjAsIFNhbXBsZX"
    "I6IEV1bGVyLCBTZWVkOiA3tfmcyAAAAApJREFUeJxjYAAAAAIAAUivpHEAAAAASUVORK5CYII="
)
#: A picture of one pixel with `Steps: 20, Sampler: Euler, Seed: 7` in it.
_REPLAY_EXAMPLE: Final = {"image": _ONE_PIXEL, "changes": {"model": None, "steps": 12}}
_EXAMPLE_ID: Final = "01990000-0000-7000-8000-000000000000"

RESULT_ENDPOINTS: Final = (
    Endpoint(
        "GET", "/v1/jobs/{id}/images/{n}", "readImage", "Read a picture", "jobs", read_picture,
        description="The bytes are those whose SHA-256 was recorded when the job ended; it is the ETag.",
        query=ImageQuery, headers=_IF_NONE_MATCH, answers=(_PICTURE, _NOT_MODIFIED), errors=_BAD_PICTURES,
    ),
    Endpoint(
        "POST", "/v1/jobs/{id}/images/{n}/url", "signImageUrl", "Make a URL that needs no key", "results", sign_url,
        description="Whoever has the URL reads the picture until it expires, or until the job is deleted.",
        body=Body(models=(SignUrl,), parse=SignUrl.model_validate, example={"expires_in_s": 3600}),
        answers=(Answer(201, "The URL's path.", SignedUrl),), errors=(NotFound,),
    ),
    Endpoint(
        "GET", "/v1/signed/{id}/{n}", "readSignedImage", "Read a picture by a signed URL", "results", read_signed_picture, access="public",
        query=SignedQuery, headers=_IF_NONE_MATCH, answers=(_PICTURE, _NOT_MODIFIED),
        errors=(*_BAD_PICTURES, SignatureInvalid, UrlExpired, DatabaseUnavailable),
    ),
    Endpoint(
        "POST", "/v1/jobs/{id}/replay", "replayJob", "Draw a job again", "results", replay_job,
        description="With every field as it was resolved, the seed included, but for those in `changes`.",
        query=CreateQuery, body=Body(models=(ReplayJob,), parse=ReplayJob.model_validate, example={"changes": {"seed": -1, "steps": 12}}),
        headers=WAITED_FOR, answers=_ACCEPTED, errors=(NotFound, *SUBMIT_ERRORS),
    ),
    Endpoint(
        "POST", "/v1/replay", "replayImage", "Draw again what a picture's file says", "results", replay_picture,
        description="Our own metadata counts, else the text that A1111 writes; a model that is not here can be changed.",
        query=CreateQuery, body=Body(models=(ReplayPicture,), parse=ReplayPicture.model_validate, example=_REPLAY_EXAMPLE),
        headers=WAITED_FOR, answers=_ACCEPTED, errors=(MetadataMissing, PictureRefused, *SUBMIT_ERRORS),
    ),
    Endpoint(
        "GET", "/v1/results", "listResults", "Search one's pictures, newest first", "results", list_results,
        query=ResultQuery, answers=(Answer(200, "A page of pictures.", ResultPage),), errors=(CursorInvalid, LabelsInvalid),
    ),
    Endpoint(
        "POST", "/v1/results/delete", "deleteResults", "Delete pictures", "results", delete_many_results,
        description="Their jobs stay, without these pictures.",
        body=Body(
            models=(DeleteResults,), parse=parse_json(DeleteResults), example={"pictures": [{"job": _EXAMPLE_ID, "index": 0}]},
        ),
        answers=(Answer(200, "Those that were there.", Deleted),),
    ),
    Endpoint(
        "GET", "/v1/results/{id}/{n}", "readResult", "Read a picture's parameters", "results", read_one_result,
        answers=(Answer(200, "Everything needed to draw it again.", ResultDetail),), errors=(NotFound,),
    ),
    Endpoint(
        "DELETE", "/v1/results/{id}/{n}", "deleteResult", "Delete a picture", "results", delete_one_result,
        description="Its job stays, without this picture.", answers=(Answer(204, "Deleted."),), errors=(NotFound,),
    ),
)  # fmt: skip
