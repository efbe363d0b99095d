"""Dumps the database behind the app's default connection to standard output, or restores one from standard input. Runs
in the app's own Python as the app's user. PostgreSQL's own programs get the password by their environment, so that no
process list shows it.

    python slipway_database.py '{"mode": "dump" | "restore", "database": null | "other", "image": false | true}'

What it refuses it says in one line on standard error that begins with MARK.
"""

from __future__ import annotations

import json
import os
import sys

MARK = "@slipway "
# Of libpq's parameters, as Django's OPTIONS has them, those that say how to connect.
PARAMETERS = {
    "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT", "sslcert": "PGSSLCERT", "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL", "service": "PGSERVICE", "passfile": "PGPASSFILE", "channel_binding": "PGCHANNELBINDING",
    "target_session_attrs": "PGTARGETSESSIONATTRS", "gssencmode": "PGGSSENCMODE", "krbsrvname": "PGKRBSRVNAME",
}  # fmt: skip
# What is in a database that somebody made: nothing of the system's, and nothing that an extension brought.
THERE = """
SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND n.nspname !~ '^pg_(toast|temp)'
  AND NOT EXISTS (
    SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
  )
ORDER BY 1
"""


class Refused(Exception):
    """Nothing was done."""


def environment(settings):
    """How libpq reaches that database."""
    found = {"PGAPPNAME": "slipway"}
    for key, name in (("NAME", "PGDATABASE"), ("USER", "PGUSER"), ("PASSWORD", "PGPASSWORD"), ("HOST", "PGHOST"),
                      ("PORT", "PGPORT")):  # fmt: skip
        if settings.get(key):
            found[name] = str(settings[key])
    for key, value in settings.get("OPTIONS", {}).items():
        if key in PARAMETERS and value is not None:
            found[PARAMETERS[key]] = str(value)
    return found


def must_be_empty(connection):
    with connection.cursor() as cursor:
        cursor.execute(THERE)
        there = [row[0] for row in cursor.fetchall()]
    if there:
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        name = connection.settings_dict["NAME"]
        raise Refused(f"the database {name} is not empty: it has {', '.join(there[:3])}{more}")


def main(argument):
    asked = json.loads(argument)
    # Modules are found as `python manage.py` finds them.
    sys.path[0] = os.getcwd()
    try:
        import django
        from django.db import connection
    except ImportError:
        raise Refused("the release has no Django, by which its database would be found") from None
    django.setup()
    if connection.vendor != "postgresql":
        raise Refused(f"its database is {connection.vendor}, and restore points are of PostgreSQL")
    if asked["database"]:
        connection.close()
        connection.settings_dict["NAME"] = asked["database"]
    if asked["mode"] == "dump":
        command = ["pg_dump", "--format=custom", "--no-password"]
    else:
        must_be_empty(connection)
        command = [
            "pg_restore",
            "--no-owner",
            "--no-privileges",
            "--exit-on-error",
            "--single-transaction",
            "--no-password",
        ]
    words = environment(connection.settings_dict)
    connection.close()
    if asked["mode"] == "restore":
        command.append(f"--dbname={words['PGDATABASE']}")
    own = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    try:
        os.execvpe(command[0], command, {**own, **words})  # noqa: S606
    except FileNotFoundError:
        where, hint = "on this host", "set release_restore_point_target and run site.yml"
        if asked.get("image"):
            where, hint = "in the image", "install PostgreSQL's client into it, or set release_restore_point: never"
        raise Refused(f"there is no {command[0]} {where}: {hint}") from None


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except Refused as refused:
        print(f"{MARK}{refused}", file=sys.stderr)
        sys.exit(3)
