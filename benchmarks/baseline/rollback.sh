#!/usr/bin/env bash
# rollback.sh ID: relink and restart.
set -euo pipefail
here=$(dirname "$0")
ssh -F "$SSH_CONFIG" -o BatchMode=yes "$ADMIN@app1" "sudo -n bash -s -- rollback $1" <"$here/host.sh"
