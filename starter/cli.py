"""The inventory, the variables and the workflow file for your own app and your own VPS.

Asks five questions; a flag answers one. What it finds in the app's checkout it says, and a flag overrides it. It writes
over nothing but untouched examples, and says what is left to do.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from starter import answers, asking, guess, handed, keeping, lacks, placing, render, saying, workflow
from starter.answers import Wrong

ROOT = Path(__file__).resolve().parents[1]
# The flags that stand for what is found in the checkout.
OVERRIDES = {
    "app_name": ("--name", "what the app is called in names of files"),
    "app_django_settings_module": ("--settings-module", "its settings, such as mysite.settings"),
    "app_wsgi": ("--wsgi", "its WSGI application, such as mysite.wsgi:application"),
    "app_celery_app": ("--celery-app", "its Celery app, such as mysite; none: it has none"),
    "app_requirements": ("--requirements", "the file of its locked requirements"),
    "app_health_path": ("--health-path", "the path that answers 200 when it can serve"),
    "app_liveness_path": ("--liveness-path", "the path that answers 200 when it lives"),
}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="bin/init", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--environment", choices=sorted(workflow.TAGS), default="production")
    made.add_argument("--yes", action="store_true", help="ask nothing: flags and defaults answer")
    made.add_argument("--force", action="store_true", help="write over files that are there")
    made.add_argument(
        "--pin", action="store_true", help="only write this commit and the host's keys into the workflow file"
    )
    five = made.add_argument_group("the five questions")
    five.add_argument("--domain", default="", help="the name under which users reach the app")
    five.add_argument("--host", default="", help="the VPS: [account@]address")
    five.add_argument("--login", default="", help="the account that the provider left (default: root)")
    five.add_argument("--login-key", default="", metavar="FILE", help="the key that opens it (default: what ssh finds)")
    five.add_argument("--app", default="", metavar="DIRECTORY", help="the app's checkout")
    five.add_argument("--key", default="", metavar="FILE", help="your public ssh key (default: ~/.ssh/id_ed25519.pub)")
    five.add_argument("--networks", default="", help="the networks you come from (default: the address the VPS sees)")
    five.add_argument("--email", default="", help="your e-mail address, for the certificate")
    five.add_argument("--agree-terms", action="store_true", help="you agree to https://letsencrypt.org/repository")
    found = made.add_argument_group("what is found in the app's checkout otherwise")
    for name, (flag, words) in OVERRIDES.items():
        found.add_argument(flag, dest=name, default="", help=words)
    data = made.add_argument_group("PostgreSQL and Redis: on the host itself unless you have them elsewhere")
    data.add_argument("--database-url", default="", help="postgres://user:password@db.mycompany.com:25060/name?…")
    data.add_argument("--redis-url", default="", help="rediss://user:password@cache.mycompany.com:25061/0?…")
    data.add_argument("--database-ca", default="", metavar="FILE", help="the authority of their certificates, in PEM")
    ci = made.add_argument_group("the workflow file in the app's repository")
    ci.add_argument("--workflow", default="", metavar="FILE", help="where to (default: .github/workflows/ of the app)")
    ci.add_argument("--repository", default="", metavar="OWNER/NAME", help="of this checkout (default: its remote)")
    ci.add_argument("--runner", default="ubuntu-24.04", help="what it runs on: a label, or [self-hosted, linux]")
    ci.add_argument("--known-hosts", default="", metavar="FILE", help="for --pin (default: ssh's own)")
    ci.add_argument("--deploy-key", default="", metavar="FILE", help="its public ssh key (default: one is made)")
    return made


def main(words: list[str] | None = None, root: Path = ROOT) -> int:
    given = parser().parse_args(words)
    try:
        if given.pin:
            return pin(given, root)
        return Init(given, root).run()
    except Wrong as wrong:
        print(f"init: {wrong}.", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, EOFError):
        print("\ninit: ended. Nothing was written.", file=sys.stderr)
        return 130


def pin(given: argparse.Namespace, root: Path) -> int:
    if not (given.workflow or given.app):
        raise Wrong("--pin wants to know the workflow: --app ../yourapp, or --workflow FILE")
    file = workflow_file(given, guess.project(Path(given.app)) if given.app else None)
    left = workflow.pin(root, given.environment, file, given.known_hosts)
    print(f"{file} deploys with this commit of Slipway now. Commit it there.")
    for line in left:
        print(f"  still to do: {line}")
    return 0


def workflow_file(given: argparse.Namespace, project: Path | None) -> Path:
    if given.workflow:
        return Path(given.workflow).expanduser().absolute()
    assert project
    name = "deploy.yml" if given.environment == "production" else f"deploy-{given.environment}.yml"
    return (guess.repository_of(project) or project) / ".github/workflows" / name


class Init:
    """One run: ask, look, write, say."""

    def __init__(self, given: argparse.Namespace, root: Path) -> None:
        self.given, self.root = given, root
        self.environment: str = given.environment
        self.keys = root / ".vault"
        self.todo: list[str] = []

    def run(self) -> int:
        urls, authority = self.urls(), self.authority()
        said = self.said()
        asked = asking.ask(self.given, self.root)
        found = guess.look(asked.app, said)
        if found.values.get("app_celery_app") == "none":
            del found.values["app_celery_app"]
        saying.found(found)
        celery = "app_celery_app" in found.values
        redis = self.wants_redis(found, urls)
        hands = handed.hand(found.environment, redis, "database" in urls, "redis" in urls)
        secrets = keeping.Secrets(self.root, self.environment)
        self.fill(secrets, urls, hands.made)
        private, public = self.deploy_key()
        result = render.Answers(
            self.environment, asked.domain, asked.host, asked.key, asked.networks, asked.email, asked.agreed, found,
            hands, public, celery, not urls, urls, authority,
        )  # fmt: skip
        file = None if self.given.workflow == "none" else workflow_file(self.given, found.root)
        files = {self.root / path: content for path, content in render.files(result).items()}
        if file:
            files[file] = ("the workflow that deploys a tag", self.workflow(found))
        if not self.confirmed(files):
            print("Nothing was written.")
            return 1
        secrets.prepare()
        done = placing.place(self.root, files, self.given.force)
        saying.written(self.root, [*done, *self.write_private(secrets, private, public)])
        saying.lacking(lacks.lacks(found))
        print("\nStill to do:")
        for line in (*self.todo, *saying.to_do(self.root, result, file)):
            print(f"  - {line}")
        saying.next_commands(self.root, result, found, file)
        return 0

    def said(self) -> dict[str, str]:
        """What flags say of the app, by the name of the variable."""
        found = {}
        for name, (flag, _) in OVERRIDES.items():
            if value := getattr(self.given, name):
                try:
                    found[name] = answers.named(name, value)
                except Wrong as wrong:
                    raise Wrong(f"{flag}: {wrong}") from None
        return found

    def urls(self) -> dict[str, str]:
        given = self.given
        found = {}
        if given.database_url:
            schemes = ("postgres", "postgresql")
            found["database"] = answers.service(given.database_url, "--database-url", schemes)
        if given.redis_url:
            found["redis"] = answers.service(given.redis_url, "--redis-url", ("rediss", "redis"))
        return found

    def authority(self) -> str:
        if not self.given.database_ca:
            return ""
        path = Path(self.given.database_ca).expanduser()
        text = path.read_text() if path.is_file() else ""
        if "-----BEGIN CERTIFICATE-----" not in text:
            raise Wrong(f"--database-ca: {path} is no file with a certificate in PEM")
        return text

    def wants_redis(self, found: guess.Guess, urls: dict[str, str]) -> bool:
        uses = "app_celery_app" in found.values or bool({"redis", "django-redis", "celery"} & found.packages)
        if "database" in urls and uses and "redis" not in urls:
            raise Wrong("--redis-url is missing: the app uses Redis, and with --database-url no data is on the host")
        if "redis" in urls and "database" not in urls:
            raise Wrong("--database-url is missing: with --redis-url no data is on the host")
        return uses or "redis" in urls

    def fill(self, secrets: keeping.Secrets, urls: dict[str, str], made: list[str]) -> None:
        for name in made:
            secrets.add_of_app(name, keeping.password())
        for name, url in urls.items():
            if not secrets.add(f"{name}_url", url):
                self.todo.append(
                    f"{secrets.name}: {name}_url was there and stays; replace it if yours is another now (sops edit)"
                )
        if urls:
            return
        for name in ("postgres", "redis"):
            secrets.add(f"{name}_app_password", keeping.password())
        if not secrets.has("data_private_key"):
            authority, certificate, key = keeping.new_certificate("localhost")
            secrets.add("data_authority", authority)
            secrets.add("data_certificate", certificate)
            secrets.add("data_private_key", key)

    def deploy_key(self) -> tuple[str, str]:
        """The private half, where it is made now, and the public one."""
        if self.given.deploy_key:
            return "", answers.public_key(self.given.deploy_key, answers.key_pattern(self.root)).public
        path = self.keys / f"{self.environment}-deploy-key.pub"
        if path.is_file():
            return "", path.read_text().strip()
        return keeping.new_key(f"deploy-{self.environment}")

    def workflow(self, found: guess.Guess) -> str:
        repository = self.given.repository or workflow.repository(self.root)
        if repository and not workflow.REPOSITORY.fullmatch(repository):
            raise Wrong(f"--repository: {repository} is not owner/name as GitHub has it")
        return workflow.render(self.environment, repository, self.given.runner, found.path, found.values["app_name"])

    def confirmed(self, files: dict[Path, tuple[str, str]]) -> bool:
        if self.given.yes or not sys.stdin.isatty():
            return True
        print("\nThis will be written:")
        for path, (why, _) in files.items():
            print(f"  {placing.shown(self.root, path)}: {why}")
        return input("Write it? [Y/n] ").strip().lower() in ("", "y", "yes")

    def write_private(self, secrets: keeping.Secrets, private: str, public: str) -> Iterator[tuple[str, Path, str]]:
        yield from secrets.write()
        if private:
            path = self.keys / f"{self.environment}-deploy-key"
            keeping.write_private(path, private)
            path.with_name(path.name + ".pub").write_text(public + "\n")
            yield "written", path, "the key of what deploys, which git does not see"
