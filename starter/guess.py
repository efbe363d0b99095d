"""What a checkout of a Django app says about how it is built and run. Nothing of it is run or imported."""

from __future__ import annotations

import re
import subprocess
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from releasectl import guess as code
from starter import environment
from starter.answers import Wrong

LOCK = "requirements.lock"
# What a lock is made of.
SOURCES = (
    "requirements.in",
    "pyproject.toml",
    "requirements/production.txt",
    "requirements/prod.txt",
    "requirements.txt",
)
# What would be more than a word in a file of variables.
UNSAFE = re.compile(r"[^ -~]|[{}#]")
# The name of a release: with a dash and twelve digits of the commit at most 64 characters.
NAME_WORD = re.compile(r"[^a-z0-9-]+")


@dataclass
class Guess:
    """What was found: each value has a source, which is said."""

    root: Path  # where manage.py is
    repository: Path | None  # where git is
    imports: Path  # from where its modules are imported: that, or what is above it
    packed: Path  # what a release is made of: the nearest directory that has all of it
    values: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    packages: set[str] = field(default_factory=set)
    locked: bool = False
    lists: Path = field(init=False)  # where its requirements are listed
    environment: environment.Environment = field(default_factory=environment.Environment)

    def __post_init__(self) -> None:
        self.lists = self.root

    def take(self, name: str, value: str, source: str) -> None:
        # It becomes text that Ansible reads, and the app's author is not who runs Ansible.
        if not UNSAFE.search(value):
            self.values[name], self.sources[name] = value, UNSAFE.sub("?", source)

    @property
    def path(self) -> str:
        """What is packed of its repository, empty for the whole of it."""
        if self.repository is None or self.packed == self.repository:
            return ""
        return str(self.packed.relative_to(self.repository))


def look(checkout: Path, given: dict[str, str]) -> Guess:
    """Look at a checkout; what was given by a flag is not guessed."""
    root = project(checkout)
    guess = Guess(root, repository_of(root), root, root)
    sources = code.python(root)
    _name(guess)
    _found(guess, "app_django_settings_module", code.settings(root, sources))
    for name, value in given.items():
        guess.take(name, value, "as you said")
    _places(guess, given)
    above = guess.imports != root
    guess.environment = environment.read(guess.imports, guess.values.get("app_django_settings_module", ""))
    if not given.get("app_wsgi"):
        _wsgi(guess, code.application(root, sources, "wsgi", above))
    _requirements(guess, given)
    if not given.get("app_celery_app"):
        _found(guess, "app_celery_app", code.celery(root, sources, above))
    _python_version(guess)
    _health(guess, sources, given)
    return guess


def project(checkout: Path) -> Path:
    """The directory that manage.py is in: the checkout or one below it."""
    checkout = checkout.expanduser().resolve()
    if not checkout.is_dir():
        raise Wrong(f"There is no directory {checkout}: give the path of your app's checkout")
    found = code.projects(checkout)
    if not found:
        raise Wrong(f"{checkout} has no manage.py, so it is no Django project: give the directory that has it")
    if len(found) > 1:
        places = ", ".join(str(path.relative_to(checkout)) for path in found)
        raise Wrong(f"{checkout} has more than one manage.py ({places}): give the directory of the one that you mean")
    return found[0]


def repository_of(root: Path) -> Path | None:
    done = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=False
    )
    return Path(done.stdout.strip()).resolve() if done.returncode == 0 else None


def _found(guess: Guess, name: str, found: code.Found | None) -> None:
    if found:
        guess.take(name, found.value, found.source)


def _name(guess: Guess) -> None:
    project_file = guess.root / "pyproject.toml"
    name, source = (guess.repository or guess.root).name, "the directory's name"
    if project_file.is_file():
        named = _toml(project_file).get("project", {}).get("name")
        if isinstance(named, str):
            name, source = named, "pyproject.toml"
    name = NAME_WORD.sub("-", name.lower()).strip("-")[:51] or "app"
    guess.take("app_name", name, source)


def _toml(path: Path) -> dict[str, dict[str, object]]:
    try:
        return tomllib.loads(path.read_text(errors="replace"))
    except tomllib.TOMLDecodeError:
        return {}


def _places(guess: Guess, given: dict[str, str]) -> None:
    """What else than manage.py's directory belongs to it: what it imports from above, what says there what it needs."""
    root, repository = guess.root, guess.repository
    if repository is None or root == repository:
        return
    seen = code.python_path(root, repository, guess.values.get("app_django_settings_module", ""))
    if seen and seen.value == "..":
        guess.imports = guess.packed = root.parent
    wanted = [given["app_requirements"]] if given.get("app_requirements") else [*code.LOCKS, *code.LISTS]
    above = [place for place in root.parents if place.is_relative_to(repository)]
    holds = next((place for place in (root, *above) if any(code.lists(place / name) for name in wanted)), root)
    guess.packed = min(guess.packed, holds, key=lambda place: len(place.parts))
    if guess.packed != root:
        guess.take("app_directory", str(root.relative_to(guess.packed)), "manage.py is there")


def _wsgi(guess: Guess, found: code.Found | None) -> None:
    place, text = guess.environment.assigned.get("WSGI_APPLICATION", ("", None))
    if text and "." in text:
        module, _, attribute = text.rpartition(".")
        guess.take("app_wsgi", f"{module}:{attribute}", f"WSGI_APPLICATION in {place}")
        return
    _found(guess, "app_wsgi", found)


def _requirements(guess: Guess, given: dict[str, str]) -> None:
    """As a host finds them, and what is among them."""
    name = given.get("app_requirements", "")
    found = code.Found(name, "as you said") if name else code.requirements(guess.root, guess.packed)
    listed = []
    if found:
        path = guess.packed / found.value
        guess.lists = path.parent.parent if path.parent.name == "requirements" else path.parent
        guess.locked = path.is_file() and (path.name == "uv.lock" or code.hashed(path.read_text(errors="replace")))
        listed = [path]
    if not guess.locked:
        listed += [guess.lists / source for source in SOURCES]
    for path in listed:
        if path.is_file():
            guess.packages |= _packages(path)
    if found and guess.locked:
        _found(guess, "app_requirements", found)
    elif not name:
        # What the command that is said will make.
        guess.take("app_requirements", str((guess.lists / LOCK).relative_to(guess.packed)), "to be made")


def _packages(path: Path) -> set[str]:
    text = path.read_text(errors="replace")
    if path.name == "uv.lock":
        return set(re.findall(r'^name = "([^"]+)"$', text, re.MULTILINE))
    if path.name == "pyproject.toml":
        listed = _toml(path).get("project", {}).get("dependencies")
        text = "\n".join(str(entry) for entry in listed) if isinstance(listed, list) else ""
    names = re.findall(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)", text, re.MULTILINE)
    return {re.sub(r"[._-]+", "-", name).lower() for name in names}


def _python_version(guess: Guess) -> None:
    version_file, project_file = guess.root / ".python-version", guess.root / "pyproject.toml"
    if version_file.is_file() and (match := re.search(r"\d+\.\d+", version_file.read_text(errors="replace"))):
        guess.take("python", f"=={match[0]}.*", ".python-version")
    if project_file.is_file():
        wanted = _toml(project_file).get("project", {}).get("requires-python")
        if isinstance(wanted, str):
            guess.take("python", wanted, "pyproject.toml")


def _health(guess: Guess, sources: dict[Path, str], given: dict[str, str]) -> None:
    for name, order in (("app_health_path", code.READY), ("app_liveness_path", code.ALIVE)):
        if not given.get(name):
            _found(guess, name, code.health(guess.root, sources, order))
    if "app_health_path" in guess.values and "app_liveness_path" not in guess.values:
        guess.take("app_liveness_path", guess.values["app_health_path"], "the same as app_health_path")
