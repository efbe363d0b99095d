"""Settings and entry points.

Nothing is imported here: `celery -A config` finds config.celery by itself, and
the web processes then load Celery only when they send a first task.
"""
