"""plugins/action/install_files.py, by playbooks run on this machine: what an author writes, and what comes of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).resolve().parents[2]
ANSIBLE_PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")


class Play:
    """A playbook of one task, in a directory of its own with templates and files beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "templates").mkdir()
        (directory / "files").mkdir()
        self.target = directory / "target"
        self.target.mkdir()

    def run(self, arguments: str, *options: str) -> tuple[int, str]:
        return self.run_each([arguments], *options)

    def run_each(self, cases: list[str], *options: str) -> tuple[int, str]:
        """Run a playbook in which each case is a task of its own, on a host of its own that is this machine."""
        own = f"owner: '{os.geteuid()}', group: '{os.getegid()}'"
        text = (
            "- hosts: all\n  gather_facts: false\n  connection: local\n  vars:\n"
            "    who: world\n    canary: canary-5b7e\n    ansible_managed: 'From {{ template_path }}.'\n  tasks:\n"
        )
        for number, arguments in enumerate(cases):
            task = dedent(arguments).replace("OWN", own).replace("TARGET", str(self.target))
            text += f"    - when: inventory_hostname == 'case{number}'\n      install_files:\n"
            text += "".join(f"        {line}\n" for line in task.strip().splitlines())
        playbook = self.directory / "play.yml"
        playbook.write_text(text)
        hosts = "".join(f"case{number}," for number in range(len(cases)))
        done = subprocess.run(
            [ANSIBLE_PLAYBOOK, "-i", hosts, "-e", f"ansible_python_interpreter={sys.executable}", *options, playbook],
            cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def play(tmp_path: Path) -> Play:
    return Play(tmp_path)


def test_a_set_of_every_kind_in_one_task(play: Play) -> None:
    (play.directory / "templates/t.j2").write_text(
        "{{ ansible_managed | comment }}\nhello {{ who }} {{ extra }}\n"
        "{% include 'part.j2' %}\n{% if true %}\nend\n{% endif %}\n"
    )
    (play.directory / "templates/part.j2").write_text("part of {{ who }}\n\n")
    (play.directory / "files/plain").write_bytes(b"{{ not a template }}\x00")
    (play.directory / "files/tree/sub").mkdir(parents=True)
    (play.directory / "files/tree/sub/m.py").write_text("pass\n")
    (play.directory / "files/tree/__pycache__").mkdir()
    (play.directory / "files/tree/__pycache__/m.pyc").write_text("")
    (play.target / "tree").mkdir()
    (play.target / "tree/stale").write_text("")
    arguments = """
        directories: [{path: TARGET/d, mode: "0700", OWN}]
        files:
          - {template: t.j2, dest: TARGET/d/t, vars: {extra: again}, OWN}
          - {src: plain, dest: TARGET/plain, mode: "0600", OWN}
          - {content: "{{ canary }}\\n", dest: TARGET/secret, mode: "0400", sensitive: true, OWN}
        links: [{path: TARGET/l, target: d/t}]
        trees: [{src: tree/, dest: TARGET/tree, purge: true, OWN}]
        """
    code, output = play.run(arguments, "--diff", "-vvv")
    assert code == 0, output
    rendered = (play.target / "l").read_text().splitlines()
    assert rendered[-3:] == ["hello world again", "part of world", "end"]
    assert rendered[1].startswith("# From ")
    assert (play.target / "plain").read_bytes() == b"{{ not a template }}\x00"
    assert (play.target / "secret").read_text() == "canary-5b7e\n"
    assert "canary-5b7e" not in output
    assert "hello world again" in output
    assert sorted(str(path.relative_to(play.target)) for path in (play.target / "tree").rglob("*")) == [
        "tree/sub",
        "tree/sub/m.py",
    ]
    code, output = play.run(arguments, "--check", "--diff")
    assert "changed=0" in output


WRONG = (
    ("files: [{dest: TARGET/f, content: x, modes: x}]", "modes"),
    ("files: [{dest: TARGET/f}]", "one of the following is required: template, src, content"),
    ("files: [{dest: TARGET/f, content: x, src: y}]", "mutually exclusive"),
    ("files: [{dest: TARGET/f, content: x, mode: 0644}]", "in quotes"),
    ("files: [{dest: TARGET/f, content: x}, {dest: TARGET/f, content: y}]", "is named twice"),
    ("files: [{dest: TARGET/f, template: none.j2}]", "none.j2"),
    ("files: [{dest: TARGET/f, content: x, validate: 'sh -c \"echo no; false %s\"', OWN}]", "refuses"),
    ("payload: x", "payload"),
)


def test_a_wrong_task_fails_with_the_reason(play: Play) -> None:
    # One playbook for all of them, each as a host of its own that fails at its own task: Ansible is slow to start.
    code, output = play.run_each([arguments for arguments, _ in WRONG])
    assert code != 0
    for number, (_, sentence) in enumerate(WRONG):
        failure = output.split(f"fatal: [case{number}]", 1)[1].split("fatal:", 1)[0]
        # Long lines are folded.
        assert sentence in " ".join(failure.split())
    assert list(play.target.iterdir()) == []
