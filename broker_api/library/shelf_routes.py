"""The part of the route table about the model folders and the stored bytes: scans, and what does not agree."""

from typing import Final

from broker_api.endpoints import Answer, Body, Endpoint, parse_json
from broker_api.library.shelves import (
    AskForScan,
    Duplicates,
    Forget,
    Forgotten,
    KeepOne,
    Missing,
    Orphans,
    OrphansRemoved,
    ShelfQuery,
    forget_missing,
    keep_one_duplicate,
    list_duplicates,
    list_missing,
    list_orphans,
    read_one_scan,
    remove_orphans,
    request_scan,
)
from broker_api.refusals import NotFound, StorageUnavailable
from jobs.cursors import CursorInvalid
from models_registry.scanning.scans import LibraryScan

_TAG: Final = "library"

SHELF_ENDPOINTS: Final = (
    Endpoint(
        "POST", "/v1/library/scans", "requestScan", "Look through the model folders", _TAG, request_scan, access="admin",
        description="The keeper opens what is new or has changed, and follows what was moved. With `again` it opens everything.",
        body=Body(models=(AskForScan,), parse=parse_json(AskForScan), example={"again": False}),
        answers=(Answer(202, "Queued.", LibraryScan, headers={"Location": "Path of the scan."}),),
    ),
    Endpoint(
        "GET", "/v1/library/scans/{id}", "readScan", "Follow a scan", _TAG, read_one_scan, access="admin",
        answers=(Answer(200, "The scan.", LibraryScan),), errors=(NotFound,),
    ),
    Endpoint(
        "GET", "/v1/library/missing", "listMissing", "List entries whose files are away or damaged", _TAG, list_missing, access="admin",
        query=ShelfQuery, answers=(Answer(200, "A page of entries.", Missing),), errors=(CursorInvalid,),
    ),
    Endpoint(
        "POST", "/v1/library/missing/forget", "forgetMissing", "Forget entries whose files are away", _TAG, forget_missing, access="admin",
        description="Those of the entries that are missing are deleted, all or none; others and pinned ones stay.",
        body=Body(
            models=(Forget,), parse=parse_json(Forget), example={"ids": ["0199c0de-0000-7000-8000-000000000000"]}
        ),
        answers=(Answer(200, "What was deleted.", Forgotten),),
    ),
    Endpoint(
        "GET", "/v1/library/duplicates", "listDuplicates", "List contents that several entries have", _TAG, list_duplicates,
        access="admin", query=ShelfQuery, answers=(Answer(200, "A page of contents.", Duplicates),), errors=(CursorInvalid,),
    ),
    Endpoint(
        "POST", "/v1/library/duplicates/keep", "keepDuplicate", "Keep one of several equal entries", _TAG, keep_one_duplicate,
        access="admin",
        description="The others are deleted, pinned ones excepted, and their names become aliases of the one that is kept.",
        body=Body(models=(KeepOne,), parse=parse_json(KeepOne), example={"id": "0199c0de-0000-7000-8000-000000000000"}),
        answers=(Answer(200, "What was deleted.", Forgotten),), errors=(NotFound,),
    ),
    Endpoint(
        "GET", "/v1/library/orphans", "listOrphans", "List stored bytes that no entry has", _TAG, list_orphans, access="admin",
        description="What came in the last hour may still become an entry and is left out.",
        query=ShelfQuery, answers=(Answer(200, "A page of objects.", Orphans),),
        errors=(CursorInvalid, StorageUnavailable),
    ),
    Endpoint(
        "POST", "/v1/library/orphans/remove", "removeOrphans", "Remove stored bytes that no entry has", _TAG, remove_orphans,
        access="admin", answers=(Answer(200, "How many the keeper removes.", OrphansRemoved),),
        errors=(StorageUnavailable,),
    ),
)  # fmt: skip
