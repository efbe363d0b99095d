# frozen_string_literal: true

# The steps of host.sh, in Capistrano's order. ROOT, UNIT and CACHE are those that `host.sh prepare` made.
lock '~> 3.17'

set :application, 'baseline'
set :deploy_to, ENV.fetch('ROOT')
set :artifact, ENV.fetch('ARTIFACT', '')
set :keep_releases, 5
set :format, :simpletext
set :log_level, :info
set :default_env, {
  'UV_CACHE_DIR' => ENV.fetch('CACHE'), 'UV_LINK_MODE' => 'copy', 'UV_COMPILE_BYTECODE' => '1',
  'UV_SYSTEM_CERTS' => '1'
}

namespace :app do
  task :build do
    on roles(:app) do
      python = "#{release_path}/venv/bin/python"
      execute :uv, 'venv', '--quiet', '--python', '3.11', "#{release_path}/venv"
      execute :uv, 'pip', 'sync', '--quiet', '--require-hashes', '--python', python,
              "#{release_path}/src/requirements.lock"
      # As root, as host.sh does: the settings are root's.
      manage = "cd #{release_path}/src && set -a && . #{fetch(:deploy_to)}/environment && set +a && " \
               "export STATIC_ROOT=#{release_path}/static DJANGO_SETTINGS_MODULE=config.settings && "
      execute :sudo, '-n', 'sh', '-c', "'#{manage} #{python} manage.py collectstatic --noinput --verbosity 0'"
      execute :sudo, '-n', 'sh', '-c', "'#{manage} #{python} manage.py migrate --noinput --verbosity 0'"
      # What root made is Capistrano's to remove, and the app's to read.
      execute :sudo, '-n', 'chown', '-R', ENV.fetch('ADMIN'), release_path
      execute :chmod, '-R', 'a+rX', release_path
    end
  end

  task :restart do
    on roles(:app) do
      execute :sudo, '-n', 'systemctl', 'restart', ENV.fetch('UNIT')
      ask = "sudo -n curl -fsS -o /dev/null --max-time 5 --unix-socket /run/#{ENV.fetch('UNIT')}/gunicorn.sock " \
            "-H 'Host: #{ENV.fetch('DOMAIN')}' -H 'X-Forwarded-Proto: https' http://app/readyz"
      execute "for _ in $(seq 100); do #{ask} 2>/dev/null && exit 0; sleep 0.1; done; exit 1"
    end
  end
end

after 'deploy:updated', 'app:build'
after 'deploy:publishing', 'app:restart'
