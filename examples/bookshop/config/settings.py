"""Settings of the bookshop: everything that differs between hosts is an environment variable.

See README.md for the list. Nothing here opens a connection or reads a secret
from a file, so that `collectstatic` runs anywhere.
"""

from pathlib import Path
from typing import Any

import dj_database_url

from bookshop import __version__
from config.environment import features, flag, items, redis_client, text

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = flag("DJANGO_DEBUG")
# An empty key is refused by Django itself at the first use.
SECRET_KEY = text("DJANGO_SECRET_KEY", "only-for-this-machine" if DEBUG else "")
ALLOWED_HOSTS = items("DJANGO_ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = items("DJANGO_CSRF_TRUSTED_ORIGINS")

VERSION = __version__
RELEASE_ID = text("RELEASE_ID", "unreleased")
RELEASE_GENERATION = text("RELEASE_GENERATION")
GREETING = text("GREETING", "Welcome to the bookshop")
FEATURES = features()

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "bookshop",
]

MIDDLEWARE = [
    # These two come first: every answer names its release, and health checks are
    # answered before host names are looked at.
    "bookshop.middleware.ReleaseMiddleware",
    "bookshop.middleware.HealthMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "bookshop.context.release",
            ],
        },
    },
]

# --- The database -------------------------------------------------------------
# Without DATABASE_URL there is Django's dummy, which refuses any query by name.
DATABASES: dict[str, Any] = {}
if text("DATABASE_URL"):
    DATABASES["default"] = dj_database_url.parse(
        text("DATABASE_URL"),
        conn_max_age=60,  # a connection a thread, renewed each minute
        conn_health_checks=True,  # a dropped one costs a check, not a request
    )
    if DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
        DATABASES["default"].setdefault("OPTIONS", {}).update(
            connect_timeout=2,  # seconds; also bounds the readiness check
            tcp_user_timeout=5000,  # milliseconds; notices a peer that vanished
        )
elif DEBUG:
    DATABASES["default"] = dj_database_url.parse(f"sqlite:///{BASE_DIR / 'db.sqlite3'}")

# --- Redis: the cache and the broker ------------------------------------------
# Both live in one database, apart by their keys: never call cache.clear() on it.
REDIS_URL, REDIS_TLS = redis_client(text("REDIS_URL"))
REDIS_TIMEOUTS = {"socket_connect_timeout": 2, "socket_timeout": 5}

CACHES: dict[str, Any] = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "cache",
        "OPTIONS": {**REDIS_TLS, **REDIS_TIMEOUTS},
    }
    if REDIS_URL
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
}

# --- Celery -------------------------------------------------------------------
CELERY_BROKER_URL = REDIS_URL or "memory://"
CELERY_BROKER_USE_SSL = REDIS_TLS or None
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_ALWAYS_EAGER = DEBUG and not REDIS_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TIMEZONE = "UTC"
# A task is acknowledged when done: one whose worker died is handed out again, so
# every task must bear being run twice.
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_SOFT_TIME_LIMIT = 240
CELERY_TASK_TIME_LIMIT = 300
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # Redis hands an unacknowledged task out again after this long: more than the
    # longest task may take, or it would run twice side by side.
    "visibility_timeout": 600,
    "socket_keepalive": True,
}
# On shutdown, tasks in hand get this long; what is left goes back to the queue.
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 20
CELERY_WORKER_ENABLE_SOFT_SHUTDOWN_ON_IDLE = True
# A customer does not wait for a broker that is away: see tasks.confirm_pending_orders.
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 1, "interval_start": 0, "interval_step": 0.2}
CELERY_BEAT_SCHEDULE = {
    "recompute-bestsellers": {
        "task": "bookshop.tasks.recompute_bestsellers",
        "schedule": 60,
        "options": {"expires": 55},  # no pile-up behind a worker that was away
    },
    "confirm-pending-orders": {
        "task": "bookshop.tasks.confirm_pending_orders",
        "schedule": 300,
        "options": {"expires": 290},
    },
}

# --- Files --------------------------------------------------------------------
STATIC_URL = "/static/"
STATIC_ROOT = text("STATIC_ROOT", str(BASE_DIR / "staticfiles"))
MEDIA_URL = "/media/"
MEDIA_ROOT = text("MEDIA_ROOT", str(BASE_DIR / "media"))

STORAGES: dict[str, Any] = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
    },
}
if text("MEDIA_BACKEND", "filesystem") == "s3":
    # Credentials come as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, read by boto3 itself.
    STORAGES["default"] = {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {
            "bucket_name": text("MEDIA_S3_BUCKET"),
            "region_name": text("MEDIA_S3_REGION") or None,
            "endpoint_url": text("MEDIA_S3_ENDPOINT_URL") or None,
            "file_overwrite": False,
            # The bucket is closed: whoever may see a file gets an address that is good for ten minutes.
            "querystring_auth": True,
            "querystring_expire": 600,
            "signature_version": "s3v4",
        },
    }

# --- Mail ---------------------------------------------------------------------
EMAIL_HOST = text("EMAIL_HOST")
EMAIL_TIMEOUT = 10
EMAIL_BACKEND = f"django.core.mail.backends.{'smtp' if EMAIL_HOST else 'dummy'}.EmailBackend"
DEFAULT_FROM_EMAIL = text("DEFAULT_FROM_EMAIL", "orders@bookshop.example")

# --- Behind the edge ----------------------------------------------------------
# TLS ends at the proxy, which sets this header and drops a client's own.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_SECURE = not DEBUG
CSRF_COOKIE_SECURE = not DEBUG

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
}
