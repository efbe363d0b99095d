"""Smoke tests: what may be written, and how answers are judged, over real sockets."""

import socketserver
import subprocess
import threading
import time
from pathlib import Path

import pytest

from releasectl import smoke, systemd, verification
from releasectl.errors import Refusal
from releasectl.names import Generation
from releasectl.settings import Settings
from tests.unit.releasectl.conftest import Quiet

GENERATION = Generation("a", 1)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("/", ["Entry 2", "no mapping"]),
        ({}, ["Entry 2", "no path"]),
        ({"path": "cart"}, ["Entry 2", "'cart'", "begins with /"]),
        ({"path": "/a b"}, ["no blanks"]),
        ({"path": "/\r\nX: y"}, ["'/??X: y'"]),
        ({"path": "/cart", "contians": "x"}, ["Entry 2", "'/cart'", "'contians'", "did you mean contains?"]),
        ({"path": "/", "zzzzzz": 1}, ["there are path, method"]),
        ({"path": "/", "method": "DELETE"}, ["method is 'DELETE'", "OPTIONS"]),
        ({"path": "/", "status": "200"}, ["status is '200'"]),
        ({"path": "/", "status": []}, ["status is '[]'"]),
        ({"path": "/", "status": True}, ["status is 'True'"]),
        ({"path": "/", "status": [200, 700]}, ["from 100 to 599"]),
        ({"path": "/", "contains": ""}, ["contains is ''"]),
        ({"path": "/", "json": {}}, ["dotted paths"]),
        ({"path": "/", "json": {"a": [1]}}, ["dotted paths"]),
        ({"path": "/", "headers": {"A": 1}}, ["headers is"]),
        ({"path": "/", "within": 0}, ["within is '0'"]),
        ({"path": "/", "within": 61}, ["up to 60"]),
        ({"path": "/", "method": "HEAD", "contains": "x"}, ["HEAD"]),
        ({"path": "/", "body": "x"}, ["GET does not send"]),
        ({"path": "/", "request_headers": {"Host": "x"}}, ["without host"]),
        ({"path": "/", "request_headers": {"X": "a\r\nb"}}, ["request_headers"]),
        ({"path": "/", "at": "home"}, ["both, socket or edge"]),
    ],
)
def test_what_cannot_be_meant_is_one_sentence_that_names_the_entry(entry, words):
    with pytest.raises(Refusal) as refusal:
        smoke.parse([{"path": "/"}, entry])
    for word in ("release_smoke_tests", *words):
        assert word in refusal.value.message
    assert "\n" not in refusal.value.message


@pytest.mark.parametrize("raw", [None, {}, "x", [{"path": "/"}] * 51])
def test_what_is_no_list_or_too_long(raw):
    with pytest.raises(Refusal, match="release_smoke_tests"):
        smoke.parse(raw)


def test_a_test_says_only_its_path_and_the_rest_is_given():
    (test,) = smoke.parse([{"path": "/cart?a=b"}])
    assert (test.method, test.status, test.within, test.at) == ("GET", (200,), 10.0, "both")


class App(Quiet):
    """A small app: each path is one behaviour."""

    def do_GET(self):
        if self.path == "/slow":
            time.sleep(1)
        if self.path == "/drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(20):
                time.sleep(0.1)
                self.wfile.write(b".")
                self.wfile.flush()
            return
        if self.path == "/rude":
            self.wfile.write(b"hello\r\n")
            return
        body = {
            "/": b"<h1>Our  books</h1>",
            "/json": b'{"database": {"ok": true}, "items": [{"id": 7}], "one": 1, "none": null}',
            "/control": b"\x1b[31mred\x07",
            "/big": b"x" * (2 << 20) + b"end",
            "/echo": f"{self.headers['Host']} {self.headers['X-Forwarded-Proto']} {self.headers['Accept']}".encode(),
        }.get(self.path, b"nothing here")
        self.send_response(404 if body == b"nothing here" else 200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(302)
        self.send_header("Location", f"/got/{text.decode()}")
        self.end_headers()


@pytest.fixture
def app(config):
    """The socket of generation a.1, with the app behind it."""
    path = config.generation_socket(GENERATION)
    path.parent.mkdir()
    server = socketserver.ThreadingUnixStreamServer(str(path), App)
    server.handle_error = lambda *_: None  # a client that stops waiting is no news
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield path
    server.shutdown()
    server.server_close()


def ask(config, **entry):
    verification.ask_socket(config, GENERATION, smoke.parse([entry]))


@pytest.mark.parametrize(
    "entry",
    [
        {"path": "/", "contains": "Our  books", "headers": {"content-type": "text/html", "X-Powered-By": None}},
        {"path": "/gone", "status": [404, 410]},
        {"path": "/json", "json": {"database.ok": True, "items.0.id": 7, "one": 1, "none": None}},
        {"path": "/", "method": "HEAD"},
        {"path": "/form", "method": "POST", "body": "a", "status": 302, "headers": {"Location": "/got/a"}},
        {"path": "/echo", "request_headers": {"Accept": "x/y"}, "contains": "localhost https x/y"},
        {"path": "/big"},
    ],
)
def test_what_holds(app, config, entry):
    ask(config, **entry)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"path": "/gone"}, "a failed its smoke test GET /gone: it answered 404, not 200; it said 'nothing here'."),
        ({"path": "/", "status": [201, 302]}, "answered 200, not 201 or 302"),
        ({"path": "/", "contains": "cart"}, "answered without 'cart'; it said '<h1>Our books</h1>'"),
        ({"path": "/big", "contains": "end"}, "answered without 'end'"),
        ({"path": "/", "json": {"a": 1}}, "answered what is no JSON"),
        ({"path": "/json", "json": {"database.up": True}}, "answered JSON without 'database.up'"),
        ({"path": "/json", "json": {"items.1.id": 7}}, "answered JSON without 'items.1.id'"),
        ({"path": "/json", "json": {"items.0.id": 8}}, "answered JSON with 'items.0.id' 7, not 8"),
        ({"path": "/json", "json": {"database.ok": 1}}, "answered JSON with 'database.ok' true, not 1"),
        ({"path": "/", "headers": {"X-A": "b"}}, "answered without the header X-A"),
        ({"path": "/", "headers": {"Content-Type": "json"}}, "which does not hold 'json'"),
        ({"path": "/", "headers": {"Content-Type": None}}, "which must not be there"),
        ({"path": "/slow", "within": 0.3}, "it did not answer within 0.3 s"),
        ({"path": "/drip", "within": 0.5}, "it did not answer within 0.5 s"),
        ({"path": "/rude"}, "it did not speak HTTP (BadStatusLine)"),
        ({"path": "/control", "status": 500}, "it said '?[31mred?'"),
    ],
)
def test_what_does_not_hold_says_what_was_wanted_and_what_came(app, config, entry, said):
    with pytest.raises(Refusal) as refusal:
        ask(config, **entry)
    assert said in refusal.value.message
    assert len(refusal.value.message) < 400
    assert refusal.value.message.isprintable()


def test_an_answer_that_trickles_is_not_waited_for(app, config):
    began = time.monotonic()
    with pytest.raises(Refusal):
        ask(config, path="/drip", within=0.3)
    assert time.monotonic() - began < 1


def test_nobody_behind_the_socket(config):
    with pytest.raises(Refusal, match=r"it cannot be asked \(No such file or directory\)"):
        ask(config, path="/")


def verify(config, tests=(), command=()):
    changed = config.__class__(
        **{**vars(config), "smoke_tests": list(tests), "smoke_command": command, "smoke_command_timeout": 5}
    )
    said: list[str] = []
    settings = Settings.of(config)
    verification.verify(changed, settings, GENERATION, "env.1", said.append)
    return said


def test_without_any_nothing_is_asked(config):
    assert verify(config) == []


def test_what_is_only_the_edges_is_not_asked_here(app, config):
    assert verify(config, [{"path": "/gone", "at": "edge"}]) == []
    assert verify(config, [{"path": "/", "at": "socket"}]) == ["asking 1 smoke tests on its own socket"]


@pytest.fixture
def ran(monkeypatch):
    """The commands for systemd, and how the one for the release ends."""
    commands: list[list[str]] = []

    def run(words):
        commands.append(list(words))
        text = (
            Path(next(w for w in words if w.startswith("EnvironmentFile="))[16:]).read_text() if run_it(words) else ""
        )
        environments.append(text)
        code = ending["code"] if run_it(words) else 0
        return subprocess.CompletedProcess(words, code, ending["out"] if run_it(words) else "", "")

    def run_it(words):
        return words[0] == "systemd-run"

    ending = {"code": 0, "out": ""}
    environments: list[str] = []
    monkeypatch.setattr(systemd, "run", run)

    def run_heard(words, _heard):
        done = run(words)
        return done.returncode, done.stdout.splitlines()

    monkeypatch.setattr(systemd, "run_heard", run_heard)
    return commands, environments, ending


def test_the_command_runs_as_the_app_with_its_settings_and_is_told_the_socket(config, ran, tmp_path):
    commands, environments, _ = ran
    (tmp_path / "env.1" / "SECRET_KEY").write_text("canary")
    programs = config.release_dir("a") / "venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").touch()
    said = verify(config, command=("python", "manage.py", "check"))
    assert said == ["running python manage.py check"]
    words = commands[-1]
    assert words[words.index("--") + 1 :] == [str(programs / "python"), "manage.py", "check"]
    assert "User=app" in words
    assert "RuntimeMaxSec=5" in words
    assert f"--setenv=SLIPWAY_SOCKET={config.generation_socket(GENERATION)}" in words
    assert 'SECRET_KEY="canary"\n' in environments
    assert not any("canary" in word for command in commands for word in command)
    assert list((config.private_run / "env").iterdir()) == [], "the settings were left in a file"


def test_a_command_that_the_release_does_not_have_is_the_hosts(config, ran):
    verify(config, command=("/usr/bin/test", "-S", "x"))
    assert ran[0][-1][-3:] == ["/usr/bin/test", "-S", "x"]


def test_a_command_that_fails_is_refused_with_its_last_lines(config, ran):
    ran[2].update(code=1, out="\n".join(f"line {n}" for n in range(30)) + "\nValueError: no cart\n")
    with pytest.raises(
        Refusal, match=r"The command python manage\.py check of a failed: ValueError: no cart"
    ) as refusal:
        verify(config, command=("python", "manage.py", "check"))
    assert refusal.value.details["journal"][-1] == "ValueError: no cart"
    assert len(refusal.value.details["journal"]) == 20


def test_one_that_does_not_end_is_said_to_be_such(config, ran, monkeypatch):
    ran[2].update(code=1, out="still at it")
    times = iter([0.0, 5.1])
    monkeypatch.setattr(verification.time, "monotonic", lambda: next(times))
    with pytest.raises(Refusal, match=r"did not end within 5 s \(release_smoke_command_timeout\)"):
        verify(config, command=("python", "x"))
