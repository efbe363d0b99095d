"""The WSGI entry point: `gunicorn config.wsgi:application`."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

application = get_wsgi_application()

# Django reads its key when it first signs something, and its views at the first
# request. Look at both now: what is broken must fail when the process starts,
# not before the first visitor.
assert settings.SECRET_KEY, "DJANGO_SECRET_KEY is not set"
get_resolver().check()
