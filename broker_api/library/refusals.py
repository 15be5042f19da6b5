"""Why recipes, compositions and archives are refused."""

from broker_api.refusals import HttpRefused


class NothingActive(HttpRefused):
    """Nothing is active, so there is nothing to compose."""

    code = "nothing_active"
    status = 400


class NameTaken(HttpRefused):
    """Something of its kind has this name already."""

    code = "name_taken"
    status = 409


class RecipeExists(HttpRefused):
    """The owner has a recipe that draws the same already."""

    code = "recipe_exists"
    status = 409


class RecipeUnsuitable(HttpRefused):
    """Only what a checkpoint drew from a prompt can become a recipe."""

    code = "recipe_unsuitable"
    status = 422


class RecipeUnknown(HttpRefused):
    """There is no such recipe."""

    code = "recipe_unknown"
    status = 422
