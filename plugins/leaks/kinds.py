"""What is secret by its looks: the formats that detect-secrets knows, private keys, what a telling name is given."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from detect_secrets.filters import heuristic
from detect_secrets.plugins import keyword
from detect_secrets.plugins.artifactory import ArtifactoryDetector
from detect_secrets.plugins.aws import AWSKeyDetector
from detect_secrets.plugins.azure_storage_key import AzureStorageKeyDetector
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.plugins.basic_auth import BasicAuthDetector
from detect_secrets.plugins.discord import DiscordBotTokenDetector
from detect_secrets.plugins.github_token import GitHubTokenDetector
from detect_secrets.plugins.gitlab_token import GitLabTokenDetector
from detect_secrets.plugins.jwt import JwtTokenDetector
from detect_secrets.plugins.mailchimp import MailchimpDetector
from detect_secrets.plugins.npm import NpmDetector
from detect_secrets.plugins.openai import OpenAIDetector
from detect_secrets.plugins.pypi_token import PypiTokenDetector
from detect_secrets.plugins.sendgrid import SendGridDetector
from detect_secrets.plugins.slack import SlackDetector
from detect_secrets.plugins.square_oauth import SquareOAuthDetector
from detect_secrets.plugins.stripe import StripeDetector
from detect_secrets.plugins.telegram_token import TelegramBotTokenDetector
from detect_secrets.plugins.twilio import TwilioKeyDetector

DETECTORS: dict[str, type[RegexBasedDetector]] = {
    "artifactory": ArtifactoryDetector, "aws": AWSKeyDetector, "azure": AzureStorageKeyDetector,
    "url": BasicAuthDetector, "discord": DiscordBotTokenDetector, "github": GitHubTokenDetector,
    "gitlab": GitLabTokenDetector, "jwt": JwtTokenDetector, "mailchimp": MailchimpDetector, "npm": NpmDetector,
    "openai": OpenAIDetector, "pypi": PypiTokenDetector, "sendgrid": SendGridDetector, "slack": SlackDetector,
    "square": SquareOAuthDetector, "stripe": StripeDetector, "telegram": TelegramBotTokenDetector,
    "twilio": TwilioKeyDetector,
}  # fmt: skip
# What is said of a finding of each kind.
KINDS = {
    "artifactory": "a credential of Artifactory",
    "aws": "an access key of AWS",
    "azure": "a key of Azure storage",
    "url": "a password in a URL",
    "discord": "a bot's token of Discord",
    "github": "a token of GitHub",
    "gitlab": "a token of GitLab",
    "jwt": "a JSON web token",
    "mailchimp": "a key of Mailchimp",
    "npm": "a token of npm",
    "openai": "a key of OpenAI",
    "pypi": "a token of PyPI",
    "sendgrid": "a key of SendGrid",
    "slack": "a token or webhook of Slack",
    "square": "a secret of Square",
    "stripe": "a key of Stripe",
    "telegram": "a bot's token of Telegram",
    "twilio": "a key of Twilio",
    "age": "a private key of age",
    "private-key": "a private key",
    "name": "a value in the clear by the name of a secret",
    "clear": "a file of secrets that is not encrypted",
}
AGE = re.compile(r"AGE-SECRET-KEY-(?:PQ-)?1[0-9A-Z]{40,}", re.IGNORECASE)
# The head, and something that can be a key; the head alone is in texts that speak of keys.
PRIVATE_KEY = re.compile(
    r"(?:-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-\d)[\s\S]{0,400}?[A-Za-z0-9+/]{40}"
)
# Names that the detector does not know; in code a value is quoted.
MORE = r"token|credential|passphrase|(?:access|signing|encryption|master)_?key"
ALSO = re.compile(
    rf"""\b[\w-]*(?:{MORE})s?["']?\s*(?::=?|=)\s*(?P<quote>["']?)(?P<value>[^\s"'`,;|()\[\]{{}}]{{6,}})"""
    r"(?P=quote)(?=[\s,;})\]]|$)",
    re.IGNORECASE,
)
TELLING = re.compile("|".join([*keyword.DENYLIST, MORE]), re.IGNORECASE)
# What is given without quotes there; the detector knows the endings of YAML, INI, TOML and the like.
PLAIN = re.compile(r"(^|/)\.env[^/]*$|(^|/)[^/.]*[Ee]nv$|\.(env|txt|conf|cnf|envrc|service)$")
UNQUOTED = re.compile(r"\.(ya?ml|ini|cfg|conf|cnf|properties|toml)$")
# What says of a value that it is kept elsewhere or encrypted.
ELSEWHERE = re.compile(r"\{\{|ENC\[|!vault|\$ANSIBLE_VAULT")
# What is no value: PATH, DJANGO_SECRET_KEY and other names; yes and no; anchors of YAML; paths.
WORD = re.compile(
    r"[A-Z_.]+|(?i:true|false|yes|no|null|none)|[&*][a-z_]+|/(?:etc|home|opt|proc|root|run|tmp|usr|var)/.*"
)


@dataclass(frozen=True)
class Finding:
    """A secret in the clear. ``value`` is for comparing alone, and is not in its ``repr``."""

    path: str
    line: int
    kind: str
    value: str = field(repr=False, default="")

    def sentence(self) -> str:
        """Where, what, and what to do. It never holds the value."""
        if self.kind == "clear":
            what = "sops encrypt --in-place" if ".vault." not in self.path else "ansible-vault encrypt"
            return (
                f"{self.path}:{self.line}: {KINDS[self.kind]}: run `{what} {self.path}`, and where it was pushed make"
                " new values (docs/ops/secrets.md)."
            )
        return (
            f"{self.path}:{self.line}: {KINDS[self.kind]} (kind {self.kind}): keep it where secrets_source says"
            " (docs/ops/secrets.md), and where it was pushed make a new one; what is no secret goes into"
            " .no-secrets.yml, with its reason."
        )


def found(path: str, text: str) -> Iterator[Finding]:
    """All that looks secret in a file, each place once."""
    seen: set[tuple[int, str]] = set()
    for kind, start, value in _matches(text):
        line = text.count("\n", 0, start) + 1
        if (line, value) not in seen:
            seen.add((line, value))
            yield Finding(path, line, kind, value)
    if "\0" not in text:
        yield from (one for one in _named(path, text) if (one.line, one.value) not in seen)


def _matches(text: str) -> Iterator[tuple[str, int, str]]:
    for match in AGE.finditer(text):
        yield "age", match.start(), match.group()
    for match in PRIVATE_KEY.finditer(text):
        yield "private-key", match.start(), match.group()
    for kind, detector in DETECTORS.items():
        for pattern in detector().denylist:
            for match in pattern.finditer(text):
                value = next((group for group in match.groups() if group), match.group())
                if not (kind == "url" and _stands_in(value)):
                    yield kind, match.start(), value


def _named(path: str, text: str) -> Iterator[Finding]:
    """What stands beside a name such as password: the lines alone that have one, as the detector takes its time."""
    detector = keyword.KeywordDetector()
    shown = f"{path}.ini" if PLAIN.search(path) else path
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > 2000 or not TELLING.search(line) or ELSEWHERE.search(line):
            continue
        values = [
            one.secret_value or "" for one in detector.analyze_line(filename=shown, line=line, line_number=number)
        ]
        values += [also["value"] for also in ALSO.finditer(line) if also["quote"] or UNQUOTED.search(shown)]
        for value in dict.fromkeys(values):
            if not (
                _stands_in(value)
                or (" " in value and _is_prose(path, line))
                or heuristic.is_indirect_reference(line)
                or heuristic.is_likely_id_string(value, line, detector)
                or heuristic.is_sequential_string(value)
            ):
                yield Finding(path, number, "name", value)


def _stands_in(value: str) -> bool:
    """Whether it is a place for a value: {password}, <password>, $PASSWORD, PASSWORD, …, or a template."""
    return (
        heuristic.is_templated_secret(value)
        or heuristic.is_not_alphanumeric_string(value)
        or bool(WORD.fullmatch(value.rstrip("])},.;")))
        or heuristic.is_prefixed_with_dollar_sign(value)
        or bool(ELSEWHERE.search(value))
    )


def _is_prose(path: str, line: str) -> bool:
    """Whether words after a colon are a sentence."""
    return path.endswith(".md") or line.lstrip().startswith(("#", "//"))
