"""How other programs' requests are read: unknown fields are ignored, null counts as absent, texts become numbers; pure."""

from pydantic import BaseModel, ConfigDict, model_validator


class Lenient(BaseModel):
    """Take what the originals take."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: object) -> object:
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if value is not None}
        return data
