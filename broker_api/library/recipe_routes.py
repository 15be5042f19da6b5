"""The part of the route table about composing and recipes."""

from typing import Final

from broker_api.admission.submit_errors import SUBMIT_ERRORS, WAITED_FOR
from broker_api.endpoints import Answer, Body, Endpoint, parse_json
from broker_api.library.compose import (
    Compose,
    ComposeQuery,
    Composition,
    GenerateRecipe,
    compose_prompt,
    generate_recipe,
)
from broker_api.library.recipe_forms import (
    ChangeRecipe,
    CreateRecipe,
    RecipeDraft,
    RecipeFromPicture,
    RecipePage,
    RecipeQuery,
    RecipeView,
)
from broker_api.library.recipes import (
    change_one_recipe,
    create_from_picture,
    create_one_recipe,
    delete_one_recipe,
    list_all_recipes,
    read_one_recipe,
    read_recipe_preview,
)
from broker_api.library.refusals import (
    NameTaken,
    NothingActive,
    RecipeExists,
    RecipeUnknown,
    RecipeUnsuitable,
)
from broker_api.native.jobs import CreateQuery, JobOrDryRun
from broker_api.refusals import MetadataMissing, NotFound, PictureDamaged, PictureMissing, StorageUnavailable
from jobs.cursors import CursorInvalid
from jobs.errors import AdapterUnknown, FamilyMismatch, ModelUnknown, PictureRefused, PictureTooLarge, UploadUnknown

_LOCATION: Final = {"Location": "Path of the job."}
_PICTURES: Final = (PictureRefused, PictureTooLarge, UploadUnknown, PictureDamaged, StorageUnavailable)
_TAKEN: Final = (NameTaken, RecipeExists)
#: A picture of one pixel with `Steps: 20, Sampler: Euler, Seed: 7` in it.
_ONE_PIXEL: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAAOnRFWHRwYXJhbWV0ZXJzAGEgcmVkIGNpcmNsZQpTdGVwczogMjAsIFNhbXBsZX"
    "I6IEV1bGVyLCBTZWVkOiA3tfmcyAAAAApJREFUeJxjYAAAAAIAAUivpHEAAAAASUVORK5CYII="
)

RECIPE_ENDPOINTS: Final = (
    Endpoint(
        "POST", "/v1/compose", "compose", "Turn adapters into a prompt", "library", compose_prompt,
        description=(
            "The caller's active adapters in their order, or a recipe, or a list: tags, trigger words, and whether all of it fits one "
            "checkpoint. With `submit` the job is accepted at once, as `POST /v1/jobs` accepts it."
        ),
        query=ComposeQuery,
        body=Body(models=(Compose,), parse=Compose.model_validate, example={"prompt": "a red circle", "loras": [{"name": "frame"}]}),
        headers=WAITED_FOR,
        answers=(
            Answer(200, "The prompt; with `submit` and `wait` the job has ended.", Composition),
            Answer(202, "The prompt, and its job, which waits or runs.", Composition, headers=_LOCATION),
        ),
        errors=(NothingActive, RecipeUnknown, AdapterUnknown, FamilyMismatch, ModelUnknown, *SUBMIT_ERRORS),
    ),
    Endpoint(
        "POST", "/v1/recipes", "createRecipe", "Keep a recipe", "library", create_one_recipe,
        description="Made by hand, or with `from_job` of what a job drew. Two of one's own never have the same name or draw the same.",
        body=Body(
            models=(CreateRecipe,), parse=parse_json(CreateRecipe),
            example={"name": "framed circle", "prompt": "a red circle", "settings": {"steps": 20}},
        ),
        answers=(Answer(201, "Kept.", RecipeView, headers={"Location": "Path of the recipe."}),),
        errors=(NotFound, RecipeUnsuitable, PictureMissing, *_TAKEN, *_PICTURES),
    ),
    Endpoint(
        "GET", "/v1/recipes", "listRecipes", "List recipes, newest first", "library", list_all_recipes,
        description="One's own, and those that others share.",
        query=RecipeQuery, answers=(Answer(200, "A page of recipes.", RecipePage),), errors=(CursorInvalid,),
    ),
    Endpoint(
        "POST", "/v1/recipes/from-picture", "readRecipe", "Read a recipe out of a picture", "library", create_from_picture,
        description="Our own metadata counts, else the text that A1111 writes. LoRAs are found by their hashes; missing ones are marked.",
        body=Body(
            models=(RecipeFromPicture,), parse=RecipeFromPicture.model_validate, example={"image": _ONE_PIXEL, "dry_run": True},
        ),
        answers=(
            Answer(200, "What the picture tells; nothing was stored.", RecipeDraft),
            Answer(201, "Kept.", RecipeView, headers={"Location": "Path of the recipe."}),
        ),
        errors=(MetadataMissing, *_TAKEN, *_PICTURES),
    ),
    Endpoint(
        "GET", "/v1/recipes/{id}", "showRecipe", "Read a recipe", "library", read_one_recipe,
        answers=(Answer(200, "The recipe.", RecipeView),), errors=(NotFound,),
    ),
    Endpoint(
        "PATCH", "/v1/recipes/{id}", "changeRecipe", "Change a recipe of one's own", "library", change_one_recipe,
        body=Body(models=(ChangeRecipe,), parse=ChangeRecipe.model_validate, example={"tags": ["framed"], "visibility": "public"}),
        answers=(Answer(200, "The recipe.", RecipeView),), errors=(NotFound, *_TAKEN, *_PICTURES),
    ),
    Endpoint(
        "DELETE", "/v1/recipes/{id}", "deleteRecipe", "Delete a recipe of one's own", "library", delete_one_recipe,
        answers=(Answer(204, "Deleted."),), errors=(NotFound,),
    ),
    Endpoint(
        "GET", "/v1/recipes/{id}/preview", "readRecipePreview", "Read the picture that shows a recipe", "library", read_recipe_preview,
        headers={"If-None-Match": "ETags the client has."},
        answers=(
            Answer(200, "The picture.", media_type="image/*", headers={"ETag": "The SHA-256 of the bytes."}),
            Answer(304, "The client's copy is still right."),
        ),
        errors=(NotFound, PictureMissing, PictureDamaged, StorageUnavailable),
    ),
    Endpoint(
        "POST", "/v1/recipes/{id}/generate", "generateRecipe", "Draw a recipe", "library", generate_recipe,
        query=CreateQuery, body=Body(models=(GenerateRecipe,), parse=GenerateRecipe.model_validate, example={"changes": {"seed": 7}}),
        headers=WAITED_FOR,
        answers=(
            Answer(202, "Accepted: it waits or runs.", JobOrDryRun, headers=_LOCATION),
            Answer(200, "Accepted and ended within `wait`; or with `dry_run` what would become of it.", JobOrDryRun, headers=_LOCATION),
        ),
        errors=(NotFound, *SUBMIT_ERRORS),
    ),
)  # fmt: skip
