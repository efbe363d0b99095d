"""What every page may show about the running release."""

from django.conf import settings
from django.http import HttpRequest


def release(request: HttpRequest) -> dict[str, object]:
    return {
        "version": settings.VERSION,
        "release_id": settings.RELEASE_ID,
        "greeting": settings.GREETING,
        "features": settings.FEATURES,
    }
