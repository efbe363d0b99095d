"""What surrounds every request."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from bookshop import health

Handler = Callable[[HttpRequest], HttpResponse]


class ReleaseMiddleware:
    """Name the release in every answer, so that a log line says which code made it."""

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response["X-Release"] = settings.RELEASE_ID
        return response


class HealthMiddleware:
    """Answer health checks for any Host: whoever asks may not know our names."""

    checks = {"/healthz": health.alive, "/readyz": health.ready}

    def __init__(self, get_response: Handler) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        check = self.checks.get(request.path_info)
        if check is None:
            return self.get_response(request)
        response = check()
        response["Cache-Control"] = "no-store"
        return response
