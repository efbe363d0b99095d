"""bin/no-secrets in a repository of its own: each kind of leak is refused in a sentence without the value."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import secrets
import string
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from plugins.leaks import cli
from plugins.secrets import age, sops

ROOT = Path(__file__).resolve().parents[2]
# Quoted nowhere in one piece, so that this file is clean itself.
DASHES = "-" * 5


def letters(count: int, of: str = string.ascii_letters + string.digits) -> str:
    return "".join(secrets.choice(of) for _ in range(count))


def pem(kind: str = "") -> str:
    body = base64.encodebytes(secrets.token_bytes(160)).decode()
    return f"{DASHES}BEGIN {kind}PRIVATE KEY{DASHES}\n{body}{DASHES}END {kind}PRIVATE KEY{DASHES}\n"


class Looked(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class Checkout:
    """A git repository of its own, with this one's programs."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            "HOME": str(place.parent), "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.com",
            "GIT_COMMITTER_NAME": "Ada", "GIT_COMMITTER_EMAIL": "ada@example.com",
            "PRE_COMMIT_HOME": str(place.parent / "pre-commit"), "GIT_CONFIG_NOSYSTEM": "1",
        }  # fmt: skip
        place.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", *words], cwd=self.place, env=self.environ, capture_output=True, text=True, check=check, timeout=120
        )

    def has(self, path: str, text: str) -> None:
        file = self.place / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        self.git("add", "--force", path)

    def commits(self, what: str) -> str:
        self.git("commit", "--quiet", "--allow-empty", "--no-verify", "--message", what)
        return self.git("rev-parse", "HEAD").stdout.strip()

    def look(self, *words: str) -> Looked:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(self.place), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(list(words))
        return Looked(code, out.getvalue(), err.getvalue())


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "checkout")


def leaks() -> dict[str, tuple[str, str, str]]:
    """For each leak: what is to be said of it, the text that is planted in line 2, and the value in it."""
    key, aged, password = pem("OPENSSH "), age.made("x")[1].split()[-1], letters(20)
    found = {
        "age": ("a private key of age", aged, aged),
        "private-key": ("a private key", key, key.splitlines()[1]),
        "bare-private-key": ("a private key", pem(), ""),
        "private-key-in-one-line": ("a private key", '"' + key.replace("\n", "\\n") + '"', key.splitlines()[1]),
        "url": ("a password in a URL", f"postgres://app:{password}@db.example.com/app", password),
        "name": ("a value in the clear by the name of a secret", f"django_secret_key: {password}", password),
        "name-quoted": ("a value in the clear by the name of a secret", f'API_TOKEN = "{password}"', password),
        "name-token": ("a value in the clear by the name of a secret", f"deploy_token: {password}", password),
        "name-in-a-comment": ("a value in the clear by the name of a secret", f"# db_password: {password}", password),
    }
    for what, value in {
        "an access key of AWS": "AKIA" + letters(16, string.ascii_uppercase + string.digits),
        "a token of GitHub": "ghp_" + letters(36),
        "a token of GitLab": "glpat-" + letters(20),
        "a token or webhook of Slack": "https://hooks.slack.com/services/T" + "/B".join(
            (letters(9, string.ascii_uppercase), letters(9, string.ascii_uppercase))) + "/" + letters(24),
        "a key of Stripe": "sk_live_" + letters(24),
        "a key of SendGrid": f"SG.{letters(22)}.{letters(43)}",
    }.items():  # fmt: skip
        found[what] = (what, f"see {value} there", value)
    return found


@pytest.mark.parametrize("path", ["notes.txt", ".env.production", "group_vars/production/main.yml"])
@pytest.mark.parametrize("leak", leaks())
def test_each_leak_is_refused_in_words_and_without_its_value(checkout: Checkout, leak: str, path: str) -> None:
    says, text, value = leaks()[leak]
    checkout.has(path, f"# of no interest\n{text}\n")
    for words in ([], ["--staged"]):
        done = checkout.look(*words)
        assert done.returncode == 1, done.stdout + done.stderr
        assert f"{path}:2: {says}" in done.stdout
        assert "make a new one" in done.stdout
        assert not value or value not in done.stdout + done.stderr
        assert done.stdout.strip().splitlines()[-1] == "no-secrets: 1 finding."


@pytest.mark.parametrize(
    "line",
    [
        'DATABASE_URL: "postgres://app:{{ secrets.postgres_app_password | urlencode }}@db/app"',
        'password: "{{ secrets.redis_app_password }}"',
        "password = os.environ['PASSWORD']",
        "export TOKEN=$TOKEN",
        "secret: true",
        "# play [-e secrets_report_fail=true]",
        "image_credentials: &image_credentials",
        "credentials: /etc/slipway/registry-auth.json",
        "postgres://USER:PASSWORD@db.example.com/app",
        f"{DASHES}BEGIN PRIVATE KEY{DASHES} is how one begins",
        "# The address is a secret: keep it where secrets_source says.",
    ],
)
def test_what_only_speaks_of_a_secret_is_left_alone(checkout: Checkout, line: str) -> None:
    checkout.has("group_vars/production/main.yml", line + "\n")
    done = checkout.look()
    assert (done.returncode, done.stdout) == (0, "")


def encrypted() -> str:
    recipient, _ = age.made("x")
    return age.encrypted(sops.program(), "app:\n  KEY: abc\n  EMPTY: ''\n", [recipient], "production.sops.yml")


@pytest.mark.parametrize(
    ("path", "make", "line"),
    [
        ("secrets/production.sops.yml", lambda: "app:\n  KEY: abc\n", 1),
        ("secrets/notes.txt", lambda: "whatever\n", 1),
        ("secrets/production.vault.yml", lambda: "app: {KEY: abc}\n", 1),
        ("group_vars/production/vault.yml", lambda: "vault_x: abc\n", 1),
        ("secrets/production.sops.yml", lambda: encrypted().replace("app:\n", "app:\n    NEW: by-hand\n"), 2),
        ("secrets/production.sops.yml", lambda: "sops: nothing\napp: {KEY: abc}\n", 1),
        ("secrets/broken.sops.yml", lambda: "<<<<<<< HEAD\n: [\n", 1),
    ],
)
def test_a_file_of_secrets_that_is_not_encrypted_is_refused(
    checkout: Checkout, path: str, make: Callable[[], str], line: int
) -> None:
    checkout.has(path, make())
    done = checkout.look("--staged")
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{path}:{line}: a file of secrets that is not encrypted: run `" in done.stdout
    assert f"encrypt{' --in-place' if '.vault.' not in path else ''} {path}`" in done.stdout
    assert "abc" not in done.stdout
    assert "by-hand" not in done.stdout


@pytest.mark.parametrize(
    "text",
    [
        encrypted,
        lambda: "$ANSIBLE_VAULT;1.1;AES256\n61626364\n",
        lambda: "app:\n  KEY: !vault |\n    $ANSIBLE_VAULT;1.1;AES256\n    61626364\ncertificate: in the clear\n",
        lambda: "",
    ],
)
def test_an_encrypted_one_is_not(checkout: Checkout, text: Callable[[], str]) -> None:
    checkout.has("secrets/production.sops.yml", text())
    done = checkout.look()
    assert (done.returncode, done.stdout) == (0, "")


def test_the_hook_looks_at_what_is_staged_and_not_at_the_rest(checkout: Checkout) -> None:
    _, leak, _ = leaks()["name"]
    checkout.has("a.yml", f"{leak}\n")
    (checkout.place / "a.yml").write_text("clean: true\n")
    assert checkout.look("--staged").returncode == 1, "the working tree is clean, the commit would not be"
    checkout.git("add", "a.yml")
    (checkout.place / "a.yml").write_text(f"{leak}\n")
    assert checkout.look("--staged").returncode == 0
    assert checkout.look().returncode == 1


@pytest.mark.parametrize("name", ["[a].yml", "two words\nand lines.yml", "é.yml", "no-text-\udcff.yml", "-x.yml"])
def test_a_file_by_any_name_is_looked_at(checkout: Checkout, name: str) -> None:
    checkout.has("clean.yml", "clean: true\n")
    (checkout.place / name).write_text(f"{leaks()['name'][1]}\n")
    checkout.git("add", "--", f"./{name}")
    for words in ([], ["--staged"]):
        assert "1 finding." in checkout.look(*words).stdout


def test_what_a_later_commit_took_away_is_found_in_the_commits(checkout: Checkout) -> None:
    _, leak, value = leaks()["url"]
    start = checkout.commits("nothing")
    checkout.has("a.txt", f"{leak}\n")
    checkout.commits("the leak")
    checkout.has("a.txt", "clean\n")
    after = checkout.commits("gone again")
    assert checkout.look().returncode == 0
    done = checkout.look("--commits", f"{start}..HEAD")
    assert done.returncode == 1
    assert "a.txt:1: a password in a URL" in done.stdout
    assert value not in done.stdout
    checkout.has("b.txt", "clean\n")
    checkout.commits("another")
    assert checkout.look("--commits", f"{after}..HEAD").returncode == 0
    bad = checkout.look("--commits", "nowhere..HEAD")
    assert bad.returncode == 2
    assert "git rev-list failed" in bad.stderr


GIVEN: dict[str, Any] = {"files": "[a.yml]", "kind": "name", "values": "hunter[0-9]+", "reason": "a test"}


def allowing(**changed: str) -> str:
    entry = {name: value for name, value in {**GIVEN, **changed}.items() if value}
    return "---\n- " + "\n  ".join(f"{name}: {value}" for name, value in entry.items()) + "\n"


def test_an_exception_is_for_its_file_its_kind_and_its_values(checkout: Checkout) -> None:
    checkout.has(".no-secrets.yml", allowing())
    checkout.has("a.yml", "password: hunter22\n")
    assert checkout.look().returncode == 0
    checkout.has("a.yml", "password: hunter22\ntoken: another-3f1\n")
    assert "a.yml:2:" in checkout.look().stdout
    checkout.has("a.yml", "password: hunter22\n")
    checkout.has("b.yml", "password: hunter22\n")
    assert "b.yml:1:" in checkout.look().stdout


@pytest.mark.parametrize(
    ("text", "says", "code"),
    [
        (allowing(reason=""), "entry 1 of .no-secrets.yml gives no reason", 2),
        (allowing(kind="clear"), "has the kind clear", 2),
        (allowing(kind="age"), "has the kind age", 2),
        (allowing(kind="nmae"), "has the kind nmae", 2),
        (allowing(values='"["'), "is no regular expression", 2),
        (allowing(file="x"), "is to have files", 2),
        ("- [\n", "is no YAML", 2),
        (allowing(files="[gone.yml]"), "allows nothing that is there: take it out", 1),
    ],
)
def test_a_bad_exception_is_said(checkout: Checkout, text: str, says: str, code: int) -> None:
    checkout.has(".no-secrets.yml", text)
    done = checkout.look()
    assert done.returncode == code
    assert says in done.stdout + done.stderr


def test_a_commit_with_a_leak_is_not_made(checkout: Checkout) -> None:
    """The whole way: pre-commit, the hook that it puts into git, bin/no-secrets and this repository's .venv."""
    for path in ("bin/no-secrets", ".pre-commit-config.yaml", ".yamllint", ".gitignore"):
        checkout.has(path, (ROOT / path).read_text())
    (checkout.place / "bin/no-secrets").chmod(0o755)
    checkout.git("add", "bin")
    for path in (ROOT / "plugins/leaks").glob("*.py"):
        checkout.has(f"plugins/leaks/{path.name}", path.read_text())
    (checkout.place / ".venv").symlink_to(Path(sys.executable).parents[1])
    checkout.commits("what is there")
    subprocess.run(
        [sys.executable, "-m", "pre_commit", "install"], cwd=checkout.place, env=checkout.environ, check=True,
        capture_output=True, timeout=60,
    )  # fmt: skip
    _, leak, value = leaks()["name"]
    checkout.has("group_vars/production/main.yml", f"---\n{leak}\n")
    done = checkout.git("commit", "--message", "a leak", check=False)
    assert done.returncode != 0
    assert "group_vars/production/main.yml:2: a value in the clear by the name of a secret" in done.stdout + done.stderr
    assert value not in done.stdout + done.stderr
    assert checkout.git("log", "--format=%s").stdout.split("\n")[0] == "what is there"
    checkout.has("group_vars/production/main.yml", '---\ndjango_secret_key: "{{ secrets.django }}"\n')
    done = checkout.git("commit", "--message", "no leak", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_this_repository_is_clean() -> None:
    done = subprocess.run([ROOT / "bin/no-secrets"], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
