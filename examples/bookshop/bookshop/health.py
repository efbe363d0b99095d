"""Is the process alive, and can it do its work?"""

import logging
import time
from collections.abc import Callable

from django.conf import settings
from django.db import connection, transaction
from django.http import HttpResponse, JsonResponse

log = logging.getLogger(__name__)

CHECK_SECONDS = 2


def alive() -> HttpResponse:
    """The process answers. Nothing else is touched."""
    return HttpResponse("ok\n", content_type="text/plain")


def ready() -> HttpResponse:
    """The database and the broker answer. What they said instead goes to the log,
    by its kind alone: messages of drivers may carry addresses and names."""
    results = {"database": _passes(check_database), "broker": _passes(check_broker)}
    good = all(results.values())
    return JsonResponse(
        {
            "ready": good,
            "release": settings.RELEASE_ID,
            **{name: "ok" if passed else "failed" for name, passed in results.items()},
        },
        status=200 if good else 503,
    )


def check_database() -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL statement_timeout = %s", [CHECK_SECONDS * 1000])
        cursor.execute("SELECT 1")
        cursor.fetchone()


def check_broker() -> None:
    if settings.CELERY_TASK_ALWAYS_EAGER:
        return
    if not settings.REDIS_URL:
        raise LookupError("REDIS_URL is not set")
    # A connection of its own: the check must fail when a new one cannot be made.
    from redis import Redis

    with Redis.from_url(
        settings.REDIS_URL,
        socket_connect_timeout=CHECK_SECONDS,
        socket_timeout=CHECK_SECONDS,
        **settings.REDIS_TLS,
    ) as client:
        client.ping()


def _passes(check: Callable[[], None]) -> bool:
    started = time.monotonic()
    try:
        check()
    except Exception as error:
        log.error(
            "%s failed after %.1f s: %s",
            check.__name__,
            time.monotonic() - started,
            type(error).__name__,
        )
        return False
    return True
