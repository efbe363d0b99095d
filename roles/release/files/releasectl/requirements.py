"""Installing what an app needs: by the hashes of a lock, and without them only when that was asked for."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from . import guess
from .config import Config
from .errors import Refusal
from .names import shorten

# What app_requirements_extra becomes, and what was installed in the end, in the release's directory.
EXTRA = "requirements.extra"
INSTALLED = "requirements.installed"
MADE = "requirements.exported"

SYNC = '"$uv" pip sync --quiet --require-hashes --python "$venv/bin/python"'
LISTED = '"$uv" pip install --quiet --python "$venv/bin/python"'


def kind(name: str, text: str) -> str:
    """``uv``, ``hashed`` or ``listed``, by a file's name and content; an empty lock has no line without a hash."""
    last = PurePosixPath(name).name
    if last == "uv.lock":
        return "uv"
    says = any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines())
    return "hashed" if last != "pyproject.toml" and (guess.hashed(text) or not says) else "listed"


def missing(name: str) -> str:
    """Why an artifact without the file, or without any, is refused."""
    return (
        f"The artifact has no {name or 'file of requirements'} at its top: lock the app's requirements with hashes"
        " (uv pip compile --generate-hashes) or set app_requirements."
    )


def unhashed(name: str) -> str:
    """Why one that only lists is refused, unless app_requirements_unhashed is set."""
    return (
        f"The requirements in {name} have no hashes, so another day or another host would install other code: lock"
        f" them (uv pip compile --generate-hashes {name} -o requirements.lock), or set app_requirements_unhashed:"
        " true to take what the index has at that moment."
    )


def check(config: Config, source: Path, name: str) -> str:
    """The kind of the release's requirements; refuse what would not be installed as it is meant."""
    path = source / name
    if not name or path.is_symlink() or not path.is_file():
        raise Refusal(missing(name))
    found = kind(name, path.read_text(errors="replace"))
    if found == "listed" and not config.requirements_unhashed:
        raise Refusal(unhashed(name))
    bare = [line for line in config.requirements_extra if "--hash=sha256:" not in line]
    if bare and found != "listed":
        raise Refusal(
            f"{name} has hashes and {shorten(bare[0])} of app_requirements_extra has none: append --hash=sha256:…, as"
            " 'uv pip compile --generate-hashes' writes it."
        )
    if config.requirements_optional and path.name not in ("uv.lock", "pyproject.toml"):
        raise Refusal(
            f"app_requirements_optional is for pyproject.toml and uv.lock, and {name} is neither: leave it empty."
        )
    return found


def command(config: Config, directory: Path, name: str, found: str, venv: Path) -> list[str]:
    """What makes the venv of requirements of the kind ``found``, to be run where nothing but ``venv`` and the cache can
    be written.
    """
    path = directory / "src" / name
    more = []
    if config.requirements_extra:
        extra = directory / EXTRA
        extra.write_text("".join(f"{line}\n" for line in config.requirements_extra))
        extra.chmod(0o644)
        more = [str(extra)]
    optional = [word for item in config.requirements_optional for word in ("--extra", item)]
    begin = 'set -e; uv=$1 venv=$3; "$uv" venv --quiet --allow-existing --python "$2" "$venv"; shift 3;'
    if found == "hashed":
        script, words = f'{begin} exec {SYNC} "$@"', [str(path), *more]
    elif found == "uv":
        export = (
            ' lock="$venv/' + MADE + '"; project=$1; shift; count=$1; shift; extras=;'
            ' while [ "$count" -gt 0 ]; do extras="$extras --extra $1"; shift; count=$((count - 1)); done;'
            ' "$uv" export --quiet --frozen --no-dev --no-emit-project --no-header --project "$project"'
            ' --python "$venv/bin/python" $extras -o "$lock" >/dev/null;'
        )
        words = [str(path.parent), str(len(config.requirements_optional)), *config.requirements_optional, *more]
        script = f'{begin}{export} exec {SYNC} "$lock" "$@"'
    else:
        script = f'{begin} exec {LISTED} "$@"'
        words = [*optional, "-r", str(path), *(word for item in more for word in ("-r", item))]
    return ["/bin/sh", "-c", script, "sh", str(config.uv), config.python_version, str(venv), *words]


def installed(directory: Path) -> list[str]:
    """What is in the venv, ``name==version`` each."""
    found = directory.glob("venv/lib/python3*/site-packages/*.dist-info")
    return sorted("==".join(path.name.removesuffix(".dist-info").rsplit("-", 1)) for path in found)


def note(directory: Path) -> int:
    """Keep what was installed beside the release's record; return how much that is."""
    names = installed(directory)
    path = directory / INSTALLED
    path.write_text("".join(f"{name}\n" for name in names))
    path.chmod(0o644)
    return len(names)
