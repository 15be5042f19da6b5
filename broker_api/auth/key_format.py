"""What an API key looks like: `if_<key id>_<256 random bits><checksum>`; pure.

The prefix lets scanners find leaked keys, the id finds the row, the checksum turns away typing errors without asking the database.
"""

import hashlib
import secrets
import string
import zlib
from dataclasses import dataclass
from typing import Final

PREFIX: Final = "if"
_DIGITS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID_DIGITS: Final = string.digits + string.ascii_lowercase
ID_LENGTH: Final = 12
#: 62**43 > 2**256.
SECRET_LENGTH: Final = 43
CHECK_LENGTH: Final = 6


@dataclass(frozen=True)
class NewKey:
    """A key that has just been drawn: `text` is shown once and then forgotten."""

    id: str
    text: str
    hash: str


def draw_key() -> NewKey:
    """Draw a key from the system's random source."""
    key_id = "".join(secrets.choice(_ID_DIGITS) for _ in range(ID_LENGTH))
    secret = "".join(secrets.choice(_DIGITS) for _ in range(SECRET_LENGTH))
    body = f"{PREFIX}_{key_id}_{secret}"
    text = body + _checksum(body)
    return NewKey(key_id, text, hash_of(text))


def hash_of(text: str) -> str:
    """Return what is stored of a key."""
    return hashlib.sha256(text.encode()).hexdigest()


def key_id_of(text: str) -> str | None:
    """Return the id inside a well-formed key, or None for anything else."""
    if len(text) != len(PREFIX) + ID_LENGTH + SECRET_LENGTH + CHECK_LENGTH + 2 or not text.isascii():
        return None
    body, check = text[:-CHECK_LENGTH], text[-CHECK_LENGTH:]
    prefix, _, rest = body.partition("_")
    key_id, _, secret = rest.partition("_")
    if prefix != PREFIX or len(key_id) != ID_LENGTH or not secret.isalnum() or _checksum(body) != check:
        return None
    return key_id


def _checksum(body: str) -> str:
    rest = zlib.crc32(body.encode())
    digits = ""
    for _ in range(CHECK_LENGTH):
        rest, digit = divmod(rest, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
