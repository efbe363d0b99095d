# frozen_string_literal: true

# Given in full: Capistrano's ssh, written in Ruby, does not read all that OpenSSH's configuration may hold.
server ENV.fetch('ADDRESS'), user: ENV.fetch('ADMIN'), port: ENV.fetch('PORT'), roles: %w[app], ssh_options: {
  config: false, keys: [ENV.fetch('KEY')], keys_only: true, auth_methods: %w[publickey], forward_agent: false,
  host_key_alias: ENV.fetch('HOST'), user_known_hosts_file: [ENV.fetch('KNOWN_HOSTS')], verify_host_key: :always
}
