"""Names, locks, settings, drain, health and the record, each by itself."""

import gzip
import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from releasectl import cli, drain, health, names, systemd
from releasectl import static as static_files
from releasectl.errors import CommandFailed, Locked, Refusal, UsageError
from releasectl.events import Events
from releasectl.lock import Locks
from releasectl.settings import Settings, environment_file, read_envdir
from releasectl.state import State, Store
from releasectl.systemd import sandboxed, telling
from tests.unit.releasectl.conftest import Quiet


@pytest.mark.parametrize(
    "text", ["", "/", "a/b", "..", "a..b", "a b", "-a", ".a", "x" * 65, "x" * 300, "a\n", "ä", "a;b", "$x"]
)
def test_what_is_no_release_id(text):
    with pytest.raises(UsageError, match="is not a release id") as refusal:
        names.release_id(text)
    assert len(refusal.value.message) < 350
    assert "\n" not in refusal.value.message


@pytest.mark.parametrize("text", ["a", "bookshop-3f2a9c1d7e44", "1.2.0", "v1_2", "A" * 64])
def test_release_ids(text):
    assert names.release_id(text) == text


def test_a_generation_is_split_at_the_last_dot():
    generation = names.Generation.parse("app-1.2.0.17")
    assert (generation.release, generation.number, str(generation)) == ("app-1.2.0", 17, "app-1.2.0.17")


@pytest.mark.parametrize("text", ["a", "a.", "a.b", "a.1/..", "../a.1", "a..1"])
def test_what_is_no_generation(text):
    with pytest.raises(UsageError):
        names.Generation.parse(text)


@pytest.mark.parametrize("text", ["../x", "/etc/passwd", "a/b", "", ".hidden", "a..b"])
def test_what_is_no_artifact_name(text):
    with pytest.raises(UsageError):
        names.artifact_name(text)


@pytest.mark.parametrize(
    "argv",
    [
        [], ["nope"], ["activate"], ["activate", "--i", "a"], ["prune", "--keep", "0"], ["prune", "--keep", "-1"],
        ["status", "extra"], ["lock", "--purpose", "a\nb"],
        ["prepare", "--id", "a", "--artifact", "b", "--sha256", "xyz"],
    ],
)  # fmt: skip
def test_usage_errors_are_one_sentence_and_status_2(argv, capsys):
    assert cli.main([*argv, "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert "\n" not in answer["message"]


@pytest.fixture
def locks(tmp_path):
    return Locks(tmp_path, tmp_path)


@pytest.mark.failure("two-deployers")
def test_a_second_verb_is_told_who_runs_what(locks):
    with (
        locks.verb("prepare", "ann"),
        pytest.raises(Locked, match="ann is running 'prepare' since 20"),
        locks.verb("x", "bob"),
    ):
        pytest.fail("two verbs at once")


def test_the_lock_is_gone_with_its_process(locks, tmp_path):
    program = (
        "import sys, os; sys.path.insert(0, sys.argv[1]);"
        "from releasectl.lock import Locks; from pathlib import Path; p = Path(sys.argv[2]);"
        "c = Locks(p, p).verb('prepare', 'ann'); c.__enter__(); os.kill(os.getpid(), 9)"
    )
    files = str(Path(cli.__file__).parent.parent)
    assert subprocess.run([sys.executable, "-c", program, files, str(tmp_path)], check=False).returncode == -9
    with locks.verb("activate", "bob"):
        pass


def test_a_lease_holds_others_off_and_carries_its_own_verbs(locks):
    with locks.verb("lock", "ann"):
        lease = locks.take("ann", "deploy of a", 60)
    with locks.verb("activate", "bob"):
        with (
            pytest.raises(Locked, match="ann holds the lease for 'deploy of a' since 20"),
            locks.under_lease("activate", None),
        ):
            pytest.fail("went under another's lease")
        with pytest.raises(Refusal, match="no longer holds the lease"), locks.under_lease("activate", "wrong"):
            pytest.fail("went with a wrong token")
        with locks.under_lease("activate", lease.token):
            assert locks.read_lease().busy == "activate"
        assert locks.read_lease().busy is None


def test_a_lease_is_renewed_by_each_verb(locks):
    with locks.verb("lock", "ann"):
        lease = locks.take("ann", "deploy", 60)
        time.sleep(0.02)
        with locks.under_lease("prepare", lease.token):
            pass
    assert locks.read_lease().expires > lease.expires


@pytest.mark.failure("controller-killed")
def test_an_expired_lease_and_one_whose_verb_died_are_taken_over(locks):
    with locks.verb("lock", "ann"):
        locks.take("ann", "deploy", -1)
        lease = locks.take("bob", "deploy", 60)
        renewed = locks.under_lease("prepare", lease.token)
        renewed.__enter__()  # the verb dies here: it never leaves
        assert locks.take("cid", "deploy", 60).holder == "cid"


def test_unlock_wants_the_token_or_force(locks):
    with locks.verb("lock", "ann"):
        lease = locks.take("ann", "deploy", 60)
        with pytest.raises(Locked, match="give its --token, or --force"):
            locks.release("wrong", force=False)
        assert locks.release(lease.token, force=False) is True
        assert locks.release(None, force=False) is False
        locks.take("ann", "deploy", 60)
        assert locks.release(None, force=True) is True


def test_envdir_is_read_by_daemontools_rules(tmp_path):
    for name, raw in {"A": b"one\ntwo", "B": b"trailing \t", "C": b"two\0lines", "D": b"", "not-a-name": b"x"}.items():
        (tmp_path / name).write_bytes(raw)
    assert read_envdir(tmp_path) == {"A": "one", "B": "trailing", "C": "two\nlines"}


def test_a_value_that_systemd_cannot_carry_is_refused_by_name():
    with pytest.raises(Refusal, match="The setting KEY holds a control character") as refusal:
        environment_file({"KEY": "sec\x01ret"})
    assert "ret" not in refusal.value.message.replace("control character", "")


def test_quoting_of_an_environment_file():
    assert environment_file({"A": 'q"b\\d$`n\nx'}) == 'A="q\\"b\\\\d\\$\\`n\nx"\n'


def test_environment_files_are_root_only_against_umask(tmp_path):
    env = tmp_path / "env.1"
    env.mkdir()
    (env / "A").write_text("x")
    (tmp_path / "env").symlink_to("env.1")
    (tmp_path / "run" / "env").mkdir(parents=True)
    before = os.umask(0)
    try:
        path = Settings(tmp_path / "env", tmp_path / "pins", tmp_path / "run").write_environment("a.1", "env.1")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_a_kill_left_of_other_generations_goes_and_what_is_in_the_making_stays(tmp_path):
    settings = Settings(tmp_path / "env", tmp_path / "pins", tmp_path / "run")
    settings.runtime.mkdir(parents=True)
    settings.pins.mkdir()
    for directory in (settings.pins, settings.runtime):
        for name in ("a-1.1", ".a-1.1.new", "a-1.2", ".a-1.2.new", ".a-1.3.new"):
            (directory / name).touch()
    settings.forget_all_but({"a-1.2"})
    for directory in (settings.pins, settings.runtime):
        assert sorted(path.name for path in directory.iterdir()) == [".a-1.2.new", "a-1.2"]


def test_drain_waits_for_open_and_for_queued_connections(tmp_path):
    path = tmp_path / "s"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(5)
    assert drain.wait(path, 2)
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    assert not drain.wait(path, 0.5), "a queued connection counts"
    served, _ = listener.accept()
    assert not drain.wait(path, 0.5), "an open connection counts"
    served.close()
    client.close()
    assert drain.wait(path, 2)
    listener.close()


class Answers(Quiet):
    status: list[int]

    def do_GET(self):
        self.send_response(self.status.pop(0) if len(self.status) > 1 else self.status[0])
        self.send_header("Location", "/elsewhere")
        self.end_headers()


@pytest.fixture
def answering(tmp_path):
    """Serve the given statuses, one a request, the last one for ever."""
    servers = []

    def serve(*status: int) -> Path:
        path = tmp_path / "gunicorn.sock"
        handler = type("Handler", (Answers,), {"status": list(status)})
        server = socketserver.ThreadingUnixStreamServer(str(path), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return path

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def gate(path, timeout=3.0, alive=lambda: True):
    health.gate(path, "/readyz", "example.org", timeout, successes=2, failures=3, alive=alive)


def test_the_gate_opens_for_200(answering):
    gate(answering(200))


@pytest.mark.failure("gate-slow")
def test_the_gate_opens_for_one_that_becomes_healthy(answering):
    gate(answering(503, 503, 200))


@pytest.mark.failure("gate-redirects")
@pytest.mark.failure("gate-500")
@pytest.mark.parametrize("status", [500, 302, 404, 204])
def test_the_gate_stays_shut(answering, status):
    with pytest.raises(Refusal, match=f"it answered {status}"):
        gate(answering(status))


@pytest.mark.failure("gate-flaps")
def test_one_good_answer_is_not_enough(answering):
    with pytest.raises(Refusal, match="it answered 500"):
        gate(answering(200, 500))


def test_the_gate_shuts_at_once_when_the_process_is_gone(tmp_path):
    started = time.monotonic()
    with pytest.raises(Refusal, match="its process ended"):
        gate(tmp_path / "nothing", timeout=30, alive=lambda: False)
    assert time.monotonic() - started < 2


@pytest.mark.failure("gate-slow")
def test_the_gate_shuts_after_its_time(tmp_path):
    with pytest.raises(Refusal, match=r"not healthy within 0\.3 s: it did not answer"):
        gate(tmp_path / "nothing", timeout=0.3)


@pytest.mark.failure("events-corrupted")
def test_events_are_appended_and_read_back(tmp_path):
    events = Events(tmp_path)
    for number in range(5):
        events.append(verb="activate", number=number)
    (path,) = tmp_path.iterdir()
    with path.open("a") as stream:
        stream.write("not json\n")
    recent = events.recent(3)
    assert [event.get("number") for event in recent] == [3, 4, None]
    assert recent[-1]["outcome"] == "unreadable"


@pytest.mark.failure("state-corrupted")
def test_a_broken_state_file_is_refused_by_name(tmp_path):
    store = Store(tmp_path)
    assert store.read() == State()
    for content in ("{", "{}", '{"counter": 1}'):
        store.path.write_text(content)
        with pytest.raises(Refusal, match=r"state\.json"):
            store.read()


@pytest.fixture
def unit(monkeypatch, tmp_path):
    """A unit that is no unit: the program behind ``--`` is run as it is."""
    runner = tmp_path / "systemd-run"
    runner.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n')
    runner.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    gone = subprocess.CompletedProcess([], 0, "not-found\n", "")
    monkeypatch.setattr("releasectl.systemd.run", lambda _argv: gone)

    def run(script: str, heard=lambda _line: None) -> str:
        return sandboxed("x", ["/bin/sh", "-c", script], [], {}, 5, "Trying", heard)

    return run


def test_a_name_is_used_again_once_systemd_has_let_go_of_it(monkeypatch):
    states = iter(["loaded\n", "loaded\n", "not-found\n"])
    asked = []

    def run(words):
        asked.append(words)
        return subprocess.CompletedProcess(words, 0, next(states) if "show" in words else "", "")

    monkeypatch.setattr("releasectl.systemd.run", run)
    assert systemd.transient("x", [], {}, 5)[-1].startswith("UMask=")
    assert [words[1] for words in asked] == ["stop", "show", "show", "show"]
    monkeypatch.setattr(systemd, "LET_GO", 0.0)
    states = iter(["loaded\n"] * 3)
    with pytest.raises(Refusal, match=r"did not let go of x\.service"):
        systemd.transient("x", [], {}, 5)


def test_what_runs_in_a_unit_is_heard_as_it_speaks(unit):
    begun, heard = time.monotonic(), []
    output = unit("echo one; sleep 0.5; echo two >&2", lambda line: heard.append((line, time.monotonic() - begun)))
    assert output == "one\ntwo"
    assert [line for line, _ in heard] == ["one\n", "two\n"]
    assert heard[1][1] - heard[0][1] > 0.3


def test_a_unit_that_fails_is_told_with_its_last_lines_and_fills_no_memory(unit):
    with pytest.raises(CommandFailed, match="Trying failed: ValueError: no") as refusal:
        unit("head -c 30000000 /dev/zero | tr '\\0' x; printf '\\n\\n%s' 1 2 3; echo; echo ValueError: no; exit 3")
    assert refusal.value.details["journal"][-3:] == ["2", "3", "ValueError: no"]
    assert max(map(len, refusal.value.details["journal"])) <= 20_000


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], None),
        (["one", "two"], "two"),
        (["ValueError: first", "  during", "KeyError: 'x'", "[INFO] bye"], "KeyError: 'x'"),
        (["[ERROR] Worker failed to boot.", "[INFO] bye"], "[ERROR] Worker failed to boot."),
        (
            [
                "error: Failed to fetch x",
                "  cause: closed",
                "  cause: No space left on device (os error 28)",
                "hint: try",
            ],
            "error: Failed to fetch x; cause: No space left on device (os error 28)",
        ),
    ],
)
def test_the_line_that_says_why(lines, said):
    assert telling(lines) == said


def test_texts_are_published_with_a_compressed_one_beside_them_and_go_together(config):
    static = config.release_dir("a") / "static"
    (static / "css").mkdir(parents=True)
    text = b"body { color: teal }\n" * 100
    for name in ("css/site.0123456789ab.css", "small.0123456789ab.css", "front.0123456789ab.png", "plain.css"):
        (static / name).write_bytes(b"p" if name.startswith("small") else text)
    (static / "css" / "link.0123456789ab.css").symlink_to("/etc/passwd")
    static_files.publish_static(config, static.parent)
    found = sorted(str(path.relative_to(config.static)) for path in config.static.rglob("*") if path.is_file())
    assert found == [
        "css/site.0123456789ab.css",
        "css/site.0123456789ab.css.gz",
        "front.0123456789ab.png",
        "small.0123456789ab.css",
    ]
    packed = config.static / "css/site.0123456789ab.css.gz"
    assert gzip.decompress(packed.read_bytes()) == text
    assert packed.stat().st_mode & 0o777 == 0o644
    assert static_files.prune_static(config, ["a"], older_than=-1) == 0
    assert static_files.prune_static(config, [], older_than=-1) == 4
