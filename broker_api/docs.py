"""Render the OpenAPI document as one page that needs nothing else: no script, no font, no other server."""

import json
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from importlib import resources
from string import Template
from typing import Any, Final

from broker_api.problems import title_of
from jobs.errors import RequestRefused

_SHELL: Final = Template(
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>$title</title>\n<style>\n$style</style>\n'
    "</head>\n<body>\n<main>\n$body\n</main>\n</body>\n</html>\n"
)


def page(title: str, body: str) -> bytes:
    """Put a body into the page all pages share."""
    return _SHELL.substitute(title=escape(title), style=_static("page.css"), body=body).encode()


def landing_page(*, version: str, url: str) -> bytes:
    """Render the page that says where things are."""
    return page("Imagefleet", Template(_static("landing.html")).substitute(version=escape(version), url=escape(url)))


def docs_page(document: Mapping[str, Any], problems: Iterable[type[RequestRefused]]) -> bytes:
    """Render an OpenAPI document, the shapes it names, and every problem code."""
    schemas = document["components"]["schemas"]
    parts = [
        f"<h1>{escape(document['info']['title'])} API</h1>",
        *(f"<p>{_prose(text)}</p>" for text in document["info"]["description"].split("\n\n")),
        '<p class="soft">The same for tools: <a href="/openapi.json">openapi.json</a>.</p>',
        _contents(document),
    ]
    for tag in document["tags"]:
        parts.append(
            f'<h2 id="{escape(tag["name"])}">{escape(tag["name"].title())}</h2><p class="soft">{_prose(tag["description"])}</p>'
        )
        parts += [_operation(path, method, found) for path, method, found in _tagged(document, tag["name"])]
    parts.append('<h2 id="shapes">Shapes</h2>')
    parts += [_shape(name, schema) for name, schema in sorted(schemas.items())]
    parts += ['<h2 id="problems">Problems</h2><div class="scroll"><table>', *_problem_rows(problems), "</table></div>"]
    return page(f"{document['info']['title']} API", "\n".join(parts))


def _static(name: str) -> str:
    return resources.files("broker_api").joinpath("static", name).read_text(encoding="utf-8")


def _prose(text: str) -> str:
    """Escape a text and mark what stands between backticks."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if odd % 2 else piece for odd, piece in enumerate(pieces))


def _contents(document: Mapping[str, Any]) -> str:
    names = [tag["name"] for tag in document["tags"]] + ["shapes", "problems"]
    links = "".join(f'<li><a href="#{escape(name)}">{escape(name.title())}</a></li>' for name in names)
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>'


def _tagged(document: Mapping[str, Any], tag: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if tag in operation["tags"]:
                yield path, method, operation


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    parts = [f"<p>{_prose(operation['description'])}</p>"] if "description" in operation else []
    if operation["parameters"]:
        rows = [
            _row(
                f"<code>{escape(each['name'])}</code>",
                f"{escape(each['in'])}, {_type(each['schema'])}",
                _prose(each.get("description", "")),
            )
            for each in operation["parameters"]
        ]
        parts.append(f'<h3>Parameters</h3><div class="scroll"><table>{"".join(rows)}</table></div>')
    if "requestBody" in operation:
        parts.append("<h3>Body</h3>")
        for media, content in operation["requestBody"]["content"].items():
            parts.append(f"<p>{escape(media)}: {_type(content['schema'])}</p>")
            if "example" in content:
                example = escape(json.dumps(content["example"], indent=2, ensure_ascii=False))
                parts.append(f"<pre><code>{example}</code></pre>")
    answers = [
        _row(
            escape(status),
            _answer_type(answer),
            "<br>".join(_prose(line) for line in answer["description"].split("\n")),
        )
        for status, answer in sorted(operation["responses"].items())
    ]
    parts.append(f'<h3>Answers</h3><div class="scroll"><table>{"".join(answers)}</table></div>')
    return (
        f'<details id="{escape(operation["operationId"])}"><summary><span class="method {method}">{method.upper()}</span>'
        f'<code>{escape(path)}</code><span class="soft">{escape(operation["summary"])}</span></summary>'
        f"<div>{''.join(parts)}</div></details>"
    )


def _row(*cells: str) -> str:
    return f"<tr><th>{cells[0]}</th>{''.join(f'<td>{cell}</td>' for cell in cells[1:])}</tr>"


def _answer_type(answer: Mapping[str, Any]) -> str:
    return ", ".join(f"{escape(media)}: {_type(found['schema'])}" for media, found in answer.get("content", {}).items())


def _shape(name: str, schema: Mapping[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = []
    for field, found in schema.get("properties", {}).items():
        default = (
            f" Default <code>{escape(json.dumps(found['default']))}</code>." if found.get("default") is not None else ""
        )
        mark = " (required)" if field in required else ""
        rows.append(
            _row(f"<code>{escape(field)}</code>", _type(found) + mark, _prose(found.get("description", "")) + default)
        )
    about = f"<p>{_prose(schema['description'])}</p>" if "description" in schema else ""
    if "enum" in schema:
        about += f"<p>{_type(schema)}</p>"
    return (
        f'<details id="shape-{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        f'<div>{about}<div class="scroll"><table>{"".join(rows)}</table></div></div></details>'
    )


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#shape-{escape(name)}">{escape(name)}</a>'
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " or ".join(_type(each) for each in schema[union])
    if "const" in schema or "enum" in schema:
        return ", ".join(
            f"<code>{escape(json.dumps(value))}</code>" for value in schema.get("enum", [schema.get("const")])
        )
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(schema.get("format") or schema.get("type") or "anything") + _bounds(schema)


def _bounds(schema: Mapping[str, Any]) -> str:
    low, high = (
        schema.get("minimum", schema.get("exclusiveMinimum")),
        schema.get("maximum", schema.get("exclusiveMaximum")),
    )
    if low is not None and high is not None:
        return f", {low} … {high}"
    longest = schema.get("maxLength")
    return f", at most {longest} characters" if longest is not None else ""


def _problem_rows(problems: Iterable[type[RequestRefused]]) -> Iterator[str]:
    known = {error.code: error for error in problems}
    for code, error in sorted(known.items(), key=lambda item: (item[1].status, item[0])):
        yield (
            f'<tr id="problem-{escape(code)}"><th><code>{escape(code)}</code></th>'
            f"<td>{error.status}</td><td>{escape(title_of(error))}.</td></tr>"
        )
