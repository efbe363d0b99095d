"""The plugins behind deploy.yml and rollback.yml: what they refuse, how they judge, and what they ask the edge."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import importlib.util
import io
import ssl
import sys
import tarfile
import threading
import types
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lab import oci

ACTIONS = Path(__file__).parents[2] / "plugins/action"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExample comment"
SHA = "0123456789abcdef0123456789abcdef01234567"


def load(name):
    spec = importlib.util.spec_from_file_location(f"slipway_action_{name}", ACTIONS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


check, ctl, edge, verdict = (load(n) for n in ("release_check", "releasectl", "edge_check", "release_verdict"))


# What was asked for


@pytest.fixture
def artifact(tmp_path):
    path = tmp_path / f"shop-{SHA}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("manage.py")
        member.size = 5000
        tar.addfile(member, io.BytesIO(bytes(range(250)) * 20))
    return path


def test_an_artifact_is_found_from_where_one_types_and_named_by_its_commit(artifact):
    found = check.check_artifact(artifact.name, artifact.parent)
    assert found["release"] == "shop-0123456789ab"
    assert found["artifact"] == str(artifact)
    assert found["sha256"] == hashlib.sha256(artifact.read_bytes()).hexdigest()
    assert check.check_artifact(str(artifact), Path("/"))["name"] == artifact.name


def test_a_name_without_a_commit_is_the_id_itself(artifact):
    other = artifact.rename(artifact.parent / "shop-1.2.3.tar.gz")
    assert check.check_artifact(str(other), Path("/"))["release"] == "shop-1.2.3"


def refused(path):
    with pytest.raises(check.Refused) as refusal:
        check.check_artifact(str(path), Path("/"))
    sentence = str(refusal.value)
    assert "\n" not in sentence
    return sentence


def test_nothing_a_directory_or_a_missing_file_is_refused(tmp_path):
    assert "release_artifact=" in refused("")
    assert "no artifact" in refused(tmp_path)
    assert "no artifact" in refused(tmp_path / "x.tar.gz")


@pytest.mark.parametrize(
    "name", ["shop.zip", "-x.tar.gz", "a b.tar.gz", "a..b.tar.gz", "x" * 65 + ".tar.gz", ".tar.gz"]
)
def test_a_name_that_gives_no_id_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"")
    assert "name" in refused(path)


def test_what_is_no_gzip_no_tar_truncated_or_damaged_is_refused(artifact):
    whole = artifact.read_bytes()
    artifact.write_bytes(b"PK\3\4 a zip")
    assert "not a gzip" in refused(artifact)
    artifact.write_bytes(b"")
    assert "not a gzip" in refused(artifact)
    artifact.write_bytes(whole[: len(whole) // 2])
    assert "truncated" in refused(artifact)
    artifact.write_bytes(whole[:-6])
    assert "truncated" in refused(artifact)
    artifact.write_bytes(whole[:-8] + b"\0\0\0\0" + whole[-4:])
    assert "damaged" in refused(artifact)
    artifact.write_bytes(gzip.compress(b"hello" * 1000))
    assert "no tar" in refused(artifact)
    artifact.write_bytes(gzip.compress(b""))
    assert "no tar" in refused(artifact)


def packing(path, *files):
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for name, text in files:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(text), 1.5
            tar.addfile(member, io.BytesIO(text))
    return check.check_artifact(path.name, path.parent)


@pytest.mark.parametrize("name", [".slipway/settings", "./.slipway/settings"])
def test_what_an_artifact_says_it_needs_is_read_wherever_it_lies_in_it(tmp_path, name):
    path = tmp_path / f"shop-{SHA}.tar.gz"
    around = [("a" * 150 + "/long.py", b"x" * 700), ("empty", b""), ("big", b"y" * (3 << 20))]
    needed = (name, b"DATABASE_URL\nPAYMENT_KEY  # since 3\n")
    for files in ([needed, *around], [*around, needed], [around[0], needed, *around[1:]]):
        assert packing(path, *files)["settings"] == ["DATABASE_URL", "PAYMENT_KEY"]
    assert packing(path, *around)["settings"] == []
    assert packing(path, ("docs/.slipway/settings", b"NOT_MINE\n"))["settings"] == []


def test_a_value_among_the_names_is_refused_and_not_repeated(tmp_path):
    path = tmp_path / f"shop-{SHA}.tar.gz"
    with pytest.raises(check.Refused, match=r"Line 2 of the app's .slipway/settings.*pack it anew") as refusal:
        packing(path, (".slipway/settings", b"A\nPAYMENT_KEY=hunter2\n"))
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("text", ["", "a/b", "..", "a..b", "a b", "-a", ".a", "x" * 300, "a\n", "a;reboot", "$(id)"])
def test_what_is_no_id_is_refused_and_shown_short(text):
    with pytest.raises(check.Refused) as refusal:
        check.check_id(text)
    assert len(str(refusal.value)) < 300
    assert "\n" not in str(refusal.value)


def test_a_misspelt_variable_is_refused_with_the_right_one():
    known = check.known_names()
    check.check_names([*known, "app_domain", "__release_plan"], known)
    with pytest.raises(check.Refused, match="did you mean release_artifact"):
        check.check_names(["release_artefact"], known)
    with pytest.raises(check.Refused, match="README"):
        check.check_names(["release_zzzzzzzz"], known)


def run_check(monkeypatch, **arguments):
    """The task, as preflight.yml writes it."""
    monkeypatch.setattr(check.ActionBase, "run", lambda *_args: {})
    task = check.ActionModule.__new__(check.ActionModule)
    task._task = types.SimpleNamespace(args=arguments)
    return task.run(None, {})


def test_a_smoke_test_that_cannot_be_meant_is_refused_by_its_entry(monkeypatch):
    answer = run_check(monkeypatch, id="", smoke_tests=[{"path": "/"}, {"path": "/cart", "statsu": 200}])
    assert answer["refused"]
    assert answer["msg"].startswith("Entry 2 of release_smoke_tests ('/cart') has the key 'statsu'")
    assert not run_check(monkeypatch, id="", smoke_tests=[{"path": "/"}], watch="120").get("failed")


def test_a_warm_up_path_that_is_none_is_refused(monkeypatch):
    assert not run_check(monkeypatch, id="", warm_up=["/", "/api/books/"]).get("failed")
    assert "'books', not a path" in run_check(monkeypatch, id="", warm_up=["/", "books"])["msg"]


@pytest.mark.parametrize("seconds", ["abc", "-1", 3601, 1.5, True, ""])
def test_a_watch_that_is_no_number_of_seconds_is_refused(monkeypatch, seconds):
    answer = run_check(monkeypatch, id="", watch=seconds)
    assert "release_watch_seconds" in answer["msg"]
    assert answer["refused"]


# The words for the host and its answers


def test_words_keep_a_value_one_word_and_leave_out_what_is_empty():
    options = {"id": "--force", "token": "", "keep": None, "discard_on_failure": True, "force": False}
    assert ctl.words("activate", options, "me\nyou") == [
        *["sudo", "-n", "/usr/local/sbin/releasectl", "activate", "--id=--force", "--discard-on-failure"],
        *["--actor=me?you", "--json"],
    ]  # fmt: skip


def test_the_actor_is_the_person_or_the_run():
    assert ctl.actor({"USER": "ada"}).startswith("ada on ")
    assert ctl.actor({"USER": "runner", "GITHUB_ACTOR": "ada", "GITHUB_RUN_ID": "7"}) == "ada, run 7"


def test_an_answer_becomes_a_result_and_a_refusal_keeps_at_most_twenty_lines():
    good = ctl.understand("lock", 0, '{"ok": true, "changed": true, "message": "Yours.", "token": "t"}\n', "noise")
    assert (good["changed"], good["msg"], good["token"], "failed" in good) == (True, "Yours.", "t", False)
    lines = ", ".join(f'"{n}"' for n in range(30))
    bad = ctl.understand("activate", 1, f'{{"ok": false, "message": "No.", "journal": [{lines}]}}', "")
    assert (bad["failed"], bad["msg"], bad["journal"]) == (True, "No.", [str(n) for n in range(10, 30)])
    assert ctl.understand("activate", 75, '{"ok": true, "message": ""}', "")["failed"]


@pytest.mark.parametrize(
    ("code", "err", "word"),
    [
        (1, "sudo: a password is required", "role deployers"),
        (127, "sh: 1: sudo: not found", "role release"),
        (1, "sudo: /usr/local/sbin/releasectl: command not found", "role release"),
        (-9, "", "it said nothing"),
    ],
)
def test_silence_is_explained(code, err, word):
    answer = ctl.understand("status", code, "", err)
    assert answer["failed"]
    assert word in answer["msg"]


class Cut:
    """A host whose connection is cut while it activates; what it says afterwards, one answer for each question."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def __call__(self, verb, _options):
        self.asked.append(verb)
        if len(self.asked) == 1:
            raise ctl.AnsibleConnectionFailure("cut")
        return self.answers.pop(0)


@pytest.mark.failure("ssh-cut")
@pytest.mark.parametrize(
    ("watching", "asked", "message"),
    [
        (None, ["activate", "status"], "new is live."),
        ({"release": "new"}, ["activate", "status", "activate"], "new was live for 3 s and went back"),
    ],
)
def test_a_release_that_is_still_watched_after_a_cut_is_waited_for(monkeypatch, watching, asked, message):
    host = Cut({"live": {"release": "new"}, "watching": watching}, {"failed": True, "msg": message})
    task = ctl.ActionModule.__new__(ctl.ActionModule)
    task._ask = host
    task._connection = types.SimpleNamespace(reset=lambda: None)
    monkeypatch.setattr(ctl, "PAUSE", 0)
    assert task._patiently("activate", {"id": "new"})["msg"] == message
    assert host.asked == asked


@pytest.mark.parametrize("minutes", [-1, 61, "soon", True, None, "nan"])
def test_a_canary_that_cannot_be_meant_is_refused(monkeypatch, minutes):
    assert "release_canary_minutes" in run_check(monkeypatch, id="", canary=minutes)["msg"]
    assert not run_check(monkeypatch, id="", canary="0.5").get("failed")


@pytest.mark.parametrize(
    ("target", "host_key", "recipient", "said"),
    [
        ("backup.example.com", KEY, "", "not user@host"),
        ("-oProxyCommand=x@y", KEY, "", "not user@host"),
        ("keep@backup", "", "", "ssh-keyscan -t ed25519 backup"),
        ("keep@backup", "AAAA", "", "not the public host key"),
        ("keep@backup", KEY, "AGE-SECRET-KEY-1", "no public key of age"),
        ("keep@backup", KEY, f"age1{'q' * 58}", ""),
        ("", "", "", ""),
    ],
)
def test_a_place_for_restore_points_is_looked_at_before_any_host(monkeypatch, target, host_key, recipient, said):
    answer = run_check(
        monkeypatch, id="", restore_point={"target": target, "host_key": host_key, "recipient": recipient}
    )
    assert said in answer["msg"]
    assert bool(answer.get("failed")) == bool(said)


def test_a_sentence_that_refuses_asks_no_host(monkeypatch):
    task = ctl.ActionModule.__new__(ctl.ActionModule)
    monkeypatch.setattr(ctl.ActionBase, "run", lambda *_args: {})
    task._task = types.SimpleNamespace(args={"verb": "lock", "refuse": "new is live already."}, check_mode=False)
    task._patiently = lambda *_words: pytest.fail("it was asked")
    assert task.run() == {"failed": True, "refused": True, "changed": False, "msg": "new is live already."}


# The verdict

LIVE = {"live": {"release": "old"}, "changed": False}
OK = {"changed": True}


def host(**facts):
    return {"status": LIVE, "lease": OK, "prepared": OK, **facts}


def test_all_hosts_live_is_a_success_that_names_what_was_before():
    end = verdict.close({"a": host(activated=OK), "b": host(activated=OK)}, "new")
    assert (end["troubled"], end["undo"], end["discard"]) == (False, [], [])
    assert end["closing"] == "new is live on a, b in place of old."


def test_a_hook_that_failed_after_the_switch_is_told_once_and_fails_nothing():
    warned = {**OK, "hook_warnings": ["the hook after_activate of new failed (exit status 3)"]}
    end = verdict.close({"a": host(activated=warned), "b": host(activated=warned)}, "new")
    assert not end["troubled"]
    assert end["closing"] == (
        "new is live on a, b in place of old. Warning: the hook after_activate of new failed (exit status 3)."
    )


def test_a_first_release_says_so():
    end = verdict.close({"a": host(activated=OK, status={"live": None})}, "new")
    assert end["closing"] == "new is live on a, the first release."


def test_a_refused_release_takes_back_the_hosts_that_switched_and_throws_it_away_on_the_others():
    hosts = {
        "a": host(activated=OK, undone={"release": "old", "changed": True}),
        "b": host(trouble={"msg": "It crashed", "journal": ["Traceback"], "discarded": True}),
        "c": host(activated={"skipped": True}),
    }
    end = verdict.close(hosts, "new")
    assert (end["troubled"], end["undo"], end["discard"]) == (True, ["a"], ["c"])
    assert end["journal"] == ["Traceback"]
    assert end["closing"] == "new was not deployed. b: It crashed. Outcome: a went back to old."


def test_a_release_that_was_there_before_is_not_thrown_away():
    end = verdict.judge({"a": host(prepared={"changed": False}, trouble={"msg": "x"})})
    assert end["discard"] == []


def test_before_the_switch_the_sentence_says_that_nothing_was_switched():
    end = verdict.close({"a": host(trouble={"msg": "No disk."}, prepared={"failed": True})}, "new")
    assert end["closing"] == "new was not deployed. No disk. Outcome: nothing was switched, old still serves."


def test_what_is_live_is_named_even_when_it_is_the_reason():
    end = verdict.close({"a": {"status": {"failed": True, **LIVE}, "trouble": {"msg": "old is live already."}}}, "old")
    assert end["closing"].endswith("nothing was switched, old still serves.")


def test_a_host_that_went_back_by_itself_keeps_the_release_and_is_named_with_the_others():
    trouble = {"msg": "new was live for 3 s and went back.", "was_live": True, "went_back": "old"}
    hosts = {"a": host(activated=OK, undone={"release": "old"}), "b": host(trouble=trouble)}
    end = verdict.close(hosts, "new")
    assert (end["undo"], end["discard"]) == (["a"], [])
    assert end["closing"].endswith("b: new was live for 3 s and went back. Outcome: a, b went back to old.")
    alone = verdict.close({"b": host(trouble=trouble)}, "new")
    assert alone["closing"].endswith("Outcome: b went back to old.")


def test_a_host_that_could_not_go_back_is_named():
    end = verdict.close({"a": host(activated=OK, trouble={"msg": "x"}, undone={"failed": True, "msg": "no"})}, "new")
    assert end["closing"].endswith("Outcome: a could not go back: no.")


def test_one_that_went_back_across_a_migration_that_breaks_it_says_so():
    undone = {"release": "old", "changed": True, "breaking": ["shop.0004_code"]}
    end = verdict.close({"a": host(activated=OK, trouble={"msg": "x"}, undone=undone)}, "new")
    assert end["closing"].endswith(
        "a went back to old. It may not work with what was migrated meanwhile, shop.0004_code: see docs/ops/restore.md."
    )


def test_a_host_that_nobody_reached_is_a_failure():
    end = verdict.judge({"a": host(activated=OK), "b": {"status": None}})
    assert (end["troubled"], end["undo"]) == (True, ["a"])
    assert "b: could not be reached." in end["reasons"]


def test_a_host_that_had_it_keeps_it_and_the_others_catch_up():
    had = {"status": {"live": {"release": "new"}}, "lease": OK, "prepared": {"changed": False}}
    hosts = {"a": {**had, "activated": {"skipped": True}}, "b": host(activated=OK)}
    assert verdict.judge(hosts, "new")["reasons"] == ""
    assert verdict.close(hosts, "new")["closing"] == "new is live on b in place of old. a had it already."
    failed = {**hosts, "b": host(trouble={"msg": "It crashed."})}
    end = verdict.close(failed, "new")
    assert (end["undo"], end["discard"]) == ([], ["b"])
    assert end["closing"].endswith("nothing was switched, new and old still serves.")
    # One that was lost before it gave its lease is lost all the same.
    assert verdict.judge({"a": {"status": had["status"], "lease": None}, "b": host(activated=OK)}, "new")["troubled"]


def test_a_host_that_was_left_out_is_named():
    end = verdict.close({"a": host(activated=OK)}, "new", ["c"])
    assert end["closing"].startswith("new is live on a in place of old. Left out: c, which keeps what it has")


# The edge


def certify(tmp_path, name):
    """Make an authority and a certificate for a name, both in one."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now().astimezone()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    path = tmp_path / f"{name}.pem"
    path.write_bytes(
        pem
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path, pem.decode()


class Edge(http.server.ThreadingHTTPServer):
    """Answers from its list, the last answer for ever; notes the names it was asked for."""

    def __init__(self, answers):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = answers
        self.asked = []

    def handle_error(self, request, client_address):
        """A client that refuses the certificate is no news."""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.server.asked.append((self.headers["Host"], self.path))
        status, release = self.server.answers[0]
        if len(self.server.answers) > 1:
            self.server.answers.pop(0)
        self.send_response(status)
        if release:
            self.send_header("X-Release", release)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        """Keep the test's output clean."""


@pytest.fixture
def serve(tmp_path):
    running = []

    def start(answers, name="shop.test"):
        path, pem = certify(tmp_path, name)
        server = Edge(answers)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        running.append(server)
        return server, pem

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def question(server, release="new"):
    return edge.Question("shop.test", "/readyz", server.server_address[1], release)


def test_the_edge_must_be_right_several_times_in_a_row(serve):
    server, pem = serve([(200, "new"), (200, "old"), (200, "new")])
    assert edge.convince(["127.0.0.1"], question(server), edge.trust(pem), 3, 5) == ""
    assert len(server.asked) == 5
    assert server.asked[0] == ("shop.test", "/readyz")


@pytest.mark.parametrize(
    ("answer", "word"),
    [((502, None), "answered 502"), ((200, None), "X-Release"), ((200, "old"), "from old, not from new")],
)
def test_a_wrong_answer_is_named_when_time_is_up(serve, answer, word):
    server, pem = serve([answer])
    assert word in edge.convince(["127.0.0.1"], question(server), edge.trust(pem), 2, 0.5)


def test_a_certificate_of_another_name_or_authority_is_not_trusted(serve):
    server, pem = serve([(200, "new")], name="other.test")
    assert "certificate" in edge.convince(["127.0.0.1"], question(server), edge.trust(pem), 1, 0.3)
    server, _ = serve([(200, "new")])
    assert "certificate" in edge.convince(["127.0.0.1"], question(server), edge.trust(pem), 1, 0.3)
    assert server.asked == []


def test_a_closed_port_is_named(serve):
    server, pem = serve([(200, "new")])
    asked = question(server)
    server.shutdown()
    server.server_close()
    assert "Connection refused" in edge.convince(["127.0.0.1"], asked, edge.trust(pem), 1, 0.3)


def test_a_host_that_is_left_out_may_be_who_answers(serve):
    server, pem = serve([(200, "old")] * 50)
    asked = edge.Question(**{**vars(question(server)), "left_out": ("app2",)})
    assert "answered from old, not from new; app2 may be answering" in edge.convince(
        ["127.0.0.1"], asked, edge.trust(pem), 1, 0.3
    )


def listed(*entries):
    return edge.smoke.parse(list(entries))


def test_every_smoke_test_has_to_hold_at_every_edge(serve):
    server, pem = serve([(200, "new")])
    both = listed({"path": "/a"}, {"path": "/b", "method": "HEAD"})
    assert edge.prove(["127.0.0.1", "localhost"], question(server), both, edge.trust(pem), 5) == ""
    assert [path for _, path in server.asked] == ["/a", "/b", "/a", "/b"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, "new"), "answered 404, not 200"),
        ((200, None), "without the header X-Release"),
        ((200, "old"), "answered from old, not from new"),
    ],
)
def test_a_smoke_test_that_does_not_hold_is_named_with_the_edge(serve, answer, words):
    server, pem = serve([answer])
    wrong = edge.prove(["127.0.0.1"], question(server), listed({"path": "/cart"}), edge.trust(pem), 0.5)
    assert wrong.startswith("The smoke test GET /cart failed: https://shop.test/cart through 127.0.0.1 ")
    assert words in wrong


def test_a_smoke_test_is_asked_again_until_time_is_up(serve):
    server, pem = serve([(503, "new"), (200, "old"), (200, "new")])
    assert edge.prove(["127.0.0.1"], question(server), listed({"path": "/"}), edge.trust(pem), 5) == ""
    assert len(server.asked) == 3


# Images

DIGEST = "sha256:" + "0123456789abcdef" * 4
TEAM = {"enabled": True, "registries": ["ghcr.io/acme"], "signatures": "ignored"}
P256, P384 = (oci.public_key(ec.generate_private_key(curve())) for curve in (ec.SECP256R1, ec.SECP384R1))
OUT = {"name": "registry", "ports": [443], "names": ["ghcr.io"], "groups": ["app"]}


def test_an_image_by_its_digest_is_a_release_and_by_its_tag_one_that_a_host_has_to_name():
    found = check.check_source("", f"ghcr.io/acme/shop@{DIGEST}", Path("/"))
    assert (found["release"], found["image"]) == ("shop-0123456789ab", f"ghcr.io/acme/shop@{DIGEST}")
    found = check.check_source("", f"ghcr.io/acme/shop:{SHA}", Path("/"))
    assert (found["release"], found["revision"]) == ("", SHA)


def test_an_artifact_and_an_image_at_once_or_what_names_none_are_refused(artifact):
    assert check.check_source(str(artifact), "", Path("/"))["image"] == ""
    with pytest.raises(check.Refused, match="both given"):
        check.check_source(str(artifact), f"ghcr.io/acme/shop@{DIGEST}", Path("/"))
    with pytest.raises(check.Refused, match="there is no 'latest'"):
        check.check_source("", "ghcr.io/acme/shop", Path("/"))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"registries": []}, "release_image_registries is empty"),
        ({"registries": ["acme"]}, "is no registry"),
        ({"credentials": {"ghcr.io/acme": {"username": "me"}}}, "needs username and password"),
        ({"credentials": {"quay.io": {"username": "me", "password": "hush"}}}, "release_image_registries does not"),
        ({"signatures": "required"}, "release_image_signature_key is empty"),
        ({"signature_key": "cosign.pub"}, "release_image_signature_key is no public key"),
        ({"signature_key": "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"}, "is no public key"),
        ({"signature_key": f"{P256}\n-----BEGIN PUBLIC KEY-----\nMF"}, "or more than that"),
        ({"signature_key": f"{P256}{P384}"}, "a key that is not ECDSA P-256"),
        ({"signature_key": "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----"}, "holds a private key"),
        ({"signature_key": "-----BEGIN CERTIFICATE-----"}, "without a key .keyless. are not checked"),
        ({"ca_certificate": "/etc/ca.pem"}, "release_image_ca_certificate is no certificate"),
        ({"command": ["sh", "run.sh"]}, "is not gunicorn"),
        ({"paths": ["/etc/../root"]}, "no plain absolute path"),
        ({"outbound": [{**OUT, "names": ["pypi.org"]}], "groups": ["app"]}, "lets nothing out to there"),
        ({"outbound": [{**OUT, "groups": ["edge"]}], "groups": ["app"]}, "lets nothing out to there"),
    ],
)
def test_what_hosts_could_not_keep_to_is_refused_before_the_first_change(changed, sentence):
    with pytest.raises((check.Refused, check.Refusal), match=sentence) as refused:
        check.check_images({**TEAM, **changed})
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    "changed",
    [
        {}, {"enabled": False, "registries": []}, {"credentials": {"ghcr.io": {"username": "me", "password": "x"}}},
        {"outbound": [OUT], "groups": ["app"]}, {"signatures": "required", "signature_key": f"{P256}\n{P256}"},
        {"outbound": [{**OUT, "names": [], "networks": ["any"], "user": "root"}], "groups": ["app"]},
        {"outbound": [{**OUT, "names": ["pypi.org"]}], "groups": ["data"]}, {"command": ["gunicorn", "shop.wsgi"]},
    ],
)  # fmt: skip
def test_what_they_can_keep_to_is_not(changed):
    check.check_images({**TEAM, **changed})
