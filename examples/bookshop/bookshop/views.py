"""The pages."""

import time

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from bookshop import shop

LONGEST_SECONDS = 30.0


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    recommended = shop.bestsellers() if settings.FEATURES.get("recommendations") else []
    return render(
        request,
        "bookshop/home.html",
        {"books": shop.catalogue(), "recommended": recommended},
    )


@require_safe
def slow(request: HttpRequest) -> HttpResponse:
    """Take as long as asked: for trying out what becomes of long requests."""
    if not settings.FEATURES.get("slow"):
        raise Http404
    try:
        seconds = float(request.GET.get("seconds", "1"))
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= LONGEST_SECONDS:
        return HttpResponse(f"seconds must be from 0 to {LONGEST_SECONDS:.0f}\n", status=400)
    time.sleep(seconds)
    return HttpResponse(f"took {seconds:g} s\n", content_type="text/plain")


@require_safe
def robots(request: HttpRequest) -> HttpResponse:
    return HttpResponse("User-agent: *\nDisallow: /admin/\n", content_type="text/plain")
