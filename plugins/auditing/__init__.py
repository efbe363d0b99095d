"""What an audit looks for, what it found, and the page that says so: no Ansible in here."""
