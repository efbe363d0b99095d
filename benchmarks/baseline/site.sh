#!/usr/bin/env bash
# site.sh: on both hosts at once, the packages and the services that are there already.
set -euo pipefail
here=$(dirname "$0")
pids=()
for host in app1 data1; do
  ssh -F "$SSH_CONFIG" -o BatchMode=yes "$ADMIN@$host" "sudo -n bash -s -- site" <"$here/host.sh" &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid"; done
