"""Hashed files are for ever, the others are the live release's, and nothing else of it can be fetched."""

from __future__ import annotations

import pytest

from tests.outside import https

HASHED = "/static/css/site.0123456789ab.css"


def test_a_hashed_file_is_kept_for_ever_and_travels_compressed(lab, statics):
    answer = https(lab, HASHED, headers={"Accept-Encoding": "gzip"})
    assert answer.status == 200
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-type"] == "text/css"
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_hashed_file_does_not_hang_on_the_live_release(lab, app1, statics):
    app1.check_output("rm /opt/app/current")
    assert https(lab, HASHED).status == 200


def test_a_file_without_a_hash_is_the_live_releases(lab, app1, statics):
    answer = https(lab, "/static/robots.txt")
    assert answer.body == b"of release a"
    assert answer.headers["cache-control"] == "public, max-age=60"
    app1.check_output("ln -sfn test-b /opt/app/next && mv -T /opt/app/next /opt/app/current")
    assert https(lab, "/static/robots.txt").body == b"of release b"


@pytest.mark.parametrize(
    "path",
    ["/static/../secret.py", "/static/%2e%2e/secret.py", "/static/..%2fsecret.py", "/static../secret.py", "/static/"],
)
def test_nothing_else_of_a_release_can_be_fetched(lab, statics, path):
    answer = https(lab, path)
    assert answer.status != 200
    assert b"SECRET" not in answer.body


def test_what_is_missing_is_missing(lab, statics):
    assert https(lab, "/static/css/site.ffffffffffff.css").status == 404
    assert https(lab, "/static/nothing.txt").status == 404


def test_a_file_with_a_compressed_one_beside_it_is_not_compressed_again(lab, app1, statics):
    app1.check_output("printf 'not what gzip would make' >/var/www/app/static/css/site.0123456789ab.css.gz")
    try:
        answer = https(lab, HASHED, headers={"Accept-Encoding": "gzip"})
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.body == b"not what gzip would make"
        assert "immutable" in answer.headers["cache-control"]
    finally:
        app1.check_output("rm /var/www/app/static/css/site.0123456789ab.css.gz")


def test_a_part_of_a_file_can_be_had(lab, statics):
    answer = https(lab, HASHED, headers={"Range": "bytes=5-9"})
    assert answer.status == 206
    assert answer.body == b"{ col"
    assert answer.headers["content-range"].startswith("bytes 5-9/")
