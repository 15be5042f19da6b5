"""The part of the route table about the library's entries: adapters and models by the same doors."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from pydantic import BaseModel

from broker_api.endpoints import Answer, Body, Endpoint, parse_json
from broker_api.library.bulk import Bulk, BulkDone, bulk
from broker_api.library.entries import (
    add_entry,
    change_one_entry,
    check_compatibility,
    delete_one_entry,
    list_entry_versions,
    read_one_entry,
    set_marks,
)
from broker_api.library.entry_forms import AddEntry, ChangeEntry, CompatibilityPage, CompatibilityQuery, SetMarks
from broker_api.library.entry_lists import (
    AdapterPage,
    AdapterQuery,
    EntryQuery,
    ModelPage,
    TagPage,
    TagQuery,
    list_adapters,
    list_models,
    list_tags,
)
from broker_api.library.entry_previews import (
    AddPreview,
    PreviewPage,
    add_one_preview,
    list_previews,
    read_one_preview,
    remove_one_preview,
)
from broker_api.library.entry_refusals import (
    BulkRefused,
    InUse,
    NameAmbiguous,
    PathRefused,
    PreviewsFull,
    WeightsInvalid,
)
from broker_api.library.entry_views import AdapterDetail, EntryPreviewView, OneModel
from broker_api.library.file_refusals import FILE_REFUSALS
from broker_api.refusals import Forbidden, NotFound, PictureDamaged, PictureMissing, StorageUnavailable
from jobs.cursors import CursorInvalid
from jobs.errors import ModelUnknown, PictureRefused, PictureTooLarge, UploadUnknown
from models_registry.records import Marks

_FOUND: Final = (NotFound, NameAmbiguous)
#: Of the refusals of files, those of their names.
_NAMES: Final = tuple(each for each in FILE_REFUSALS if each.code in {"name_taken", "name_invalid"})
_CHANGED: Final = (*_FOUND, Forbidden)
_PICTURES: Final = (PictureRefused, PictureTooLarge, UploadUnknown, PictureDamaged, PictureMissing, StorageUnavailable)
_ONE_PIXEL: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAAOnRFWHRwYXJhbWV0ZXJzAGEgcmVkIGNpcmNsZQpTdGVwczogMjAsIFNhbXBsZX"
    "I6IEV1bGVyLCBTZWVkOiA3tfmcyAAAAApJREFUeJxjYAAAAAIAAUivpHEAAAAASUVORK5CYII="
)
_NOT_MODIFIED: Final = Answer(304, "The client's copy is still right.")


class _Shelf(NamedTuple):
    """One of the two lists."""

    path: str
    #: In the names of operations.
    one: str
    noun: str
    detail: type[BaseModel]
    page: type[BaseModel]


_ADAPTERS: Final = _Shelf("/v1/adapters", "Adapter", "adapter", AdapterDetail, AdapterPage)
_MODELS: Final = _Shelf("/v1/models", "Model", "model", OneModel, ModelPage)

_LISTS: Final = (
    Endpoint(
        "GET", "/v1/models", "listModels", "List models", "library", list_models,
        description="The checkpoints, searched; also in the form OpenAI's clients read (`object`, `data`).",
        query=EntryQuery, answers=(Answer(200, "A page of models.", ModelPage),), errors=(CursorInvalid,),
    ),
    Endpoint(
        "GET", "/v1/adapters", "listAdapters", "List adapters", "library", list_adapters,
        description=(
            "What a job may name beside its model: LoRAs, ControlNets, embeddings, VAEs, upscalers, weights of preprocessors. `q` finds "
            "the beginnings of words."
        ),
        query=AdapterQuery, answers=(Answer(200, "A page of adapters.", AdapterPage),), errors=(CursorInvalid,),
    ),
    Endpoint(
        "GET", "/v1/adapters/tags", "listTags", "Count the adapters' tags", "library", list_tags,
        query=TagQuery, answers=(Answer(200, "A page of tags, the most frequent first.", TagPage),), errors=(CursorInvalid,),
    ),
    *(
        Endpoint(
            "POST", f"/v1/{many}/bulk", f"bulk{one}s", f"Do one thing to many {many}", "library", bulk,
            description=(
                "One transaction: all or none. `ids` or `filter` say to which; where one is in the way nothing is done, and `errors` says "
                "of each why. `activate`, `deactivate`, `favourite` and `unfavourite` are the caller's own marks."
            ),
            body=Body(models=(Bulk,), parse=parse_json(Bulk), example={"action": "favourite", "filter": {"tag": "style"}}),
            answers=(Answer(200, "Done to all.", BulkDone),), errors=(BulkRefused,),
        )
        for many, one in (("adapters", "Adapter"), ("models", "Model"))
    ),
)  # fmt: skip


def _entry_doors(shelf: _Shelf) -> Iterator[Endpoint]:
    path, one, noun = f"{shelf.path}/{{id}}", shelf.one, shelf.noun
    whole = Answer(200, f"The {noun}.", shelf.detail)
    yield Endpoint(
        "POST", shelf.path, f"add{one}", f"Take a file in as a {noun}", "library", add_entry, access="admin",
        description="Where it lies: below one of the fleet's model folders, on the API's machine. It is read whole once.",
        body=Body(models=(AddEntry,), parse=AddEntry.model_validate, example={"path": "/models/dusk.safetensors", "tags": ["style"]}),
        answers=(Answer(201, f"The {noun}.", shelf.detail, headers={"Location": "Its path."}),),
        errors=(PathRefused, WeightsInvalid, *FILE_REFUSALS),
    )  # fmt: skip
    yield Endpoint(
        "GET", path, f"read{one}", f"Read a {noun}", "library", read_one_entry,
        description="By id, or by any of its names: `name@version`, `name` for the newest version, an alias.",
        answers=(whole,), errors=_FOUND,
    )  # fmt: skip
    yield Endpoint(
        "PATCH", path, f"change{one}", f"Change what is said of a {noun}", "library", change_one_entry,
        description="What is left out stays.",
        body=Body(models=(ChangeEntry,), parse=ChangeEntry.model_validate, example={"tags": ["style", "dusk"], "weight": 0.8}),
        answers=(whole,), errors=(*_CHANGED, InUse, WeightsInvalid, *_NAMES),
    )  # fmt: skip
    yield Endpoint(
        "DELETE", path, f"delete{one}", f"Delete a {noun}", "library", delete_one_entry,
        description=(
            "Refused while a job that has not ended names it. A file in a folder stays there, and scans pass it over; one that was "
            "uploaded or fetched is removed."
        ),
        answers=(Answer(204, "Deleted."),), errors=(*_CHANGED, InUse),
    )  # fmt: skip
    yield Endpoint(
        "GET", f"{path}/versions", f"list{one}Versions", f"List the versions of a {noun}", "library", list_entry_versions,
        answers=(Answer(200, "All versions, the newest first.", shelf.page),), errors=_FOUND,
    )  # fmt: skip
    yield Endpoint(
        "PUT", f"{path}/marks", f"mark{one}", f"Set what you think of a {noun}", "library", set_marks,
        description="The caller's own: favourite, rating, place in the stack that the caller composes with. What is left out stays.",
        body=Body(models=(SetMarks,), parse=SetMarks.model_validate, example={"favourite": True, "active": True, "weight": 0.8}),
        answers=(Answer(200, "The marks.", Marks),), errors=_FOUND,
    )  # fmt: skip
    yield from _preview_doors(path, one, noun)


def _preview_doors(path: str, one: str, noun: str) -> Iterator[Endpoint]:
    yield Endpoint(
        "GET", f"{path}/previews", f"list{one}Previews", f"List the previews of a {noun}", "library", list_previews,
        answers=(Answer(200, "All previews.", PreviewPage),), errors=_FOUND,
    )  # fmt: skip
    yield Endpoint(
        "POST", f"{path}/previews", f"add{one}Preview", f"Show what a {noun} does", "library", add_one_preview,
        description="From an upload, a picture of one's own job, or base64; a copy of 512 pixels at most is kept.",
        body=Body(models=(AddPreview,), parse=AddPreview.model_validate, example={"image": _ONE_PIXEL}),
        answers=(Answer(201, "The preview.", EntryPreviewView, headers={"Location": "Path of the picture."}),),
        errors=(*_CHANGED, PreviewsFull, *_PICTURES),
    )  # fmt: skip
    yield Endpoint(
        "GET", f"{path}/previews/{{n}}", f"read{one}Preview", "Read a preview", "library", read_one_preview,
        headers={"If-None-Match": "ETags the client has."},
        answers=(
            Answer(200, "The picture.", media_type="image/*", headers={"ETag": "The SHA-256 of the bytes."}), _NOT_MODIFIED,
        ),
        errors=(*_FOUND, PictureMissing, PictureDamaged, StorageUnavailable),
    )  # fmt: skip
    yield Endpoint(
        "DELETE", f"{path}/previews/{{n}}", f"remove{one}Preview", "Remove a preview", "library", remove_one_preview,
        answers=(Answer(204, "Removed."),), errors=_CHANGED,
    )  # fmt: skip


ENTRY_ENDPOINTS: Final = (
    *_LISTS,
    Endpoint(
        "GET", "/v1/adapters/{id}/compatibility", "checkCompatibility", "Which models an adapter fits", "library", check_compatibility,
        query=CompatibilityQuery, answers=(Answer(200, "Each model, and why not.", CompatibilityPage),),
        errors=(*_FOUND, ModelUnknown),
    ),
    *_entry_doors(_ADAPTERS),
    *_entry_doors(_MODELS),
)  # fmt: skip
