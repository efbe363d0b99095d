"""Renders a set of files on the controller and hands it to the module of the same name in one piece."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import zlib
from functools import cache
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

ROOT = Path(__file__).resolve().parents[2]
MODULE = Path(__file__).resolve().parents[1] / "modules" / "install_files.py"


@cache
def argument_spec() -> dict[str, Any]:
    """The module's own, so that there is one."""
    spec = importlib.util.spec_from_file_location("install_files_module", MODULE)
    if spec is None or spec.loader is None:
        raise AnsibleError(f"{MODULE} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Any] = module.ARGUMENT_SPEC
    return found


def source_name(path: str) -> str:
    """A file's path in this repository: what ansible_managed names."""
    resolved = Path(path).resolve()
    return str(resolved.relative_to(ROOT)) if resolved.is_relative_to(ROOT) else resolved.name


def walk_tree(root: str) -> tuple[list[str], list[str]]:
    """The directories and files under a directory, by relative path, parents first."""
    directories, files = [], []
    for directory, names, leaves in os.walk(root):
        names[:] = sorted(name for name in names if name != "__pycache__")
        relative = Path(directory).relative_to(root)
        for name in (*names, *leaves):
            if (Path(directory) / name).is_symlink():
                raise AnsibleActionFail(
                    f"{Path(directory) / name} is a symlink: a tree holds files and directories only"
                )
        directories += [str(relative / name) for name in names]
        files += [str(relative / name) for name in sorted(leaves)]
    return directories, files


class ActionModule(ActionBase):
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        spec = {name: option for name, option in argument_spec().items() if name != "payload"}
        _, arguments = self.validate_argument_spec(argument_spec=spec)
        wanted: dict[str, Any] = {
            "directories": list(arguments["directories"]),
            "files": [self._render(file, variables) for file in arguments["files"]],
            "links": arguments["links"],
            "absent": arguments["absent"],
            "purges": [],
            "validate": arguments["validate"],
        }
        for tree in arguments["trees"]:
            self._add_tree(tree, wanted)
        self._refuse_twice(wanted)
        packed = base64.b64encode(zlib.compress(json.dumps(wanted).encode())).decode()
        result: dict[str, Any] = self._execute_module(
            module_name="install_files", module_args={"payload": packed}, task_vars=variables
        )
        return result

    def _render(self, file: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        if file["template"] is not None:
            content = self._render_template(file, variables)
        elif file["src"] is not None:
            content = Path(self._find("files", file["src"])).read_bytes()
        else:
            content = file["content"].encode()
        kept = ("dest", "owner", "group", "mode", "validate", "sensitive")
        return {**{key: file[key] for key in kept}, "content": base64.b64encode(content).decode()}

    def _render_template(self, file: dict[str, Any], variables: dict[str, Any]) -> bytes:
        path = self._find("templates", file["template"])
        template = trust_as_template(self._loader.get_text_file_contents(path))
        places = [*variables.get("ansible_search_path", []), self._loader.get_basedir(), os.path.dirname(path)]
        searchpath = [entry for place in places for entry in (os.path.join(place, "templates"), place)]
        available = {
            **variables,
            **(file["vars"] or {}),
            "template_path": source_name(path),
            "template_fullpath": path,
            "template_destpath": file["dest"],
        }
        templar = self._templar.copy_with_new_env(searchpath=searchpath, available_variables=available)
        try:
            text = templar.template(template, escape_backslashes=False, overrides={"trim_blocks": True})
        except AnsibleError as error:
            raise AnsibleActionFail(f"{source_name(path)} cannot be rendered: {error}") from error
        return ("" if text is None else str(text)).encode()

    def _add_tree(self, tree: dict[str, Any], wanted: dict[str, Any]) -> None:
        root = self._find("files", tree["src"].rstrip("/"))
        if not os.path.isdir(root):
            raise AnsibleActionFail(f"{source_name(root)} is not a directory: name it under files")
        dest = tree["dest"].rstrip("/")
        ownership = {"owner": tree["owner"], "group": tree["group"]}
        directories, files = walk_tree(root)
        for relative in ("", *directories):
            path = f"{dest}/{relative}".rstrip("/")
            wanted["directories"].append({"path": path, "mode": tree["directory_mode"], **ownership})
        for relative in files:
            content = (Path(root) / relative).read_bytes()
            wanted["files"].append(
                {
                    "dest": f"{dest}/{relative}",
                    "mode": tree["mode"],
                    "validate": None,
                    "sensitive": False,
                    "content": base64.b64encode(content).decode(),
                    **ownership,
                }
            )
        if tree["purge"]:
            wanted["purges"].append({"path": dest, "keep": directories + files})

    def _find(self, kind: str, name: str) -> str:
        try:
            found: str = self._find_needle(kind, name)
        except AnsibleError as error:
            raise AnsibleActionFail(str(error)) from error
        return found

    def _refuse_twice(self, wanted: dict[str, Any]) -> None:
        """Two entries for one path would take turns, and change something in every run."""
        paths = [
            *(entry["path"] for entry in wanted["directories"]),
            *(entry["dest"] for entry in wanted["files"]),
            *(entry["path"] for entry in wanted["links"]),
            *wanted["absent"],
        ]
        seen: set[str] = set()
        for path in (path.rstrip("/") for path in paths):
            if path in seen:
                raise AnsibleActionFail(f"{path} is named twice")
            seen.add(path)
