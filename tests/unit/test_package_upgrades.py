"""What apt would do is read from what it says it would."""

from __future__ import annotations

from plugins.modules import package_upgrades as subject

SIMULATION = """\
Reading package lists...
The following packages have been kept back:
  libfoo
  bar baz
The following NEW packages will be installed:
  linux-image-6.1.0-30-amd64
Inst openssl [3.0.15-1~deb12u1] (3.0.16-1~deb12u1 Debian-Security:12/stable-security [amd64])
Inst linux-image-6.1.0-30-amd64 (6.1.124-1 Debian-Security:12/stable-security [amd64])
Conf openssl (3.0.16-1~deb12u1 Debian-Security:12/stable-security [amd64])
"""


def test_upgrades_and_new_packages_are_named():
    assert subject.planned(SIMULATION) == [
        {"name": "openssl", "before": "3.0.15-1~deb12u1", "after": "3.0.16-1~deb12u1"},
        {"name": "linux-image-6.1.0-30-amd64", "before": "", "after": "6.1.124-1"},
    ]


def test_what_is_kept_back_is_named():
    assert subject.kept_back(SIMULATION) == ["libfoo", "bar", "baz"]
    assert subject.kept_back("Reading package lists...\n") == []


def test_a_line_says_it_for_a_person():
    one = {"name": "a", "before": "1", "after": "2"}
    new = {"name": "b", "before": "", "after": "2"}
    assert subject.summary([]) == "nothing to upgrade"
    assert subject.summary([one]) == "1 package: a 1 -> 2"
    assert subject.summary([one, new]) == "2 packages: a 1 -> 2, b (new)"
    assert subject.summary([one] * 10).endswith("a 1 -> 2 and 2 more")
