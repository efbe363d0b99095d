"""What a checkout of a Django app says about how it is built and run. Nothing of it is run or imported."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from starter import environment
from starter.answers import Wrong

IGNORED = {"node_modules", "__pycache__", "migrations", "tests", "test", "site-packages", "build", "dist", "docs"}
LOCKS = ("requirements.lock", "requirements.txt", "requirements/production.txt", "requirements/prod.txt")
SOURCES = (
    "requirements.in",
    "pyproject.toml",
    "requirements/production.txt",
    "requirements/prod.txt",
    "requirements.txt",
)
SETTINGS = re.compile(r"""DJANGO_SETTINGS_MODULE['"]\s*[,\]]\s*(?:=\s*)?['"]([A-Za-z_][\w.]*)['"]""")
CELERY = re.compile(r"^(\w+)\s*(?::\s*\w+\s*)?=\s*(?:celery\.)?Celery\(", re.MULTILINE)
# A path of its own that is about health, as urls.py or a middleware write it; the first of these is the best guess.
READY = ("readyz", "ready", "readiness", "health/ready", "healthz", "health", "healthcheck", "health-check",
         "health_check", "ht", "status", "ping", "up")  # fmt: skip
ALIVE = ("healthz", "livez", "live", "liveness", "health/live", "alive", "ping", "up")
# What would be more than a word in a file of variables.
UNSAFE = re.compile(r"[^ -~]|[{}#]")
# The name of a release: with a dash and twelve digits of the commit at most 64 characters.
NAME_WORD = re.compile(r"[^a-z0-9-]+")


@dataclass
class Guess:
    """What was found: each value has a source, which is said."""

    root: Path  # where manage.py is
    repository: Path | None  # where git is
    values: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    packages: set[str] = field(default_factory=set)
    locked: bool = False
    names_release: bool = False
    environment: environment.Environment = field(default_factory=environment.Environment)

    def take(self, name: str, value: str, source: str) -> None:
        # It becomes text that Ansible reads, and the app's author is not who runs Ansible.
        if not UNSAFE.search(value):
            self.values[name], self.sources[name] = value, UNSAFE.sub("?", source)

    @property
    def path(self) -> str:
        """The app's directory in its repository, empty for the whole of it."""
        if self.repository is None or self.root == self.repository:
            return ""
        return str(self.root.relative_to(self.repository))


def look(checkout: Path, given: dict[str, str]) -> Guess:
    """Look at a checkout; what was given by a flag is not guessed."""
    root = project(checkout)
    guess = Guess(root, repository_of(root))
    sources = {path: path.read_text(errors="replace") for path in _python(root)}
    _name(guess)
    _settings(guess, sources)
    for name, value in given.items():
        if value:
            guess.take(name, value, "as you said")
    guess.environment = environment.read(root, guess.values.get("app_django_settings_module", ""))
    _wsgi(guess, sources, given)
    _requirements(guess, given)
    _celery(guess, sources, given)
    _python_version(guess)
    _health(guess, sources, given)
    guess.names_release = any("x-release" in text.lower() for text in sources.values())
    return guess


def project(checkout: Path) -> Path:
    """The directory that manage.py is in: the checkout or one below it."""
    checkout = checkout.expanduser().resolve()
    if not checkout.is_dir():
        raise Wrong(f"There is no directory {checkout}: give the path of your app's checkout")
    if (checkout / "manage.py").is_file():
        return checkout
    found = [
        path.parent
        for pattern in ("*/manage.py", "*/*/manage.py")
        for path in sorted(checkout.glob(pattern))
        if not IGNORED & set(path.relative_to(checkout).parts) and not path.parent.name.startswith(".")
    ]
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


def _python(root: Path) -> Iterator[Path]:
    for directory, names, files in os.walk(root):
        here = Path(directory)
        names[:] = sorted(
            name
            for name in names
            if name not in IGNORED and not name.startswith(".") and not (here / name / "pyvenv.cfg").is_file()
        )
        yield from (here / name for name in sorted(files) if name.endswith(".py"))


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


def _settings(guess: Guess, sources: dict[Path, str]) -> None:
    """wsgi.py says what a server runs with; manage.py often what its author's machine does."""
    manage = guess.root / "manage.py"
    candidates = [path for path in sources if path.name in ("wsgi.py", "asgi.py")] + [manage]
    for path in candidates:
        match = SETTINGS.search(sources.get(path) or path.read_text(errors="replace"))
        if match:
            guess.take("app_django_settings_module", match[1], f"from {path.relative_to(guess.root)}")
            return


def _wsgi(guess: Guess, sources: dict[Path, str], given: dict[str, str]) -> None:
    if given.get("app_wsgi"):
        return
    place, text = guess.environment.assigned.get("WSGI_APPLICATION", ("", None))
    if text and "." in text:
        module, _, attribute = text.rpartition(".")
        guess.take("app_wsgi", f"{module}:{attribute}", f"WSGI_APPLICATION in {place}")
        return
    for path, source in sources.items():
        if path.name == "wsgi.py" and re.search(r"^application\s*=", source, re.MULTILINE):
            guess.take("app_wsgi", f"{_module(guess.root, path)}:application", f"from {path.relative_to(guess.root)}")
            return


def _module(root: Path, path: Path) -> str:
    parts = list(path.relative_to(root).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _requirements(guess: Guess, given: dict[str, str]) -> None:
    names = [given["app_requirements"]] if given.get("app_requirements") else list(LOCKS)
    present = [name for name in names if (guess.root / name).is_file()]
    locked = [name for name in present if _hashed((guess.root / name).read_text(errors="replace"))]
    guess.locked = bool(locked)
    chosen = (locked or present or [names[0]])[0]
    if not locked and not given.get("app_requirements"):
        # What the command that is said will make.
        guess.take("app_requirements", "requirements.lock", "to be made")
    elif not given.get("app_requirements"):
        guess.take("app_requirements", chosen, "locked with hashes")
    declared = [guess.root / name for name in ((chosen,) if locked else (*LOCKS, "requirements.in", "pyproject.toml"))]
    for path in declared:
        if path.is_file():
            guess.packages |= _packages(path)


def _packages(path: Path) -> set[str]:
    text = path.read_text(errors="replace")
    if path.name == "pyproject.toml":
        listed = _toml(path).get("project", {}).get("dependencies")
        text = "\n".join(str(entry) for entry in listed) if isinstance(listed, list) else ""
    names = re.findall(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)", text, re.MULTILINE)
    return {re.sub(r"[._-]+", "-", name).lower() for name in names}


def _hashed(text: str) -> bool:
    """Whether each requirement has a hash: pip and uv refuse a file where one has and another has not."""
    logical = re.sub(r"\\\n", " ", text).splitlines()
    entries = [line for line in logical if re.match(r"\s*[A-Za-z0-9]", line)]
    return bool(entries) and all("--hash=sha256:" in entry for entry in entries)


def _celery(guess: Guess, sources: dict[Path, str], given: dict[str, str]) -> None:
    if given.get("app_celery_app"):
        return
    for path, text in sources.items():
        match = CELERY.search(text)
        if match:
            module = _module(guess.root, path)
            # `celery --app shop` finds the one in shop/celery.py by itself.
            short = path.name == "celery.py" and match[1] in ("app", "celery") and path.parent != guess.root
            name = module.rpartition(".")[0] if short else f"{module}:{match[1]}"
            guess.take("app_celery_app", name, f"from {path.relative_to(guess.root)}")
            return


def _python_version(guess: Guess) -> None:
    version_file, project_file = guess.root / ".python-version", guess.root / "pyproject.toml"
    if version_file.is_file() and (match := re.search(r"\d+\.\d+", version_file.read_text(errors="replace"))):
        guess.take("python", f"=={match[0]}.*", ".python-version")
    if project_file.is_file():
        wanted = _toml(project_file).get("project", {}).get("requires-python")
        if isinstance(wanted, str):
            guess.take("python", wanted, "pyproject.toml")


def _health(guess: Guess, sources: dict[Path, str], given: dict[str, str]) -> None:
    words = "|".join(sorted({*READY, *ALIVE}, key=len, reverse=True))
    pattern = re.compile(rf"""['"]\^?(/?(?:[\w-]+/)*(?:{words})/?)\$?['"]""")
    found: dict[str, tuple[str, str]] = {}
    for path, text in sources.items():
        if not re.search(r"urls?\.py$|middleware|health", str(path.relative_to(guess.root))):
            continue
        for match in pattern.finditer(text):
            place = f"{path.relative_to(guess.root)}:{text.count(chr(10), 0, match.start()) + 1}"
            target = "/" + match[1].strip("/") + ("/" if match[1].endswith("/") else "")
            found.setdefault(match[1].strip("/"), (target, place))
    for name, order in (("app_health_path", READY), ("app_liveness_path", ALIVE)):
        if given.get(name):
            continue
        for word in order:
            hits = [entry for key, entry in found.items() if key == word or key.endswith(f"/{word}")]
            if hits:
                guess.take(name, hits[0][0], f"from {hits[0][1]}")
                break
    if "app_health_path" in guess.values and "app_liveness_path" not in guess.values:
        guess.take("app_liveness_path", guess.values["app_health_path"], "the same as app_health_path")
