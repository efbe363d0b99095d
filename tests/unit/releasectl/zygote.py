"""`python zygote.py SOCKET` starts programs in a Python that has imported Django already: each import costs a second.

Asked with a line of JSON (argv, cwd, env), it answers with the pid, then with all that the program says, and last with
the line `@exit <status>`.
"""

import json
import os
import runpy
import socket
import sys
import traceback
from pathlib import Path

import django.contrib.postgres.operations
import django.core.management.commands.migrate
import django.core.serializers.json
import django.db.backends.sqlite3.base
import django.forms.models
import django.urls  # noqa: F401


def program(connection: socket.socket, asked: dict[str, object]) -> None:
    """Become the program, as `python argv…` would."""
    for descriptor in (1, 2):
        os.dup2(connection.fileno(), descriptor)
    os.chdir(str(asked["cwd"]))
    os.environ.clear()
    os.environ.update(asked["env"])  # type: ignore[call-overload]
    sys.argv = list(asked["argv"])  # type: ignore[call-overload]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    print(os.getpid(), flush=True)
    status = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    os._exit(status)


def serve(connection: socket.socket) -> None:
    asked = json.loads(connection.makefile().readline())
    pid = os.fork()
    if pid == 0:
        program(connection, asked)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    connection.sendall(f"\n@exit {status}\n".encode())
    os._exit(0)


def main() -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen()
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        pid = os.fork()
        if pid == 0:
            listener.close()
            serve(connection)
        connection.close()


main()
