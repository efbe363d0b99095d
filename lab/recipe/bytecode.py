"""Keeps what Ansible's modules compile to: each comes to a host as source in an archive, over and over.

Part of the lab's image only, as is dpkg without its syncs: a third of a module's time is compiling what the one before
it compiled as well. It is for root alone, who never runs what another compiled, and gone with the next boot.
"""

import _imp
import marshal
import os
import sys
import zipimport

# Imported at every start of Python, so it imports nothing that is not there already: no pathlib, no typing.
# ruff: noqa: PTH102, PTH104, PTH112, PTH123
compile_source = zipimport._compile_source  # type: ignore[attr-defined]


def place() -> str:
    """Give the directory that code is kept in, or "" where it is not."""
    if os.geteuid():
        return ""
    directory = "/tmp/lab-bytecode"  # noqa: S108
    try:
        if not os.path.isdir(directory):
            os.mkdir(directory, 0o700)
        found = os.lstat(directory)
    except OSError:
        return ""
    private = found.st_uid == 0 and found.st_mode & 0o170077 == 0o040000
    return directory if private else ""


def compile_or_recall(pathname: str, source: bytes) -> object:
    """As zipimport's own, from what was kept where it can be."""
    global directory
    if directory is None:
        directory = place()
    if not directory:
        return compile_source(pathname, source)
    path = f"{directory}/{sys.implementation.cache_tag}-{_imp.source_hash(0, source).hex()}"
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
