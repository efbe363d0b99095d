"""What keeps clear text out of git: `bin/no-secrets`, called by the pre-commit hook, by `bin/check` and by CI.

``kinds`` finds by its looks what is secret, ``encrypted`` what ought to be encrypted and is not, ``allowed`` reads
`.no-secrets.yml`, which says what is no secret and why, ``contents`` asks git for files.
"""
