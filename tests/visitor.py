"""A browser of a kind: cookies, forms and a session, over HTTPS to the edge."""

from __future__ import annotations

import http.cookies
import re
import secrets
import urllib.parse
from typing import Any

from tests.outside import Answer, https


class Visitor:
    def __init__(self, lab: dict[str, Any]) -> None:
        self.lab = lab
        self.cookies: dict[str, str] = {}
        # What was answered, for whoever wants to see them all.
        self.seen: list[tuple[str, str, int]] = []

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        sent = {
            "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "Accept-Language": "en-GB,en;q=0.5",
            "Referer": f"https://{self.lab['edge_name']}/",
            **(headers or {}),
        }
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = https(self.lab, path, method=method, body=body, headers=sent)
        for name, value in answer.pairs:
            if name == "set-cookie":
                for cookie in http.cookies.SimpleCookie(value).values():
                    self.cookies[cookie.key] = cookie.value
        self.seen.append((method, path, answer.status))
        answer.path = path
        return answer

    def token(self, path: str) -> str:
        """What a form of this page proves to come from it."""
        page = self.ask(path).body.decode()
        found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        assert found, f"{path} has no form"
        return found[1]

    def submit(self, path: str, fields: dict[str, str]) -> Answer:
        body = urllib.parse.urlencode({"csrfmiddlewaretoken": self.token(path), **fields}).encode()
        return self.ask(path, "POST", body, {"Content-Type": "application/x-www-form-urlencoded"})

    def submit_file(self, path: str, fields: dict[str, str], name: str, filename: str, content: bytes) -> Answer:
        boundary = f"----WebKitFormBoundary{secrets.token_hex(8)}"
        parts = b""
        for key, value in {"csrfmiddlewaretoken": self.token(path), **fields}.items():
            parts += f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        parts += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
            "Content-Type: image/png\r\n\r\n"
        ).encode() + content
        parts += f"\r\n--{boundary}--\r\n".encode()
        return self.ask(path, "POST", parts, {"Content-Type": f"multipart/form-data; boundary={boundary}"})
