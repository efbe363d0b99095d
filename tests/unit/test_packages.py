"""plugins/action/packages.py: when a host need not run ansible.builtin.apt, by what dpkg itself says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plugins.action import packages as subject

ROOT = Path(__file__).resolve().parents[2]
ANSIBLE_PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
pytestmark = pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="there is no dpkg here to ask")


def stanza(name: str, status: str, architecture: str) -> str:
    return (
        f"Package: {name}\nStatus: {status}\nArchitecture: {architecture}\nVersion: 1\nMaintainer: x\nDescription: x\n"
    )


class Host:
    """What dpkg and apt keep of a host's packages, and what is said of it by the real dpkg-query."""

    def __init__(self, directory: Path) -> None:
        native = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True)
        self.foreign = "i386" if native.stdout.strip() != "i386" else "armhf"
        self.dpkg, self.apt = directory / "dpkg", directory / "apt"
        for path in (self.dpkg / "info", self.dpkg / "updates", self.apt / "lists", self.apt / "periodic"):
            path.mkdir(parents=True)
        known = {
            "tool": ("install ok installed", "all"),
            "c++": ("install ok installed", native.stdout.strip()),
            "held": ("hold ok installed", "all"),
            "lib": ("install ok installed", self.foreign),
            "broken": ("install reinstreq installed", "all"),
            "half": ("install ok half-configured", "all"),
            "unpacked": ("install ok unpacked", "all"),
            "left": ("deinstall ok config-files", "all"),
        }
        (self.dpkg / "status").write_text("\n".join(stanza(name, *rest) for name, rest in known.items()))

    def auto(self, text: str) -> None:
        (self.apt / "extended_states").write_text(text)

    def ask(self, *names: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", subject.question(list(names), str(self.apt))], capture_output=True, text=True, check=False,
            env={**os.environ, "DPKG_ADMINDIR": str(self.dpkg)},
        )  # fmt: skip

    def well(self, *names: str, wanted: str = "present", valid: int | None = None) -> bool:
        said = self.ask(*names)
        assert (said.returncode, said.stderr) == (0, "")
        return subject.all_is_well(said.stdout, list(names), wanted, valid)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_packages_that_are_there_are_well(host: Host) -> None:
    assert host.well("tool", "c++", "held")
    assert host.well()


@pytest.mark.parametrize("name", ["none", "lib", "broken", "half", "unpacked", "left"])
def test_one_that_is_not_wholly_there_is_for_apt(host: Host, name: str) -> None:
    assert not host.well("tool", name)


def test_what_is_gone_is_well_and_its_configuration_may_stay(host: Host) -> None:
    assert host.well("none", "left", "non*", wanted="absent")


@pytest.mark.parametrize("name", ["tool", "lib", "broken", "half", "unpacked", "to*", "t?ol"])
def test_one_that_is_not_wholly_gone_is_for_apt(host: Host, name: str) -> None:
    assert not host.well("none", name, wanted="absent")


def test_one_that_autoremove_could_take_is_for_apt(host: Host) -> None:
    # As apt writes it, here also for one that was marked by hand after all.
    host.auto(
        "Package: c++\nArchitecture: amd64\nAuto-Installed: 1\n\n"
        "Package: tool\nArchitecture: amd64\nAuto-Installed: 0\n\n"
        "Package: tool-doc\nArchitecture: amd64\nAuto-Installed: 1\n\n"
        "Package: too\nArchitecture: amd64\nAuto-Installed: 1\n\n"
    )
    assert host.well("tool")
    assert not host.well("tool", "c++")
    assert host.well("none", wanted="absent")


def test_old_lists_are_for_apt(host: Host) -> None:
    hour_ago = time.time() - 3600
    os.utime(host.apt / "lists", (hour_ago, hour_ago))
    assert host.well("tool", valid=7200)
    assert not host.well("tool", valid=1800)
    assert not host.well("tool", valid=0)
    stamp = host.apt / "periodic/update-success-stamp"
    stamp.touch()
    assert host.well("tool", valid=1800)
    # Lists that were fetched in this very second may lack an archive that was added in it.
    assert not host.well("tool", valid=0)
    stamp.unlink()
    (host.apt / "lists").rmdir()
    assert not host.well("tool", valid=7200)


def test_a_host_that_cannot_say_is_for_apt(host: Host) -> None:
    status = host.dpkg / "status"
    whole = status.read_text()
    status.write_text("this is no status\n")
    assert host.ask("tool").returncode != 0
    status.write_text(whole)
    assert host.well("tool")
    shutil.rmtree(host.apt)
    assert host.ask("tool").returncode != 0


def test_an_answer_that_is_not_understood_is_for_apt(host: Host) -> None:
    said = host.ask("tool").stdout
    assert subject.all_is_well(said, ["tool"], "present", None)
    assert subject.all_is_well(said.replace("\n", "\r\n"), ["tool"], "present", None)
    for wrong in ("", "\n" + said, "Welcome!\n" + said, said.replace("native", "dpkg")):
        assert not subject.all_is_well(wrong, ["tool"], "present", None)
        assert not subject.all_is_well(wrong, ["none"], "absent", None)


@pytest.mark.parametrize(
    "name", ["tool=1", "tool/stable", "tool:amd64", "./tool.deb", "to*", "-tool", "Tool", " tool", "t"]
)
def test_a_name_that_apt_reads_otherwise_is_not_asked_for(name: str) -> None:
    assert not subject.NAME["present"].fullmatch(name)
    assert subject.NAME["absent"].fullmatch(name) is None or name == "to*"


def test_apt_is_run_only_where_it_has_to_be_and_with_all_that_the_task_says(tmp_path: Path) -> None:
    """On this machine, in check mode: a package that no archive has makes apt's module fail, here as everywhere."""
    manual = subprocess.run(["apt-mark", "showmanual"], capture_output=True, text=True, check=True).stdout.split()
    name = next(name for name in manual if ":" not in name)
    playbook = tmp_path / "play.yml"
    playbook.write_text(
        f"""
- hosts: all
  gather_facts: false
  connection: local
  environment: {{NEEDRESTART_MODE: a}}
  tasks:
    - packages: {{name: {name}, policy_rc_d: 101, install_recommends: false}}
    - packages: {{name: [slipway-none, slipway-n*], state: absent}}
    - packages: {{name: {name}, force: true}}
      ignore_errors: true
    - debug: {{msg: what follows is for apt}}
    - packages: {{name: [{name}, slipway-none], policy_rc_d: 101, install_recommends: false}}
"""
    )
    argv = [ANSIBLE_PLAYBOOK, "-i", "here,", "-e", f"ansible_python_interpreter={sys.executable}", "--check", "-vvv"]
    settings = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_INJECT_INVOCATION": "1"}
    said = subprocess.run(
        [*argv, playbook], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        env={**os.environ, **settings},
    ).stdout  # fmt: skip
    before, after = said.split("msg: what follows is for apt", 1)
    assert before.count("ok: [here]") == 3
    assert "Unsupported parameters for (packages) module: force" in " ".join(before.split())
    assert "Using module file" not in before
    assert "failed=1" in after
    executed, invocation = after.split("module_args", 1)
    assert "NEEDRESTART_MODE=a" in executed
    for word in ("policy_rc_d: 101", "install_recommends: false", name, "slipway-none"):
        assert word in invocation
