"""What an ACME server could not be asked with is one sentence, on the controller."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.action.check_acme import problem
from plugins.modules.edge_certificate import command, understand

GOOD: dict[str, Any] = {
    "directory": "https://acme.example/dir",
    "staging_directory": "",
    "email": "ops@bookshop.example",
    "agree_terms": True,
    "names": ["bookshop.example", "www.bookshop.example"],
    "ca_certificates": [],
    "eab_key_id": "",
    "eab_hmac_key": "",
}


def test_what_can_work_passes():
    assert problem(GOOD) == ""


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"directory": "http://acme.example/dir"}, "tls_acme_directory is http://acme.example/dir"),
        ({"staging_directory": "acme"}, "tls_acme_staging_directory is acme"),
        ({"email": ""}, "tls_acme_email is not set"),
        ({"email": "ops"}, "tls_acme_email is ops"),
        ({"agree_terms": False}, "tls_acme_agree_terms is false"),
        ({"names": ["*.bookshop.example"]}, "tls_names has *.bookshop.example: a wildcard"),
        ({"names": ["192.0.2.1"]}, "tls_names has 192.0.2.1: an address"),
        ({"names": ["bookshop"]}, "tls_names has 'bookshop', which is no full host name"),
        ({"names": ["bookshop.example; rm"]}, "which is no full host name"),
        ({"ca_certificates": ["nonsense"]}, "tls_acme_ca_certificates holds no PEM certificate in its entry 1"),
        ({"eab_key_id": "kid"}, "tls_acme_eab_key_id and tls_acme_eab_hmac_key go together"),
    ],
)
def test_what_cannot_is_a_sentence(change, sentence):
    assert sentence in problem(GOOD | change)


def test_the_module_hands_on_what_the_program_said():
    assert command("/p", "obtain", True) == ["/p", "obtain", "--json", "--dry-run"]
    assert understand(0, '{"lines": []}', "")["changed"] is False
    assert understand(0, '{"lines": ["made"]}', "")["diff"]["after"] == "made\n"
    assert understand(1, '{"failed": true, "msg": "It cannot."}', "") == {"failed": True, "msg": "It cannot."}
    assert understand(1, "", "Traceback\nKeyError: 'x'")["msg"] == "KeyError: 'x'"
