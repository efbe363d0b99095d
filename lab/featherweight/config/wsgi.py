"""The whole app."""

import os
from collections.abc import Callable
from typing import Any

VERSION = "0"


def application(_environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    release = os.environ.get("RELEASE_ID", "unreleased")
    body = f"featherweight {VERSION}, release {release}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Release", release)])
    return [body]
