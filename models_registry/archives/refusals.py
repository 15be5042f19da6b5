"""Every reason why an archive is not read, with its stable code."""

from typing import ClassVar


class ArchiveRefused(Exception):
    """The archive cannot be read as it stands."""

    code: ClassVar[str] = "archive_refused"

    def __init__(self, message: str, member: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        #: The member at fault, where one is.
        self.member = member


class ArchiveInvalid(ArchiveRefused):
    """The file is no ZIP archive, or a broken one."""

    code = "archive_invalid"


class ArchiveTooLarge(ArchiveRefused):
    """The archive holds more bytes, or more members, than this server takes."""

    code = "archive_too_large"


class MemberNameRefused(ArchiveRefused):
    """A member has a name that no archive of ours has."""

    code = "archive_name_refused"


class MemberTwice(ArchiveRefused):
    """Two members have the same name."""

    code = "archive_duplicate"


class MemberNotAFile(ArchiveRefused):
    """A member is a link, a folder or a device."""

    code = "archive_link_refused"


class MemberEncrypted(ArchiveRefused):
    """A member is encrypted."""

    code = "archive_encrypted"


class CompressionRefused(ArchiveRefused):
    """A member is compressed in a way that is not read."""

    code = "archive_compression_refused"


class RatioRefused(ArchiveRefused):
    """A member grows more when it is unpacked than anything that is meant well."""

    code = "archive_bomb"


class HeadersDisagree(ArchiveRefused):
    """A member says something else of itself than the directory says of it, or overlaps another one."""

    code = "archive_headers_disagree"


class ManifestMissing(ArchiveRefused):
    """The archive has no manifest, so it is none of ours."""

    code = "manifest_missing"


class ManifestInvalid(ArchiveRefused):
    """The manifest is not what it should be."""

    code = "manifest_invalid"


class ArchiveNewer(ArchiveRefused):
    """The archive was made by a newer version."""

    code = "archive_newer"


class ArchiveIncomplete(ArchiveRefused):
    """The members are not those that the manifest lists."""

    code = "archive_incomplete"


class ArchiveDamaged(ArchiveRefused):
    """A member's bytes are not those whose hash the manifest lists."""

    code = "archive_damaged"


class RowInvalid(ArchiveRefused):
    """A line of a table cannot be understood."""

    code = "archive_row_invalid"


class ImportRefused(ArchiveRefused):
    """Something in the archive may not be imported."""

    code = "import_refused"


class RestoreBlocked(ArchiveRefused):
    """An entry that the backup does not have is in use."""

    code = "restore_blocked"


REFUSALS: tuple[type[ArchiveRefused], ...] = (
    ArchiveInvalid, ArchiveTooLarge, MemberNameRefused, MemberTwice, MemberNotAFile, MemberEncrypted, CompressionRefused, RatioRefused,
    HeadersDisagree, ManifestMissing, ManifestInvalid, ArchiveNewer, ArchiveIncomplete, ArchiveDamaged, RowInvalid, ImportRefused,
    RestoreBlocked,
)  # fmt: skip
