"""lab/: what can be told without starting a host."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from lab import engine, files, hosts, image, network, pki, state
from lab.secrets import Secrets
from lab.state import Lab, LabError

ROOT = Path(__file__).resolve().parents[2]
ADDRESSES = {
    "app1": {"ipv4": "10.213.5.11", "ipv6": "fd00:1:2::b"},
    "data1": {"ipv4": "10.213.5.12", "ipv6": "fd00:1:2::c"},
}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab whose files are in a directory of the test's own; group_vars and the rest are the repository's."""
    (tmp_path / "group_vars").symlink_to(ROOT / "group_vars")
    for module in (state, files):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    return Lab("unit")


@pytest.fixture
def filled(lab: Lab) -> Lab:
    files.ensure_keys(lab)
    secrets = Secrets(lab)
    secrets.ensure_passwords()
    files.ensure_certificates(lab, secrets, ADDRESSES)
    secrets.save()
    files.write_known_hosts(lab, {"app1": ["ssh-ed25519 AAAA"], "data1": ["ssh-ed25519 BBBB"]})
    files.write_ssh_config(lab, ADDRESSES)
    files.write_inventory(lab, secrets, ADDRESSES)
    files.write_facts(lab, "slipway-host:debian-12", ADDRESSES, 8443)
    return lab


@pytest.mark.parametrize("name", ["", "lab", "molecule", "a-1"])
def test_names_that_a_lab_may_have(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_LAB", name)
    assert Lab.chosen().name == (name or "lab")


@pytest.mark.parametrize("name", ["../x", "A", "a b", "-a", "a" * 31, "a.b", "a;b"])
def test_names_that_a_lab_may_not_have(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_LAB", name)
    with pytest.raises(LabError, match="no name for a lab"):
        Lab.chosen()


def test_a_lab_has_the_hosts_that_it_was_made_with(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (lab.hosts, lab.edge, lab.inventory) == (("app1", "data1"), "app1", "inventories/lab")
    monkeypatch.setenv("SLIPWAY_TOPOLOGY", "fleet")
    assert (lab.edge, lab.inventory) == ("edge1", "inventories/fleet-lab")
    state.write(lab.topology_file, "host\n")
    assert lab.hosts == ("app1", "data1"), "one that stands stays what it is"
    state.write(lab.topology_file, "fleet\n")
    monkeypatch.delenv("SLIPWAY_TOPOLOGY")
    assert {"edge1", "app2"} < set(lab.hosts)


def test_a_topology_that_there_is_not_is_refused(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_TOPOLOGY", "ring")
    with pytest.raises(LabError, match="'ring' is no topology"):
        _ = lab.hosts


@pytest.mark.parametrize("name", state.TOPOLOGIES)
def test_inventories_name_the_hosts_of_their_topology(name: str) -> None:
    hosts, inventory = state.TOPOLOGIES[name]
    groups = yaml.safe_load((ROOT / inventory / "hosts.yml").read_text())
    assert {host for group in groups.values() for host in group.get("hosts", {})} == set(hosts)


def test_many_hosts_on_a_machine_that_watches_few_files_are_refused(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "max_user_instances"
    limit.write_text("128\n")
    monkeypatch.setattr(hosts, "WATCHERS_LIMIT", limit)
    hosts.require_watchers(lab)
    state.write(lab.topology_file, "eight\n")
    with pytest.raises(LabError, match=r"allows \(128\): run `sudo sysctl -w fs.inotify.max_user_instances=160`"):
        hosts.require_watchers(lab)
    limit.write_text("160\n")
    hosts.require_watchers(lab)


def test_facts_of_a_lab_that_is_not_up_say_what_to_type(lab: Lab) -> None:
    with pytest.raises(LabError, match="make lab-up LAB=unit"):
        lab.facts()


def test_written_files_have_their_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        state.write(tmp_path / "open", "x", 0o644)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["open"]


def verify(lab: Lab, authority: str, certificate: str, *options: str) -> int:
    path = lab.directory / "certificate.pem"
    path.write_text(certificate)
    command = ["openssl", "verify", *options, "-x509_strict", "-CAfile", lab.ca / authority, path]
    return subprocess.run(command, capture_output=True, check=False).returncode


def test_certificates_verify_with_their_authority_and_no_other(filled: Lab) -> None:
    values = Secrets(filled).values
    own, stranger = values["data1_certificate"], values["stranger_data1_certificate"]
    purpose = ("-purpose", "sslserver", "-verify_hostname")
    assert verify(filled, "ca.pem", own, *purpose, "data1") == 0
    assert verify(filled, "ca.pem", own, *purpose, "app1") != 0
    assert verify(filled, "ca.pem", own, "-verify_ip", "10.213.5.12") == 0
    assert verify(filled, "ca.pem", stranger, *purpose, "data1") != 0
    assert verify(filled, "stranger-ca.pem", stranger, *purpose, "data1") == 0
    assert verify(filled, "ca.pem", values["app1_certificate"], *purpose, "bookshop.localhost") == 0


def test_a_certificate_is_made_anew_when_an_address_changes_and_kept_otherwise(filled: Lab) -> None:
    secrets = Secrets(filled)
    first = secrets.values["data1_certificate"]
    files.ensure_certificates(filled, secrets, ADDRESSES)
    assert secrets.values["data1_certificate"] == first
    moved = {**ADDRESSES, "data1": {"ipv4": "10.213.6.12"}}
    files.ensure_certificates(filled, secrets, moved)
    assert secrets.values["data1_certificate"] != first
    assert pki.is_fresh(secrets.values["data1_certificate"], ["data1"], ["10.213.6.12"])


def test_an_authority_may_sign_servers_only() -> None:
    certificate = x509.load_pem_x509_certificate(pki.new_authority("test")[0].encode())
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)


def test_secrets_are_kept_and_lie_nowhere_in_the_clear(filled: Lab) -> None:
    values = Secrets(filled).values
    again = Secrets(filled)
    again.ensure_passwords()
    assert again.values == values
    secret = [value for name, value in values.items() if not name.endswith("_certificate") and name != "app"]
    secret += values["app"].values()
    assert len(secret) >= 8
    for path in filled.directory.rglob("*"):
        if path.is_file():
            assert not any(value in path.read_text() for value in secret), path.name


def test_private_files_are_their_owners_alone(filled: Lab) -> None:
    private = [filled.age_key, filled.secrets, filled.inventory_file, *filled.keys.glob("[!.]*[!b]")]
    for path in private:
        if path.suffix != ".pub":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_ansible_opens_what_the_inventory_names(filled: Lab) -> None:
    values = Secrets(filled).values
    script = filled.directory / "inventory.sh"
    script.write_text(f"#!/bin/sh\ncat {filled.inventory_file}\n")
    script.chmod(0o755)
    play = filled.directory / "play.yml"
    shown = "[app_secrets, redis_app_password, postgresql_tls_private_key, tls_certificate, lab_stranger_private_key]"
    files_of = ", ".join(
        str(ROOT / f"group_vars/{name}.yml")
        for name in ("all/main", "lab/main", "lab/redis", "lab/postgresql", "lab/tls")
    )
    play.write_text(
        f"- hosts: data1\n  gather_facts: false\n  vars_files: [{files_of}]\n"
        f"  tasks:\n    - copy: {{dest: {filled.directory}/seen, mode: '0600',"
        f" content: '{{{{ {shown} | to_json }}}}'}}\n"
    )
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", script, "-c", "local", play],
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((filled.directory / "seen").read_text()) == [
        values["app"], values["redis_app_password"], values["data1_private_key"], values["data1_certificate"],
        values["stranger_data1_private_key"],
    ]  # fmt: skip


@pytest.mark.parametrize(("account", "key"), [("root", "provider"), ("ops", "admin"), ("deployer", "deploy")])
def test_each_account_is_reached_with_its_own_key(filled: Lab, account: str, key: str) -> None:
    for host in ("app1", ADDRESSES["app1"]["ipv4"]):
        command = ["ssh", "-G", "-F", filled.ssh_config, f"{account}@{host}"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        assert f"identityfile {filled.keys / key}" in told
        assert [line for line in told if line.startswith("identityfile")] == [f"identityfile {filled.keys / key}"]
        assert "hostkeyalias app1" in told
        assert f"hostname {ADDRESSES['app1']['ipv4']}" in told
        assert "stricthostkeychecking true" in told


def test_a_network_is_chosen_that_nothing_uses(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = [ip_network("10.213.0.0/17"), ip_network("10.213.128.0/18")]
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(network, "_taken", lambda: taken)
    monkeypatch.setattr(engine, "run", lambda *command, **_: commands.append(command))
    network._create(lab)
    subnet = next(word for word in commands[0] if word.startswith("10.213."))
    assert not any(ip_network(subnet).overlaps(other) for other in taken)


def test_when_every_network_is_taken_the_lab_says_so(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_taken", lambda: [ip_network("10.0.0.0/8")])
    with pytest.raises(LabError, match="No free network"):
        network._create(lab)


def test_another_checkouts_lab_is_left_alone(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    labels = {hosts.CHECKOUT_LABEL: str(other)}
    monkeypatch.setattr(engine, "inspect", lambda *_: [{"Config": {"Labels": labels}}])
    for to_remove in (False, True):
        with pytest.raises(LabError, match=f"belongs to {other}"):
            hosts.refuse_strangers(lab, to_remove=to_remove)


def test_the_lab_of_a_checkout_that_is_gone_can_be_removed(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    monkeypatch.setattr(engine, "inspect", lambda *_: [{"Config": {"Labels": {hosts.CHECKOUT_LABEL: str(gone)}}}])
    with pytest.raises(LabError, match=f"left by {gone}, which is gone: remove it"):
        hosts.refuse_strangers(lab)
    hosts.refuse_strangers(lab, to_remove=True)


def test_an_unknown_distribution_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_LAB_DISTRIBUTION", "gentoo")
    with pytest.raises(LabError, match=r"use ubuntu-22.04, "):
        image.find_or_build(print)


def test_without_a_registry_the_base_comes_from_the_apt_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.delenv("SLIPWAY_LAB_DISTRIBUTION", raising=False)
    monkeypatch.setattr(image, "_is_current", lambda _: False)
    monkeypatch.setattr(image, "_build_ubuntu", lambda *_: "no such host")
    monkeypatch.setattr(image, "_build_debian", lambda *_: None)
    assert image.find_or_build(said.append) == "slipway-host:debian-12"
    assert len(said) == 1
    assert "Debian 12" in said[0]


def test_without_a_registry_and_without_a_mirror_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    with pytest.raises(LabError, match="names no mirror of Debian"):
        image.mirrors()


def test_the_recipes_hash_changes_with_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in image.RECIPE.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(image, "RECIPE", tmp_path)
    before = {name: image._hash(name) for name in (image.UBUNTU, image.DEBIAN)}
    with (tmp_path / "packages").open("a") as packages:
        packages.write("less\n")
    assert all(image._hash(name) != before[name] for name in before)
