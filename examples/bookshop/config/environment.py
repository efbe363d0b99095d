"""What the environment says, turned into what Django and Celery want to hear."""

import os
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

TRUE = frozenset({"1", "true", "yes", "on"})


def text(name: str, default: str = "") -> str:
    return os.environ.get(name, default)


def flag(name: str, default: bool = False) -> bool:
    value = os.environ.get(name, "").strip().lower()
    return value in TRUE if value else default


def items(name: str) -> list[str]:
    return [item.strip() for item in os.environ.get(name, "").split(",") if item.strip()]


def features(environ: Mapping[str, str] = os.environ) -> dict[str, bool]:
    """FEATURE_RECOMMENDATIONS=1 becomes {"recommendations": True}."""
    prefix = "FEATURE_"
    return {
        name.removeprefix(prefix).lower(): value.strip().lower() in TRUE
        for name, value in environ.items()
        if name.startswith(prefix)
    }


def redis_client(url: str) -> tuple[str, dict[str, Any]]:
    """Split a Redis URL into the bare URL and how to verify its server.

    Over TLS the certificate and the host name are always verified, whatever the
    URL asks for: a broker that may be anybody is not a broker.
    """
    parts = urlsplit(url)
    if parts.scheme != "rediss":
        return url, {}
    bare = urlunsplit(parts._replace(query=""))
    tls: dict[str, Any] = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    authorities = parse_qs(parts.query).get("ssl_ca_certs", [])
    if authorities:
        tls["ssl_ca_certs"] = authorities[-1]
    return bare, tls
