"""The part of the route table about archives."""

from typing import Final

from broker_api.endpoints import Answer, Body, Endpoint, FileBody, parse_json
from broker_api.library.archive_refusals import ARCHIVE_ERRORS
from broker_api.library.archives import (
    MEDIA_TYPES,
    Estimate,
    Export,
    ImportQuery,
    estimate_export,
    export_archive,
    import_one_archive,
)
from broker_api.refusals import StorageUnavailable
from models_registry.archives.report import ImportReport

_EXPORT: Final = Body(
    models=(Export,), parse=parse_json(Export), example={"filter": {"kinds": ["lora"]}, "files": "reference"}
)

ARCHIVE_ENDPOINTS: Final = (
    Endpoint(
        "POST", "/v1/archives/estimate", "estimateExport", "Say how large an export would be", "archives", estimate_export,
        body=_EXPORT, answers=(Answer(200, "What it would hold.", Estimate),), errors=(StorageUnavailable,),
    ),
    Endpoint(
        "POST", "/v1/archives/export", "exportArchive", "Export entries and recipes as a ZIP archive", "archives", export_archive,
        description=(
            "Streamed: entries with aliases, tags, previews and one's own marks, one's recipes, and the files or their hashes. The last "
            "member, `manifest.json`, lists the others with their SHA-256; an archive that was cut short has none, and no directory."
        ),
        body=_EXPORT, answers=(Answer(200, "The archive.", media_type="application/zip"),), errors=(StorageUnavailable,),
    ),
    Endpoint(
        "POST", "/v1/archives/import", "importArchive", "Import an archive", "archives", import_one_archive,
        description=(
            "Every header and hash is checked before anything changes, and all rows are written in one transaction or none. Files are "
            "examined as uploads are; an entry whose file is here is not added again; one without its files is added as missing."
        ),
        query=ImportQuery, file=FileBody(MEDIA_TYPES, is_large=True),
        answers=(
            Answer(200, "With `dry_run`: what would become of each entry.", ImportReport),
            Answer(201, "What became of each entry.", ImportReport),
        ),
        errors=(*ARCHIVE_ERRORS, StorageUnavailable),
    ),
)  # fmt: skip
