#!/usr/bin/env bash
# capistrano.sh deploy ARTIFACT | rollback: the same steps by Capistrano, as a project that has a Capfile would run it.
set -euo pipefail
verb=$1
if [[ $verb == deploy ]]; then
  ARTIFACT=$(realpath "$2")
  export ARTIFACT
fi
cd "$(dirname "$0")/capistrano"
case $verb in
  deploy) exec cap bench deploy ;;
  rollback) exec cap bench deploy:rollback ;;
  *) echo "capistrano.sh does not know $verb" >&2; exit 2 ;;
esac
