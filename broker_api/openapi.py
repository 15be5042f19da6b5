"""Write the OpenAPI 3.1 document from the route table."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from broker_api.auth.sessions import COOKIE
from broker_api.endpoints import Endpoint, FileBody
from broker_api.problems import MEDIA_TYPE, Problem, title_of
from broker_api.refusals import (
    BodyTimeout,
    BodyTooLarge,
    DatabaseUnavailable,
    Forbidden,
    HeaderInvalid,
    JsonInvalid,
    KeyInvalid,
    MediaTypeUnsupported,
    Unauthorized,
)
from jobs.errors import RequestRefused

_REFERENCE: Final = "#/components/schemas/{model}"
_DESCRIPTION: Final = """Durable jobs, live previews, pictures whose bytes are those that were recorded.

Send an API key as `Authorization: Bearer <key>`. Errors are RFC 9457 problem documents: look at `code`."""
_TAGS: Final = (
    ("jobs", "Draw pictures and follow how."),
    ("uploads", "Pictures to start from."),
    ("batches", "Many jobs in one transaction, as one."),
    ("results", "Pictures: search, share, draw again, delete."),
    ("fleet", "Models, workers, queues."),
    ("recommendations", "Adapters like one, for a prompt, or that go together; how they are used."),
    ("analytics", "What became of jobs over time, and what happens now."),
    ("downloads", "Models from elsewhere: fetched in the background."),
    ("library", "Adapters and checkpoints as a library: compose, recipes."),
    ("archives", "Exports, imports, backups."),
    ("keys", "API keys; for admins."),
    ("operations", "For those who run this."),
)
_PATH_PARAMETERS: Final[Mapping[str, tuple[dict[str, Any], str]]] = {
    "id": ({"type": "string"}, "Id; one that is unknown, malformed or someone else's looks the same."),
    "sha256": ({"type": "string"}, "SHA-256 of the picture's bytes, hexadecimal."),
    "name": ({"type": "string"}, "Name, as its list shows it."),
    "n": ({"type": "integer", "minimum": 0}, "Index of the picture, from 0."),
}
#: (model, mode) to its reference.
_Schemas = Mapping[tuple[Any, JsonSchemaMode], dict[str, Any]]


def openapi_document(endpoints: Sequence[Endpoint], *, version: str) -> dict[str, Any]:
    """Return the document as JSON-ready values."""
    listed = [endpoint for endpoint in endpoints if endpoint.listed]
    schemas, definitions = _schemas(listed)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in listed:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Imagefleet",
            "version": version,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key."},
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": COOKIE,
                    "description": "A browser that has signed in.",
                },
            },
        },
    }


def problems_of(endpoint: Endpoint) -> list[type[RequestRefused]]:
    """Return every problem an endpoint can answer with, by status."""
    # Headers and targets that are too long are refused before a route is looked for.
    found: list[type[RequestRefused]] = [*endpoint.errors, HeaderInvalid]
    if endpoint.access != "public":
        found += [Unauthorized, KeyInvalid, DatabaseUnavailable]
    if endpoint.access == "admin":
        found.append(Forbidden)
    if endpoint.query is not None or endpoint.body is not None:
        found.append(RequestRefused)
    if endpoint.body is not None:
        found.append(JsonInvalid)
    if endpoint.body is not None or endpoint.file is not None:
        found += [MediaTypeUnsupported, BodyTooLarge, BodyTimeout]
    return sorted(set(found), key=lambda error: (error.status, error.code))


def _schemas(endpoints: Iterable[Endpoint]) -> tuple[_Schemas, dict[str, Any]]:
    wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(Problem, "serialization"): None}
    for endpoint in endpoints:
        for model in endpoint.body.models if endpoint.body else ():
            wanted[model, "validation"] = None
        if endpoint.file is not None and endpoint.file.form is not None:
            wanted[endpoint.file.form, "validation"] = None
        for answer in endpoint.answers:
            if answer.model is not None:
                wanted[answer.model, "serialization"] = None
    references, document = models_json_schema(list(wanted), ref_template=_REFERENCE)
    return references, document["$defs"]


def _operation(endpoint: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "parameters": [*_path_parameters(endpoint), *_query_parameters(endpoint), *_header_parameters(endpoint)],
        "responses": {**_answers(endpoint, schemas), **_problems(endpoint, schemas)},
        "security": [] if endpoint.access == "public" else [{"key": []}, {"session": []}],
    }
    if endpoint.description:
        operation["description"] = endpoint.description
    if endpoint.body is not None:
        references = [schemas[model, "validation"] for model in endpoint.body.models]
        schema = references[0] if len(references) == 1 else {"oneOf": references}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": dict(endpoint.body.example)}},
        }
    if endpoint.file is not None:
        operation["requestBody"] = {"required": True, "content": _file_content(endpoint.file, schemas)}
    return operation


def _file_content(file: FileBody, schemas: _Schemas) -> dict[str, Any]:
    raw = {"type": "string", "format": "binary"}
    content: dict[str, Any] = {media: {"schema": raw} for media in file.media_types}
    if file.form is not None:
        sent = {"type": "object", "properties": {file.field: raw}}
        content["multipart/form-data"] = {"schema": {"allOf": [schemas[file.form, "validation"], sent]}}
    elif file.field is not None:
        form = {"type": "object", "required": [file.field], "properties": {file.field: raw}}
        content["multipart/form-data"] = {"schema": form}
    return content


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    names = re.findall(r"{(\w+)", endpoint.path)
    return [
        {"name": name, "in": "path", "required": True, "schema": dict(_PATH_PARAMETERS[name][0]), "description": _PATH_PARAMETERS[name][1]}
        for name in names
    ]  # fmt: skip


def _query_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    if endpoint.query is None:
        return []
    schema = endpoint.query.model_json_schema()
    definitions = schema.get("$defs", {})
    needed = schema.get("required", [])
    parameters = []
    for name, field in schema["properties"].items():
        description = field.pop("description", "")
        parameter = {"name": name, "in": "query", "required": name in needed, "schema": _inline(field, definitions)}
        parameters.append(parameter | ({"description": description} if description else {}))
    return parameters


def _inline(value: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        if "$ref" in value:
            return _inline(definitions[value["$ref"].rpartition("/")[2]], definitions)
        return {key: _inline(inner, definitions) for key, inner in value.items()}
    return [_inline(inner, definitions) for inner in value] if isinstance(value, list) else value


def _header_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": text}
        for name, text in endpoint.headers.items()
    ]


def _answers(endpoint: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for answer in endpoint.answers:
        described: dict[str, Any] = {"description": answer.description}
        if answer.model is not None:
            described["content"] = {answer.media_type: {"schema": schemas[answer.model, "serialization"]}}
        elif answer.media_type != "application/json":
            described["content"] = {answer.media_type: {"schema": {"type": "string"}}}
        if answer.also is not None:
            described["content"][answer.also] = {"schema": {"type": "string"}}
        if answer.headers:
            described["headers"] = {
                name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers.items()
            }
        answers[str(answer.status)] = described
    return answers


def _problems(endpoint: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    by_status: dict[int, list[type[RequestRefused]]] = {}
    for error in problems_of(endpoint):
        by_status.setdefault(error.status, []).append(error)
    content = {MEDIA_TYPE: {"schema": schemas[Problem, "serialization"]}}
    return {
        str(status): {
            "description": "\n".join(f"- `{error.code}`: {title_of(error)}." for error in errors),
            "content": content,
        }
        for status, errors in by_status.items()
    }
