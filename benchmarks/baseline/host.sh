#!/usr/bin/env bash
# What a baseline does on the host, as root: bash -s -- prepare | deploy NAME | rollback NAME | site | remove
# BASELINE names it: the script's own, or Capistrano's beside it.
set -euo pipefail
name=${BASELINE:-baseline}
root=/opt/$name
unit=/etc/systemd/system/$name.service
export UV_CACHE_DIR=/var/cache/$name-uv UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
export UV_SYSTEM_CERTS=1 # as a build of Slipway does: a host behind a proxy trusts what its owner said

prepare() {
  mkdir -p "$root/releases" "$UV_CACHE_DIR"
  # Who deploys by Capistrano has sudo, and builds as itself.
  if [[ -n ${OWNER:-} ]]; then chown -R "$OWNER" "$root" "$UV_CACHE_DIR"; fi
  # The app's settings, as its own units get them: from the files, quoted for systemd and for the shell alike.
  (
    umask 077
    for file in /etc/app/env/*; do
      value=$(<"$file")
      printf "%s='%s'\n" "$(basename "$file")" "${value//\'/\'\\\'\'}"
    done >"$root/environment"
  )
  cat >"$unit" <<UNIT
[Unit]
Description=A baseline of the bench ($name): one gunicorn, restarted for each release

[Service]
Type=notify
User=app
EnvironmentFile=$root/environment
Environment=DJANGO_SETTINGS_MODULE=config.settings PYTHONDONTWRITEBYTECODE=1 RELEASE_ID=baseline
RuntimeDirectory=$name
WorkingDirectory=$root/current/src
ExecStart=$root/current/venv/bin/gunicorn --bind unix:/run/$name/gunicorn.sock --worker-class gthread \
 --workers 4 --threads 2 --graceful-timeout 60 config.wsgi:application
UNIT
  systemctl daemon-reload
}

switch() {
  ln -sfn "$root/releases/$1" "$root/current"
  systemctl restart "$name.service"
  for _ in $(seq 100); do
    if curl -fsS -o /dev/null --max-time 5 --unix-socket "/run/$name/gunicorn.sock" \
      -H "Host: ${domain:-bookshop.localhost}" -H 'X-Forwarded-Proto: https' http://app/readyz 2>/dev/null; then
      return
    fi
    sleep 0.1
  done
  echo "$name's /readyz never answered" >&2
  return 1
}

deploy() {
  local release=$root/releases/$1
  rm -rf "$release"
  mkdir -p "$release/src"
  tar -xzf "/tmp/$1.tar.gz" -C "$release/src"
  rm "/tmp/$1.tar.gz"
  uv venv --quiet --python 3.11 "$release/venv"
  uv pip sync --quiet --require-hashes --python "$release/venv/bin/python" "$release/src/requirements.lock"
  cd "$release/src"
  set -a
  # shellcheck source=/dev/null
  . "$root/environment"
  set +a
  export STATIC_ROOT=$release/static DJANGO_SETTINGS_MODULE=config.settings
  "$release/venv/bin/python" manage.py collectstatic --noinput --verbosity 0
  "$release/venv/bin/python" manage.py migrate --noinput --verbosity 0
  chmod -R a+rX "$release"
  switch "$1"
}

site() {
  # Whatever was installed by hand is asked for again, as `apt-get install <list>` in a script would.
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y $(apt-mark showmanual) >/dev/null
  for service in nginx postgresql redis-server chrony; do
    systemctl cat "$service" >/dev/null 2>&1 || continue
    systemctl enable --quiet "$service"
    systemctl is-active --quiet "$service" || systemctl start "$service"
  done
}

remove() {
  if [[ -e $unit ]]; then
    systemctl stop "$name.service"
    rm -f "$unit"
    systemctl daemon-reload
  fi
  rm -rf "$root" "$UV_CACHE_DIR"
}

case $1 in
  prepare | site | remove) "$1" ;;
  deploy) deploy "$2" ;;
  rollback) switch "$2" ;;
  *) echo "host.sh does not know $1" >&2; exit 2 ;;
esac
