"""GET and POST /sdapi/v1/options, and SD.Next's checkpoint: what a key has chosen for its own requests."""

from typing import Any, Final

from psycopg.rows import tuple_row
from psycopg.types.json import Jsonb
from pydantic import ValidationError
from starlette.responses import Response

from broker_api.doors.sdapi.choices import SETTABLE, Choices
from broker_api.doors.sdapi.dialect import answer
from broker_api.doors.sdapi.models import checkpoint_of, visible_catalogue
from broker_api.doors.sdapi.payloads import NameQuery, Options
from broker_api.doors.sdapi.refusals import FieldsRefused, details_of, field_refused
from broker_api.endpoints import Call
from models_registry.entries import ModelEntry

_READ: Final = "select options from door_options where key_id = %s"
_WRITE: Final = """insert into door_options (key_id, options) values (%s, %s)
on conflict (key_id) do update set options = door_options.options || excluded.options, changed_at = now()"""
_CLEAR: Final = "update door_options set options = options - %s::text[], changed_at = now() where key_id = %s"


async def read_choices(call: Call) -> Choices:
    """Return what the caller's key has chosen."""
    async with call.services.pool.connection() as connection, connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(_READ, (call.principal.key_id,))
        row = await cursor.fetchone()
    return Choices.model_validate({} if row is None else row[0])


async def get_options(call: Call) -> Response:
    """Return the options as this key sees them."""
    choices = await read_choices(call)
    catalogue = await visible_catalogue(call)
    entry = checkpoint_of(catalogue, choices.sd_model_checkpoint)
    return answer(_shown(choices, entry))


def _shown(choices: Choices, entry: ModelEntry | None) -> dict[str, Any]:
    # The checkpoint's title is always a string: clients index it without looking.
    title = choices.sd_model_checkpoint or "" if entry is None else entry.title
    return {
        "sd_model_checkpoint": title,
        "sd_checkpoint_hash": "" if entry is None else entry.fingerprint,
        "sd_vae": choices.sd_vae or "Automatic",
        "samples_format": choices.samples_format or "png",
        "jpeg_quality": choices.jpeg_quality or 90,
        "enable_pnginfo": choices.enable_pnginfo is not False,
        "CLIP_stop_at_last_layers": choices.CLIP_stop_at_last_layers or 1,
        "samples_save": True,
        "grid_save": False,
        "return_grid": False,
        "live_previews_enable": True,
        "show_progress_every_n_steps": 1,
        "control_net_unit_count": 3,
        "upscaler_for_img2img": "None",
        "face_restoration": False,
    }


async def set_options(call: Call) -> Response:
    """Remember what this key chooses; what is not settable is ignored."""
    given = call.body(Options).given
    wanted = {name: given[name] for name in given if name in SETTABLE and given[name] is not None}
    try:
        choices = Choices.model_validate(wanted)
    except ValidationError as error:
        raise FieldsRefused(details_of(error)) from None
    await _remember(call, choices, cleared=[name for name in wanted if getattr(choices, name) is None])
    return answer(None)


async def _remember(call: Call, choices: Choices, cleared: list[str]) -> None:
    said = choices.said()
    if choices.sd_model_checkpoint is not None:
        catalogue = await visible_catalogue(call)
        entry = checkpoint_of(catalogue, choices.sd_model_checkpoint)
        if entry is None:
            raise field_refused("sd_model_checkpoint", f"No checkpoint is named {choices.sd_model_checkpoint[:100]!r}")
        said["sd_model_checkpoint"] = entry.name
    async with call.services.pool.connection() as connection:
        if said:
            await connection.execute(_WRITE, (call.principal.key_id, Jsonb(said)))
        if cleared:
            await connection.execute(_CLEAR, (cleared, call.principal.key_id))


async def get_checkpoint(call: Call) -> Response:
    """Return the checkpoint this key draws with, as SD.Next shows it."""
    choices = await read_choices(call)
    catalogue = await visible_catalogue(call)
    entry = checkpoint_of(catalogue, choices.sd_model_checkpoint)
    if entry is None:
        return answer({"type": None, "class": None})
    return answer(
        {
            "type": entry.family,
            "class": entry.layout,
            "checkpoint": entry.title,
            "title": entry.title,
            "name": entry.name,
            "filename": entry.path.name,
            "hash": entry.fingerprint[:10],
        }
    )


async def set_checkpoint(call: Call) -> Response:
    """Choose the checkpoint this key draws with, as SD.Next does; no worker loads anything."""
    wanted = call.query(NameQuery).sd_model_checkpoint
    if wanted:
        await _remember(call, Choices(sd_model_checkpoint=wanted), [])
    return answer({"ok": True})


async def do_nothing(call: Call) -> Response:
    """Answer success to what would change a server and has no meaning for a fleet."""
    del call
    return answer({})
