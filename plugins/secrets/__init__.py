"""Where secrets come from: one interface over sops, ansible-vault, AWS Secrets Manager and whatever Ansible looks up.

``factory.source`` makes a ``Source`` of the variable ``secrets_source``; ``memory`` keeps for a run what was read;
``asked.source`` does both for a plugin of Ansible.
"""
