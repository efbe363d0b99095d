"""Each wrong variable is one sentence that says where it is set."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from plugins.action import check_variables as subject

ROOT = Path(__file__).resolve().parents[2]
KNOWN = {"nginx_hsts_max_age", "app_domain", "tls_certificate"}


def test_the_playbook_says_which_roles_a_host_gets():
    playbook = [
        {"hosts": "all", "roles": [{"role": "base", "tags": "base"}, "deployers"]},
        {"hosts": "data", "roles": ["redis"]},
        {"hosts": "app:worker", "roles": ["runtime", "base"]},
    ]
    assert subject.roles_of(playbook, ["worker", "lab"]) == ["base", "deployers", "runtime"]
    assert subject.roles_of(playbook, ["data"]) == ["base", "deployers", "redis"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("nginx_hsts_max_agee", "nginx_hsts_max_age"),
        ("app_domian", "app_domain"),
        ("ngnix_hsts_max_age", "nginx_hsts_max_age"),
        ("nginx_zzz", None),
    ],
)
def test_a_misspelt_name_is_found(name, meant):
    assert subject.unknown_names([name, *KNOWN], KNOWN, ["nginx", "tls"]) == [(name, meant)]


@pytest.mark.parametrize("name", ["my_helper", "ansible_host", "lab_address", "vault_tls_certificate", "group_names"])
def test_names_that_are_not_ours_are_nobodys_business(name):
    assert subject.unknown_names([name], KNOWN, ["nginx", "tls"]) == []


@pytest.mark.parametrize(
    ("value", "limit", "expected"),
    [
        (5, {"min": 10}, "x is 5, below 10"),
        (50, {"max": 10}, "x is 50, above 10"),
        (10, {"min": 10, "max": 10}, None),
        ("1G", {"pattern": "[0-9]+[KMG]", "means": "a size"}, None),
        ("1 G", {"pattern": "[0-9]+[KMG]", "means": "a size"}, "x is not a size"),
        (["a", "B"], {"pattern": "[a-z]", "means": "a letter"}, "x is not a letter"),
        ([], {"min_items": 1}, "x has 0 items, fewer than 1"),
    ],
)
def test_limits_bite(value, limit, expected):
    assert subject.limit_problem("x", value, limit) == expected


def test_the_place_where_a_variable_is_set_is_named(tmp_path: Path):
    (tmp_path / "group_vars/production").mkdir(parents=True)
    (tmp_path / "group_vars/production/nginx.yml").write_text("---\nnginx_a: 1\nnginx_b: 2\n")
    assert subject.where("nginx_b", tmp_path) == "set in group_vars/production/nginx.yml:3"
    assert subject.where("nginx_c", tmp_path) == "set by -e or by the inventory"


def test_limits_speak_of_variables_that_exist():
    for path in sorted((ROOT / "roles").glob("*/meta/limits.yml")):
        spec = yaml.safe_load((path.parent / "argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
        limits = yaml.safe_load(path.read_text())
        assert set(limits) <= set(spec), path
        defaults = yaml.safe_load((path.parents[1] / "defaults/main.yml").read_text()) or {}
        for name, limit in limits.items():
            value = defaults.get(name)
            if value is not None and "{{" not in str(value):
                assert subject.limit_problem(name, value, limit) is None
