"""Keeps what Ansible's modules compile to: each comes to a host as source in an archive, over and over.

Part of the lab's image only, as is dpkg without its syncs: half of a module's time is compiling what the one before it
compiled as well. What is kept lies in the home of who runs it, so nobody runs what another compiled.
"""

import _imp
import marshal
import os
import sys
import zipimport

# Imported at every start of Python, so it imports nothing that is not there already: no pathlib, no typing.
# ruff: noqa: PTH103, PTH104, PTH123
compile_source = zipimport._compile_source  # type: ignore[attr-defined]


def place() -> str:
    """Give the directory of one's own that code is kept in, or "" where there is none."""
    home = os.environ.get("HOME", "")
    directory = f"{home}/.cache/lab-bytecode/{sys.implementation.cache_tag}"
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        found = os.lstat(directory)
    except OSError:
        return ""
    private = found.st_uid == os.geteuid() and not found.st_mode & 0o077
    return directory if home.startswith("/") and private else ""


def compile_or_recall(pathname: str, source: bytes) -> object:
    """As zipimport's own, from what was kept where it can be."""
    global directory
    if directory is None:
        directory = place()
    if not directory:
        return compile_source(pathname, source)
    path = f"{directory}/{_imp.source_hash(0, source).hex()}"
    try:
        with open(path, "rb") as file:
            code = marshal.loads(file.read())  # noqa: S302
    except (OSError, ValueError, EOFError, TypeError):
        code = compile_source(pathname, source)
        new = f"{path}.{os.getpid()}"
        try:
            with open(new, "wb") as file:
                file.write(marshal.dumps(code))
            os.rename(new, path)
        except OSError:
            return code
    else:
        _imp._fix_co_filename(code, pathname)  # type: ignore[attr-defined]
    return code


directory: "str | None" = None
zipimport._compile_source = compile_or_recall  # type: ignore[attr-defined]
