"""`/openapi.json`: what quart-schema makes of the routes, with the schemas as msgspec gives them.

quart-schema keeps only the first of the schemas that a struct consists of, and its references then point nowhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar

from msgspec.json import schema as json_schema
from msgspec.json import schema_components
from quart_schema import document_response
from quart_schema.openapi import OpenAPIProvider
from werkzeug.routing.rules import Rule

from observer_actors.event import Event
from observer_actors.http.guard import DENIALS, INGEST_PATHS
from observer_actors.http.queries import Seq
from observer_actors.http.replies import JSON, PROBLEM, Problem

Schema = dict[str, Any]
Route = TypeVar("Route", bound=Callable[..., Any])

OK: Final = 200
GUARDS: Final = (*DENIALS, 429)
"""What any route answers with to those whom the guard does not let in: see `guard`, and `FrontDoor` for 429."""
REFERENCE: Final = "#/components/schemas/{name}"
_TEXT: Final = "_observer_text"
_COMPRESSED: Final = "May be compressed: `Content-Encoding: gzip`."


def document_text(*content_types: str) -> Callable[[Route], Route]:
    """Say that a route answers with a text of some types: alone, or beside the JSON that it is said to answer with."""

    def documented(route: Route) -> Route:
        setattr(route, _TEXT, content_types)
        return route

    return documented


def document_problems(*statuses: int) -> Callable[[Route], Route]:
    """Say which problems a route answers with."""

    def documented(route: Route) -> Route:
        for status in statuses:
            route = document_response(Problem, status)(route)
        return route

    return documented


class Description(OpenAPIProvider):
    """Builds the document."""

    def schema(self) -> Schema:
        """Build it; under one name stands one schema."""
        self._known: dict[str, Schema] = {}
        document: Schema = super().schema()
        return document

    def build_paths(self, rule: Rule) -> tuple[Schema, Schema]:
        """Describe a route, also one that answers with text."""
        paths, components = super().build_paths(rule)
        problem, more = self.build_response_object(Problem, None)
        components |= more
        for name, schema in components.items():
            assert self._known.setdefault(name, schema) == schema, f"two things are called {name}"
        content_types = getattr(self._app.view_functions[rule.endpoint], _TEXT, ())
        for operation in (operation for path in paths.values() for operation in path.values()):
            operation["responses"] |= dict.fromkeys(GUARDS, problem)
            if rule.rule in INGEST_PATHS:
                operation["requestBody"]["description"] = _COMPRESSED
            if content_types:
                content = {one: {"schema": {"type": "string"}} for one in content_types}
                summary = operation.get("summary", "")  # without docstrings (PYTHONOPTIMIZE=2) there is none
                answer = operation["responses"].get(OK, {"description": summary, "content": {}})
                operation["responses"][OK] = {**answer, "content": {**answer["content"], **content}}
        return paths, components

    def operation_id(self, method: str, path: str, func: Callable[..., Any]) -> str | None:
        """Name an operation as generated clients call it: `get_ops`, `post_event`."""
        name: str | None = super().operation_id(method, path, func)
        prefix = f"{method.lower()}_"
        return name.removeprefix(prefix) if name and name.startswith(prefix * 2) else name

    def build_path_parameter(self, name: str, converter: Any) -> Schema:  # noqa: ANN401 - quart-schema's signature
        """Describe a part of a path: a seq, or a text."""
        parameter: Schema = super().build_path_parameter(name, converter)
        return {**parameter, "schema": json_schema(Seq if name == "seq" else str)}

    def build_querystring_parameters(self, model: Any) -> tuple[list[Schema], Schema]:  # noqa: ANN401 - see above
        """Describe the parameters of a query."""
        _, components = schema_components([model], ref_template=REFERENCE)
        described = components.pop(model.__name__)
        required = described["required"]
        parameters = [
            {"name": name, "in": "query", "required": name in required, "schema": schema}
            for name, schema in described["properties"].items()
        ]
        return parameters, components

    def build_request_body(self, model: Any, source: Any) -> tuple[Schema, Schema]:  # noqa: ANN401, ARG002 - see above
        """Describe what a caller sends: an object, or many as an array or a line each."""
        (schema,), components = schema_components([model], ref_template=REFERENCE)
        components.get(Event.__name__, {}).pop("additionalProperties", None)  # those that we do not know are attributes
        content: Schema = {JSON: {"schema": schema}}
        if "$ref" not in schema:
            content["application/x-ndjson"] = {"schema": {"type": "string"}}
        return {"required": True, "content": content}, components

    def build_response_object(self, model: Any, headers_model: Any) -> tuple[Schema, Schema]:  # noqa: ANN401, ARG002
        """Describe an answer."""
        (schema,), components = schema_components([model], ref_template=REFERENCE)
        for component in components.values():
            for of_field in component.get("properties", {}).values():
                if parts := of_field.pop("prefixItems", None):  # which, and `"items": false`, generators do not know
                    of_field["items"] = parts[0]
        content_type = PROBLEM if model is Problem else JSON
        return {"description": inspect.getdoc(model) or "", "content": {content_type: {"schema": schema}}}, components
