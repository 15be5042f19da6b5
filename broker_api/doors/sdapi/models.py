"""Which models there are, in A1111's forms: checkpoints, LoRAs, VAEs, embeddings, upscalers, ControlNets."""

from typing import Any, Final

from starlette.responses import Response

from broker_api.doors.sdapi.dialect import answer
from broker_api.doors.sdapi.payloads import NameQuery
from broker_api.doors.sdapi.refusals import ThingNotFound
from broker_api.endpoints import Call
from models_registry.entries import Kind, ModelEntry
from models_registry.offers import Catalogue
from models_registry.schedulers import SCHEDULE_TYPES, SCHEDULERS

LATENT_MODES: Final = (
    "Latent",
    "Latent (antialiased)",
    "Latent (bicubic)",
    "Latent (bicubic antialiased)",
    "Latent (nearest)",
    "Latent (nearest-exact)",
)
_KARRAS_RHO: Final = 7.0


def entries_of(catalogue: Catalogue, kind: Kind) -> list[ModelEntry]:
    """Return the entries of one kind in the catalogue's order."""
    return list(catalogue.of_kind(kind))


def checkpoint_of(catalogue: Catalogue, name: str | None) -> ModelEntry | None:
    """Return the checkpoint of this name, the default one for None; None when there is no such."""
    return catalogue.default() if name is None else catalogue.find(name)


async def visible_catalogue(call: Call) -> Catalogue:
    """Return what there is now for the caller's key."""
    return (await call.services.snapshots.refresh()).catalogue.seen_by(call.principal.reader)


async def _entries(call: Call, kind: Kind) -> list[ModelEntry]:
    return entries_of(await visible_catalogue(call), kind)


async def list_checkpoints(call: Call) -> Response:
    """Return the checkpoints; clients send a `title` back."""
    return answer(
        [
            {
                "title": entry.title,
                "model_name": entry.name,
                "hash": entry.fingerprint[:10],
                "sha256": entry.fingerprint,
                # Where files lie on a server is no client's business.
                "filename": entry.path.name,
                "config": None,
                "type": entry.family,
            }
            for entry in await _entries(call, Kind.CHECKPOINT)
        ]
    )


async def list_loras(call: Call) -> Response:
    """Return the LoRAs."""
    return answer([_lora(entry) for entry in await _entries(call, Kind.LORA)])


def _lora(entry: ModelEntry) -> dict[str, Any]:
    metadata = {"ss_network_module": entry.variant, "ss_network_dim": entry.rank, "base_model": entry.family}
    return {"name": entry.name, "alias": entry.name, "path": entry.path.name, "metadata": metadata}


async def read_lora(call: Call) -> Response:
    """Return one LoRA, as SD.Next does."""
    wanted = call.query(NameQuery).lora.casefold()
    for entry in await _entries(call, Kind.LORA):
        if entry.name.casefold() == wanted:
            return answer(_lora(entry))
    raise ThingNotFound("Lora not found")


async def list_vaes(call: Call) -> Response:
    """Return the VAEs."""
    found = await _entries(call, Kind.VAE)
    return answer([{"model_name": entry.name, "filename": entry.path.name} for entry in found])


async def list_embeddings(call: Call) -> Response:
    """Return the textual inversions."""
    loaded = {
        entry.name: {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None, "shape": None, "vectors": entry.vectors or 1}
        for entry in await _entries(call, Kind.EMBEDDING)
    }  # fmt: skip
    return answer({"loaded": loaded, "skipped": {}})


async def list_upscalers(call: Call) -> Response:
    """Return the upscalers; clients rely on the first one being `None`."""
    plain = [_upscaler(name, None, 4) for name in ("None", "Lanczos", "Nearest")]
    models = [_upscaler(entry.name, entry.name, entry.scale or 4) for entry in await _entries(call, Kind.UPSCALER)]
    return answer([*plain, *models])


def _upscaler(name: str, model: str | None, scale: int) -> dict[str, Any]:
    return {"name": name, "model_name": model, "model_path": None, "model_url": None, "scale": scale}


async def list_latent_modes(call: Call) -> Response:
    """Return the names under which latents are enlarged; all of them do the same here."""
    del call
    return answer([{"name": name} for name in LATENT_MODES])


async def list_samplers(call: Call) -> Response:
    """Return the samplers."""
    del call
    return answer(
        [
            {"name": scheduler.name, "aliases": [*scheduler.aliases, scheduler.class_name], "options": {}}
            for scheduler in SCHEDULERS.values()
        ]
    )


async def list_schedulers(call: Call) -> Response:
    """Return the schedule types."""
    del call
    automatic = {"name": "automatic", "label": "Automatic", "aliases": None}
    found = [automatic] + [
        {"name": kind.name, "label": kind.label, "aliases": list(kind.aliases) or None}
        for kind in SCHEDULE_TYPES.values()
    ]
    return answer(
        [
            {**kind, "default_rho": _KARRAS_RHO if kind["name"] == "karras" else -1, "need_inner_model": False}
            for kind in found
        ]
    )


async def list_nothing(call: Call) -> Response:
    """Return an empty list: face restorers, hypernetworks, styles and extensions are not here."""
    del call
    return answer([])
