"""The local hosts: containers that stand in for the servers that a provider would give."""
