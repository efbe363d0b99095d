"""What Slack, Teams and plain receivers take by webhook, and how it is handed to them.

Standard library only: the controller tells of releases with it, and the role alerts installs it on hosts, beside what
tells of their troubles.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

# A link: what it is called, and where it leads.
Link = tuple[str, str]


def escaped(text: str) -> str:
    """Text in which Slack finds no markup: no link, no mention of everybody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def slack(lines: Iterable[str], links: Sequence[Link] = ()) -> dict[str, Any]:
    """An incoming webhook's message, of lines that are ``escaped``. Mattermost and Rocket.Chat take it as well."""
    shown = [f"<{url}|{escaped(title)}>" for title, url in links]
    return {"text": " ".join(["\n".join(lines), *shown])}


def teams(lines: Iterable[str], links: Sequence[Link] = ()) -> dict[str, Any]:
    """An adaptive card: what workflows take, since Microsoft has given up the older connectors."""
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [{"type": "TextBlock", "wrap": True, "text": line} for line in lines],
    }
    if links:
        card["actions"] = [{"type": "Action.OpenUrl", "title": title, "url": url} for title, url in links]
    kind = "application/vnd.microsoft.card.adaptive"
    return {"type": "message", "attachments": [{"contentType": kind, "contentUrl": None, "content": card}]}


def trust(authority: str | None = None, pem: str | None = None) -> ssl.SSLContext:
    """Certificates are checked: against a file of authorities, their PEM text, or those that the system trusts."""
    context = ssl.create_default_context(cafile=authority, cadata=pem)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def post(url: str, body: dict[str, Any], agent: str, seconds: float, context: ssl.SSLContext) -> tuple[int, str]:
    """The status that was answered, and 0 with the reason when nothing was. No word of it holds the address.

    ``seconds`` is for each word of the other side: whoever cannot wait for all of them has a limit around this.
    """
    parts = urlsplit(url)
    try:
        connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=seconds, context=context)
        with contextlib.closing(connection):
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            headers = {"Content-Type": "application/json", "User-Agent": agent}
            # Redirections are not followed: the address is a secret of this receiver.
            connection.request("POST", path, body=json.dumps(body).encode(), headers=headers)
            answer = connection.getresponse()
            answer.read(65536)
            return answer.status, f"{parts.hostname} answered {answer.status} {answer.reason}"
    except http.client.InvalidURL:
        return 0, "the webhook's address holds characters that it cannot have"
    except http.client.RemoteDisconnected:
        return 0, f"{parts.hostname} closed the connection without an answer"
    except http.client.HTTPException as error:
        return 0, f"{parts.hostname} answered something that is not HTTP ({type(error).__name__})"
    except OSError as error:
        return 0, f"{parts.hostname} is not reached: {error}"
