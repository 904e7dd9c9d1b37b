"""The API's description, a page to read it on, and the answer for everything that is not in it."""

from __future__ import annotations

from functools import lru_cache

from django.http import HttpResponse
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularSwaggerSplitView
from rest_framework.exceptions import NotFound
from rest_framework.permissions import AllowAny
from rest_framework.request import Request

from .base import Endpoint


@lru_cache(maxsize=1)
def schema() -> bytes:
    """The OpenAPI document. Made once: it takes long enough to be felt by every stream of this worker."""
    return OpenApiJsonRenderer().render(SchemaGenerator().get_schema(request=None, public=True))


class Schema(Endpoint):
    permission_classes = [AllowAny]

    @extend_schema(exclude=True)
    def get(self, request: Request) -> HttpResponse:
        return HttpResponse(schema(), content_type="application/json", headers={"Cache-Control": "public, max-age=300"})


class Docs(SpectacularSwaggerSplitView):
    url_name = "api-schema"


class NotHere(Endpoint):
    """Every other path below ``/api/``."""

    permission_classes = [AllowAny]

    @extend_schema(exclude=True)
    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        super().initial(request, *args, **kwargs)
        raise NotFound("No such endpoint. Paths end with a slash; /api/docs/ lists them.")
