"""Files of secrets: each is encrypted, by sops or by Ansible Vault, or it is a finding."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

import yaml

from plugins.leaks.kinds import Finding

HEADER, TAG = "$ANSIBLE_VAULT;", "!vault"
NAMED = re.compile(r"\.(sops|vault)\.(ya?ml|json)$|^vault\.ya?ml$")
# What sops leaves as it is by default: names that end so, and what is empty.
LEFT = "_unencrypted"
# With one of these a file says itself which names are encrypted; sops signs that.
CHOSEN = {"encrypted_suffix", "encrypted_regex", "unencrypted_regex"}


def is_for_secrets(path: str) -> bool:
    """Whether everything in it is to be encrypted: it lies below secrets/, or its name says so."""
    given = PurePosixPath(path)
    return given.parts[0] == "secrets" or bool(NAMED.search(given.name))


def problems(path: str, text: str) -> Iterator[Finding]:
    """The first value in the clear of a file that is for secrets."""
    if not is_for_secrets(path) or text.startswith(HEADER):
        return
    try:
        top = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError:
        yield Finding(path, 1, "clear")
        return
    if top is None:
        return
    entries = dict(_entries(top))
    metadata = entries.get("sops")
    if isinstance(metadata, yaml.MappingNode) and any(name == "mac" for name, _ in _entries(metadata)):
        if not CHOSEN & {name for name, _ in _entries(metadata)}:
            for name, node in entries.items():
                if name != "sops":
                    yield from _first(path, node, name)
    # Ansible Vault, value by value: what is beside may be a certificate, and is looked at as any text.
    elif not any(_vaulted(node) for node in entries.values()):
        yield Finding(path, top.start_mark.line + 1, "clear")


def _entries(node: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        yield str(key.value), value


def _vaulted(node: yaml.Node) -> bool:
    if isinstance(node, yaml.MappingNode):
        return any(_vaulted(value) for _, value in node.value)
    if isinstance(node, yaml.SequenceNode):
        return any(_vaulted(value) for value in node.value)
    return node.tag == TAG and HEADER in str(node.value)


def _first(path: str, node: yaml.Node, name: str) -> Iterator[Finding]:
    """The first leaf that sops has not encrypted."""
    if name.endswith(LEFT):
        return
    if isinstance(node, yaml.ScalarNode):
        if node.value and node.tag != "tag:yaml.org,2002:null" and not node.value.startswith("ENC["):
            yield Finding(path, node.start_mark.line + 1, "clear")
        return
    inner = _entries(node) if isinstance(node, yaml.MappingNode) else ((name, one) for one in node.value)
    for key, value in inner:
        for one in _first(path, value, key):
            yield one
            return
