"""The one table of routes: from it come the routing, the checks, the OpenAPI document and the docs page."""

from typing import Final

from broker_api.admission.submit_errors import SUBMIT_ERRORS, WAITED_FOR
from broker_api.auth.key_doors import (
    ChangeKey,
    CreateKey,
    KeyPage,
    change_one_key,
    create_one_key,
    list_all_keys,
    revoke_one_key,
)
from broker_api.auth.keys import CreatedKey, KeyView
from broker_api.auth.session_doors import SESSION_ENDPOINTS
from broker_api.doors.openai.routes import OPENAI_ENDPOINTS
from broker_api.doors.sdapi.routes import SDAPI_ENDPOINTS
from broker_api.endpoints import Answer, Body, Endpoint, FileBody, parse_json
from broker_api.fleet.flower import proxy_flower, redirect_to_flower
from broker_api.fleet.routes import FLEET_ENDPOINTS
from broker_api.health import Health, Readiness, healthz, metrics, readyz
from broker_api.library.archive_routes import ARCHIVE_ENDPOINTS
from broker_api.library.entry_routes import ENTRY_ENDPOINTS
from broker_api.library.pull_routes import DOWNLOAD_ENDPOINTS
from broker_api.library.recipe_routes import RECIPE_ENDPOINTS
from broker_api.library.shelf_routes import SHELF_ENDPOINTS
from broker_api.library.upload_routes import UPLOAD_ENDPOINTS
from broker_api.native.batch_routes import BATCH_ENDPOINTS
from broker_api.native.choices import CHOICE_ENDPOINTS
from broker_api.native.jobs import (
    ChangeJob,
    CreateQuery,
    DeletedJobs,
    DeleteJobs,
    JobOrDryRun,
    JobPage,
    ListQuery,
    cancel_job,
    change_job,
    create_job,
    delete_job,
    delete_jobs,
    list_page,
    read_one_job,
)
from broker_api.native.prompts import PROMPT_ENDPOINTS
from broker_api.native.result_routes import RESULT_ENDPOINTS
from broker_api.pages import docs, landing, openapi
from broker_api.pictures.uploads import MEDIA_TYPES, UploadView, create_upload, read_one_upload
from broker_api.recommendations.routes import RECOMMENDATION_ENDPOINTS
from broker_api.refusals import (
    FlowerUnavailable,
    NotFound,
    OriginForeign,
    PictureDamaged,
    PictureMissing,
    StorageUnavailable,
    UpgradeRequired,
)
from broker_api.streaming.events import read_events
from broker_api.streaming.sockets import PATH, plain_request
from broker_api.web_app import WEB_ENDPOINTS
from jobs.contract import REQUESTS, JobView, parse_request
from jobs.control import JobActive
from jobs.cursors import CursorInvalid
from jobs.errors import PictureRefused, PictureTooLarge
from jobs.labels import LabelsInvalid
from jobs.priorities import JobNotWaiting

_LOCATION: Final = {"Location": "Path of the job."}
_NOT_MODIFIED: Final = Answer(304, "The client's copy is still right.")

_JOBS: Final = (
    Endpoint(
        "POST", "/v1/jobs", "createJob", "Draw, redraw or enlarge pictures", "jobs", create_job,
        description=(
            "`task` says what: `txt2img` (the default), `img2img`, `inpaint`, `upscale`, `preprocess`. A picture field takes base64, a "
            "`data:` URI, `upload:<id>` or `job:<id>/<n>`. The job is durable once this answers. Follow it by its events, or let `wait` "
            "hold the answer until it has ended."
        ),
        query=CreateQuery,
        body=Body(
            models=tuple(REQUESTS.values()),
            parse=parse_request,
            example={"prompt": "a red circle on a blue background", "seed": 7, "steps": 20, "num_images": 1},
        ),
        headers=WAITED_FOR,
        answers=(
            Answer(202, "Accepted: it waits or runs.", JobView, headers=_LOCATION),
            Answer(200, "Accepted and ended within `wait`; or with `dry_run` what would become of it.", JobOrDryRun, headers=_LOCATION),
        ),
        errors=SUBMIT_ERRORS,
    ),
    Endpoint(
        "GET", "/v1/jobs", "listJobs", "List jobs, newest first", "jobs", list_page,
        query=ListQuery, answers=(Answer(200, "A page of jobs.", JobPage),), errors=(CursorInvalid, LabelsInvalid),
    ),
    Endpoint(
        "POST", "/v1/jobs/delete", "deleteJobs", "Delete jobs that have ended, and their pictures", "jobs", delete_jobs,
        body=Body(
            models=(DeleteJobs,), parse=parse_json(DeleteJobs), example={"jobs": ["01990000-0000-7000-8000-000000000000"]},
        ),
        answers=(Answer(200, "Those that are gone.", DeletedJobs),),
    ),
    Endpoint(
        "GET", "/v1/jobs/{id}", "readJob", "Read a job", "jobs", read_one_job,
        answers=(Answer(200, "The job.", JobView),), errors=(NotFound,),
    ),
    Endpoint(
        "PATCH", "/v1/jobs/{id}", "changeJob", "Change the priority of a job that waits", "jobs", change_job,
        description=(
            "It takes the place in its queue that it would have, had it been sent with that priority now. Its followers hear `requeued` "
            "with the reason `priority_changed`."
        ),
        body=Body(models=(ChangeJob,), parse=ChangeJob.model_validate, example={"priority": 2}),
        answers=(Answer(200, "The job.", JobView),), errors=(NotFound, JobNotWaiting),
    ),
    Endpoint(
        "DELETE", "/v1/jobs/{id}", "deleteJob", "Delete a job that has ended, and its pictures", "jobs", delete_job,
        answers=(Answer(204, "Deleted."),), errors=(NotFound, JobActive),
    ),
    Endpoint(
        "POST", "/v1/jobs/{id}/cancel", "cancelJob", "Cancel a job", "jobs", cancel_job,
        description="A waiting job is cancelled at once, a running one within a step; one that has ended stays as it is.",
        answers=(
            Answer(200, "It has ended.", JobView),
            Answer(202, "It runs still and will stop.", JobView),
        ),
        errors=(NotFound,),
    ),
    Endpoint(
        "GET", "/v1/jobs/{id}/events", "readEvents", "Follow a job as it happens", "jobs", read_events,
        description=(
            "Server-sent events: `event` is queued, started, progress, preview, image, requeued, succeeded, failed or cancelled, `data` "
            "is JSON, `id` is `<epoch>-<seq>`. Send the last id as `Last-Event-ID` to go on without gap or repeat. Ends with the job."
        ),
        headers={"Last-Event-ID": "The id of the last event received."},
        answers=(
            Answer(200, "The events.", media_type="text/event-stream"),
            Answer(204, "The last event is known to the client: nothing will follow."),
        ),
        errors=(NotFound,),
    ),
    Endpoint(
        "GET", PATH, "progressSocket", "Follow many jobs over one WebSocket", "jobs", plain_request,
        description=(
            "Open it as WebSocket with the key as Bearer header, or from a browser signed in, or with the protocols `imagefleet.v1` "
            'and `imagefleet.key.<key>`. Send `{"type": "subscribe", "jobs": ["<id>"], "batches": [], "mine": false, "after": '
            '{"<id>": "1-7"}}`; each event comes as its JSON with its `id`, as over server-sent events. A plain request is refused.'
        ),
        answers=(Answer(101, "The WebSocket is open."),), errors=(UpgradeRequired, OriginForeign),
    ),
)  # fmt: skip

_UPLOADS: Final = (
    Endpoint(
        "POST", "/v1/uploads", "createUpload", "Upload a picture", "uploads", create_upload,
        description=(
            "PNG, JPEG or WebP, as the body or as the field `file` of a form. Requests then name it as `upload:<id>`. The same picture "
            "sent again is the same upload. It is kept as long as a job names it, and as long as jobs are kept after its last use."
        ),
        file=FileBody(MEDIA_TYPES),
        answers=(
            Answer(201, "Taken in.", UploadView, headers={"Location": "Path of the picture."}),
            Answer(200, "It was there.", UploadView, headers={"Location": "Path of the picture."}),
        ),
        errors=(PictureRefused, PictureTooLarge, StorageUnavailable),
    ),
    Endpoint(
        "GET", "/v1/uploads/{sha256}", "readUpload", "Read an uploaded picture", "uploads", read_one_upload,
        description="The bytes as they were sent; `HEAD` tells whether they are here.",
        headers={"If-None-Match": "ETags the client has."},
        answers=(Answer(200, "The picture.", media_type="image/*", headers={"ETag": "The SHA-256 of the bytes."}), _NOT_MODIFIED),
        errors=(NotFound, PictureMissing, PictureDamaged, StorageUnavailable),
    ),
)  # fmt: skip

_KEYS: Final = (
    Endpoint(
        "POST", "/v1/keys", "createKey", "Create an API key", "keys", create_one_key, access="admin",
        body=Body(models=(CreateKey,), parse=CreateKey.model_validate, example={"name": "gallery", "owner": "ada"}),
        answers=(Answer(201, "The key, shown this once.", CreatedKey, headers={"Location": "Path of the key."}),),
    ),
    Endpoint(
        "GET", "/v1/keys", "listKeys", "List API keys", "keys", list_all_keys, access="admin",
        answers=(Answer(200, "All keys, revoked ones too.", KeyPage),),
    ),
    Endpoint(
        "PATCH", "/v1/keys/{id}", "changeKey", "Change an API key", "keys", change_one_key, access="admin",
        description="`retention_days` holds for the jobs it submits from now on.",
        body=Body(models=(ChangeKey,), parse=ChangeKey.model_validate, example={"retention_days": 7.0}),
        answers=(Answer(200, "The key.", KeyView),), errors=(NotFound,),
    ),
    Endpoint(
        "DELETE", "/v1/keys/{id}", "revokeKey", "Revoke an API key", "keys", revoke_one_key, access="admin",
        answers=(Answer(204, "Revoked: within a second nothing takes it any more."),), errors=(NotFound,),
    ),
)  # fmt: skip

_OPERATIONS: Final = (
    Endpoint(
        "GET", "/healthz", "health", "Whether the process lives", "operations", healthz, access="public",
        answers=(Answer(200, "It does.", Health),),
    ),
    Endpoint(
        "GET", "/readyz", "readiness", "Whether jobs can be accepted", "operations", readyz, access="public",
        answers=(
            Answer(200, "They can; `degraded` when news and wake-ups come later.", Readiness),
            Answer(503, "They cannot.", Readiness),
        ),
    ),
    Endpoint(
        "GET", "/metrics", "metrics", "Numbers for Prometheus", "operations", metrics, access="admin",
        answers=(Answer(200, "All metrics.", media_type="text/plain"),),
    ),
    Endpoint(
        "GET", "/openapi.json", "openapi", "This document", "operations", openapi, access="public",
        answers=(Answer(200, "OpenAPI 3.1."),),
    ),
)  # fmt: skip

_PAGE: Final = Answer(200, "A page.", media_type="text/html")

_PAGES: Final = (
    Endpoint("GET", "/", "landing", "Where things are", "pages", landing, (_PAGE,), access="public", listed=False),
    Endpoint("GET", "/docs", "docs", "The API for people", "pages", docs, (_PAGE,), access="public", listed=False),
    Endpoint(
        "GET", "/flower", "flower", "To Flower", "pages", redirect_to_flower, (_PAGE,), access="public", listed=False
    ),
    *(
        Endpoint(
            method, "/flower/{path:path}", f"flower{method.title()}", "Flower", "pages", proxy_flower, (_PAGE,), access="admin",
            basic=True, errors=(FlowerUnavailable, OriginForeign), listed=False,
        )
        for method in ("GET", "POST")
    ),
)  # fmt: skip

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    *UPLOAD_ENDPOINTS,
    *_JOBS, *RESULT_ENDPOINTS, *BATCH_ENDPOINTS, *_UPLOADS, *FLEET_ENDPOINTS, *_KEYS, *SESSION_ENDPOINTS, *_OPERATIONS, *_PAGES,
    *CHOICE_ENDPOINTS, *PROMPT_ENDPOINTS,
    *WEB_ENDPOINTS, *SDAPI_ENDPOINTS, *OPENAI_ENDPOINTS,
    *RECIPE_ENDPOINTS,
    *DOWNLOAD_ENDPOINTS,
    *SHELF_ENDPOINTS,
    *ENTRY_ENDPOINTS,
    *ARCHIVE_ENDPOINTS,
    *RECOMMENDATION_ENDPOINTS,
)  # fmt: skip
