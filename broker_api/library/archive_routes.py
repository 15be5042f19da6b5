"""The part of the route table about archives."""

from typing import Final

from broker_api.endpoints import Answer, Body, Endpoint, FileBody, parse_json
from broker_api.library.archive_refusals import ARCHIVE_ERRORS, BackupRunning
from broker_api.library.archives import (
    MEDIA_TYPES,
    Estimate,
    Export,
    ImportQuery,
    estimate_export,
    export_archive,
    import_one_archive,
)
from broker_api.library.backups import (
    BackupPage,
    CreateBackup,
    SetSchedule,
    create_one_backup,
    delete_one_backup,
    list_all_backups,
    read_backup_content,
    read_backup_schedule,
    read_one_backup,
    restore_one_backup,
    set_backup_schedule,
    verify_one_backup,
)
from broker_api.refusals import NotFound, StorageUnavailable
from models_registry.archives.backups import Backup
from models_registry.archives.report import ImportReport
from models_registry.archives.restoring import Restored
from models_registry.archives.schedule import Schedule

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
    Endpoint(
        "POST", "/v1/archives/backups", "createBackup", "Back the library up", "archives", create_one_backup, access="admin",
        description="Everything of everyone, as it is at one moment: entries, aliases, previews, marks, recipes. Answers when it is made.",
        body=Body(models=(CreateBackup,), parse=CreateBackup.model_validate, example={"files": "reference"}),
        answers=(Answer(201, "Made.", Backup, headers={"Location": "Path of the backup."}),), errors=(BackupRunning, StorageUnavailable),
    ),
    Endpoint(
        "GET", "/v1/archives/backups", "listBackups", "List backups, newest first", "archives", list_all_backups, access="admin",
        description="Also those that lie in storage alone, as after the database was lost.",
        answers=(Answer(200, "All backups.", BackupPage),), errors=(StorageUnavailable,),
    ),
    Endpoint(
        "GET", "/v1/archives/backups/{id}", "readBackup", "Read what a backup holds", "archives", read_one_backup, access="admin",
        answers=(Answer(200, "The backup.", Backup),), errors=(NotFound,),
    ),
    Endpoint(
        "GET", "/v1/archives/backups/{id}/content", "readBackupContent", "Download a backup", "archives", read_backup_content,
        access="admin", answers=(Answer(200, "The archive.", media_type="application/zip"),), errors=(NotFound, StorageUnavailable),
    ),
    Endpoint(
        "POST", "/v1/archives/backups/{id}/verify", "verifyBackup", "Read a backup to its end", "archives", verify_one_backup,
        access="admin", description="`damage` says what is wrong with it; null when it is sound.",
        answers=(Answer(200, "The backup.", Backup),), errors=(NotFound, StorageUnavailable),
    ),
    Endpoint(
        "POST", "/v1/archives/backups/{id}/restore", "restoreBackup", "Make the library what it was", "archives", restore_one_backup,
        access="admin",
        description="Every hash is checked before anything changes; then all tables are restored in one transaction.",
        answers=(Answer(200, "Restored.", Restored),), errors=(NotFound, BackupRunning, *ARCHIVE_ERRORS, StorageUnavailable),
    ),
    Endpoint(
        "DELETE", "/v1/archives/backups/{id}", "deleteBackup", "Delete a backup", "archives", delete_one_backup, access="admin",
        answers=(Answer(204, "Deleted."),), errors=(NotFound, StorageUnavailable),
    ),
    Endpoint(
        "GET", "/v1/archives/schedule", "readBackupSchedule", "When backups are made", "archives", read_backup_schedule, access="admin",
        answers=(Answer(200, "The schedule.", Schedule),),
    ),
    Endpoint(
        "PUT", "/v1/archives/schedule", "setBackupSchedule", "Set when backups are made", "archives", set_backup_schedule, access="admin",
        body=Body(models=(SetSchedule,), parse=SetSchedule.model_validate, example={"every_hours": 24, "keep": 7}),
        answers=(Answer(200, "The schedule.", Schedule),),
    ),
)  # fmt: skip
