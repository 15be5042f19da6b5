"""`imagefleet openapi`: print the API's OpenAPI document without a running server."""

import json

import typer

from broker_api.openapi import openapi_document
from broker_api.routes import ENDPOINTS
from broker_api.version import version


def openapi() -> None:
    """Print the API's OpenAPI document."""
    typer.echo(json.dumps(openapi_document(ENDPOINTS, version=version()), ensure_ascii=False, indent=1))
