#!/usr/bin/env bash
# deploy.sh ARTIFACT: upload, then let host.sh do the rest.
set -euo pipefail
artifact=$1
here=$(dirname "$0")
name=$(basename "$artifact" .tar.gz)
ssh_options=(-F "$SSH_CONFIG" -o BatchMode=yes)

scp -q "${ssh_options[@]}" "$artifact" "$ADMIN@app1:/tmp/$name.tar.gz"
ssh "${ssh_options[@]}" "$ADMIN@app1" "sudo -n bash -s -- deploy $name" <"$here/host.sh"
