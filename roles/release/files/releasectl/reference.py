"""Names of images: a registry, a path in it, and which one. Strict, because a deployer's words are hostile input."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import Refusal, UsageError
from .names import shorten

HOST = r"(?:[a-z0-9](?:[a-z0-9-]{0,62})(?:\.[a-z0-9](?:[a-z0-9-]{0,62}))*)(?::[0-9]{1,5})?"
PART = r"[a-z0-9]+(?:(?:\.|_|__|-{1,3})[a-z0-9]+)*"
REFERENCE = re.compile(
    rf"(?P<registry>{HOST})/(?P<path>{PART}(?:/{PART}){{0,7}})"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
PLACE = re.compile(rf"(?P<registry>{HOST})(?:/{PART}){{0,8}}")
LONGEST = 400  # characters
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Reference:
    """``registry/path:tag@digest``: a tag, a digest, or both, where the digest counts."""

    registry: str
    path: str
    tag: str | None
    digest: str | None

    @property
    def repository(self) -> str:
        return f"{self.registry}/{self.path}"

    @property
    def by_digest(self) -> str:
        """What is pulled."""
        return f"{self.repository}@{self.digest}"

    @property
    def sha256(self) -> str:
        """The digest, as an artifact has one; empty where only a tag is known."""
        return (self.digest or "").removeprefix("sha256:")

    @property
    def revision(self) -> str | None:
        """The commit, where the tag is one."""
        return self.tag if self.tag and COMMIT.fullmatch(self.tag) else None

    def pinned(self, digest: str) -> Reference:
        return Reference(self.registry, self.path, self.tag, digest)

    def beside(self, suffix: str) -> Reference:
        """What lies beside the image in its repository, by a tag that its digest gives."""
        return Reference(self.registry, self.path, f"{str(self.digest).replace(':', '-')}{suffix}", None)

    def release_id(self) -> str:
        """The id of the release that is made of it: by content, so that a tag which moved gives another one."""
        assert self.digest is not None
        name = self.path.rsplit("/", 1)[-1].replace("__", "_")[:30].rstrip("._-")
        digest = self.sha256
        if self.tag is None:
            return f"{name}-{digest[:12]}"
        tag = re.sub(r"\.{2,}", ".", self.tag[:12] if self.revision else self.tag[:20])
        return f"{name}-{tag}-{digest[:8]}"

    def __str__(self) -> str:
        return f"{self.repository}{f':{self.tag}' if self.tag else ''}{f'@{self.digest}' if self.digest else ''}"


def parse(text: str) -> Reference:
    """Return ``text`` as a reference, refuse what does not say which registry, which image and which one of it."""
    found = REFERENCE.fullmatch(text) if len(text) <= LONGEST else None
    if not found or not _is_host(found["registry"]):
        raise UsageError(
            f"{shorten(text)} does not name an image: give registry/app@sha256:<64 hexadecimal digits> or"
            " registry/app:<git-sha>, the registry by its full name and all in lower case."
        )
    if not found["tag"] and not found["digest"]:
        raise UsageError(
            f"{shorten(text)} does not say which image: add :<git-sha> or @sha256:<digest>; there is no 'latest' here."
        )
    return Reference(found["registry"], found["path"], found["tag"], found["digest"])


def pinned(text: str) -> Reference:
    """As `parse`, for one with its digest."""
    found = parse(text)
    if found.digest is None:
        raise UsageError(f"{shorten(text)} has no digest: 'releasectl resolve' says which one its tag names by now.")
    return found


def _is_host(registry: str) -> bool:
    """Whether it can only be a registry's name: without a dot or a port it would be a path of some other registry."""
    return "." in registry or ":" in registry or registry == "localhost"


def require_allowed(reference: Reference, registries: Sequence[str]) -> None:
    """Refuse what is in no listed registry, or beside the listed path of one."""
    for place in registries:
        if f"{reference.repository}/".startswith(f"{place.rstrip('/')}/"):
            return
    raise Refusal(
        f"{reference.repository} is in none of the registries that this host pulls from"
        f" ({', '.join(registries) or 'none'}): add it to release_image_registries and run site.yml, if it is yours."
    )


def check_places(registries: Sequence[object]) -> str:
    """What is wrong with a list of registries, as a sentence; nothing when it is one."""
    for place in registries:
        found = PLACE.fullmatch(place) if isinstance(place, str) else None
        if not found or not _is_host(found["registry"]):
            return (
                f"release_image_registries holds {shorten(str(place))}, which is no registry: it is a host's full name,"
                " with a port or a path where there is one, as in registry.example.com:5000/shop."
            )
    return ""
