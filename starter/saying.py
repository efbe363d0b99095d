"""What is said at the end: what was found, what is left to do and where, and what to type next."""

from __future__ import annotations

import os
import shlex
import textwrap
from collections.abc import Iterable
from pathlib import Path

from plugins.secrets import age
from starter import placing, workflow
from starter.guess import Guess
from starter.lacks import Lack
from starter.render import Answers

TITLES = {
    "app_name": "name",
    "app_directory": "directory in what is packed",
    "app_django_settings_module": "settings module",
    "app_wsgi": "WSGI application",
    "app_celery_app": "Celery app",
    "app_requirements": "requirements",
    "app_health_path": "health path",
    "app_liveness_path": "liveness path",
    "python": "Python",
}


def found(guess: Guess) -> None:
    print(f"\nFound in {guess.root}:")
    for name, title in TITLES.items():
        if name in guess.values:
            print(f"  {title}: {guess.values[name]} ({guess.sources[name]})")
        elif name == "app_celery_app":
            print("  Celery app: none, so no host works off a queue")
    reads = guess.environment.reads
    if reads:
        said = f"settings read from the environment: {', '.join(sorted(reads))}"
        print(textwrap.fill(said, 110, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False))


def lacking(missing: list[Lack]) -> None:
    if not missing:
        return
    print("\nThe app is not ready to be released. Mend it, or say it by variables (docs/ops/your-app.md). It lacks:")
    for number, lack in enumerate(missing, 1):
        first, *more = lack.mend.splitlines()
        print(f"  {number}. {lack.what}\n       {first}")
        for line in more:
            print(f"       {line}")


def line_of(root: Path, path: str, words: str) -> str:
    """`file:line` of the first line that starts with these words."""
    for number, line in enumerate((root / path).read_text().splitlines(), 1):
        if line.strip().startswith(words):
            return f"{path}:{number}"
    return path


def to_do(root: Path, result: Answers, file: Path | None) -> Iterable[str]:
    """What no question asked for, and nothing could make."""
    variables = f"group_vars/{result.environment}"
    if not result.agreed:
        place = line_of(root, f"{variables}/tls.yml", "tls_acme_agree_terms")
        yield f"{place}: read https://letsencrypt.org/repository, and set tls_acme_agree_terms: true if you agree"
    for read in result.handed.unknown:
        place = line_of(root, f"{variables}/main.yml", f"{read.name}:")
        yield (
            f"{place}: {read.name}, which {read.place} reads; if it is secret, take it out there and put it below app:"
            f" sops edit secrets/{result.environment}.sops.yml"
        )
    if result.urls and not result.authority:
        place = line_of(root, f"{variables}/envdir.yml", "envdir_ca_certificates")
        yield f"{place}: the authority of your database and Redis, as your provider publishes it (--database-ca)"
    yield f"DNS: {result.domain} has to lead to {result.host.address} before site.yml, or no certificate is made"
    key = age.key_file_of(os.environ)
    yield f"keep a copy of {key} in a safe place: without a key in it nobody opens the secrets; and one of .vault/"
    if file is None:
        return
    if f"SLIPWAY_REPOSITORY: {workflow.NOBODY}" in file.read_text():
        place = line_of(root, str(file), "SLIPWAY_REPOSITORY")
        yield f"{place}: your copy of this repository on GitHub, as owner/name (private: it names your host)"
    place = line_of(root, str(file), "runs-on")
    yield f"{place}: a runner that comes from {', '.join(result.networks)}, or a step before that joins a VPN"


def next_commands(root: Path, result: Answers, guess: Guess, file: Path | None) -> None:
    environment = result.environment
    inventory = f"-i inventories/{environment}"
    repository = _near(guess.repository or guess.root)
    path = f" --path {shlex.quote(guess.path)}" if guess.path else ""
    name = guess.values["app_name"]
    artifact = f"dist/{name}-$(git -C {repository} rev-parse HEAD).tar.gz"
    key = f" -i {result.host.key}" if result.host.key else ""
    print("\nNext, in this directory:")
    for command, why in (
        (f"cd {shlex.quote(str(root))} && source .venv/bin/activate", ""),
        (f"git add .sops.yaml secrets inventories group_vars && git commit -m 'Our {environment}'", ""),
        (f"ssh{key} {result.host.user}@{result.host.address} true", "compare the fingerprint that it shows"),
        (f"ansible-playbook {inventory} playbooks/bootstrap.yml", "once: your account, and root is barred"),
        (f"ansible-playbook {inventory} playbooks/site.yml", "10 minutes the first time"),
        (f"bin/pack --repo {repository}{path} --name {name}", "packs the commit"),
        (f"ansible-playbook {inventory} playbooks/deploy.yml -e release_artifact={artifact}", ""),
    ):
        print(f"  {command}{f'    # {why}' if why else ''}")
    if file:
        print("\nThen, for CI to do the last two:")
        for command, why in (
            ("git push", "a private repository"),
            (f"bin/init --pin --environment {environment} --workflow {shlex.quote(str(file))}", "then commit it there"),
            (
                f"gh secret set SLIPWAY_DEPLOY_KEY --env {environment} <.vault/{environment}-deploy-key",
                "in the app's repository",
            ),
        ):
            print(f"  {command}    # {why}")


def written(root: Path, done: Iterable[tuple[str, Path, str]]) -> None:
    print("\nWritten:")
    notes = {"left": "was so already", "replaced": "for the example", "written over": "for what was there"}
    for word, path, why in done:
        print(f"  {placing.shown(root, path)}: {why}{f' ({notes[word]})' if word in notes else ''}")


def _near(path: Path) -> str:
    return shlex.quote(os.path.relpath(path))
