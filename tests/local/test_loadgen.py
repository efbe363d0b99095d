"""The load generator against a server that misbehaves on purpose: it must see each loss, and invent none."""

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import ssl
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.loadgen import Load, LoadError, Plan
from benchmarks.loadgen.connection import Lost, Parser
from benchmarks.loadgen.engine import Engine
from benchmarks.loadgen.result import Outcome, Window, percentile, summarize
from benchmarks.loadgen.tally import compare, read_log

HOST = "bookshop.test"


class Authority:
    """A certificate authority of the test's own, and a server certificate by it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        now = datetime.datetime.now(datetime.UTC)
        key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])

        def certificate(subject: x509.Name, public: Any, extensions: list[x509.ExtensionType]) -> x509.Certificate:
            builder = x509.CertificateBuilder().subject_name(subject).issuer_name(name).public_key(public)
            builder = builder.serial_number(x509.random_serial_number())
            builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
            builder = builder.not_valid_after(now + datetime.timedelta(hours=1))
            for extension in extensions:
                builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            return builder.sign(key, hashes.SHA256())

        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        ca = certificate(name, key.public_key(), [x509.BasicConstraints(ca=True, path_length=None), identifier])
        names = [x509.DNSName(HOST), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
        leaf = certificate(subject, server_key.public_key(), [x509.SubjectAlternativeName(names), issuer])
        self.ca_file, self.chain, self.key = folder / "ca.pem", folder / "chain.pem", folder / "key.pem"
        self.ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
        self.chain.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
        self.key.write_bytes(
            server_key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


class Server:
    """Answers as the path says, and keeps a log as nginx would."""

    BODY: ClassVar[bytes] = b'<link href="/static/site.0123456789ab.css">'

    def __init__(self) -> None:
        self.log: Counter[str] = Counter()
        self.connections = 0
        self.paths: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.requests_per_connection: list[int] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        place = len(self.requests_per_connection)
        self.requests_per_connection.append(0)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.requests_per_connection[place] += 1
                path = head.split(" ")[1]
                headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
                self.paths[path] += 1
                self.agents.add(headers["User-Agent"])
                assert headers["Host"] == HOST
                if not await self.answer(path, writer, self.requests_per_connection[place]):
                    break
                await writer.drain()
                if headers.get("Connection") == "close":
                    break
        writer.close()

    def say(self, writer: asyncio.StreamWriter, status: int, body: bytes, *more: str) -> None:
        self.log[str(status)] += 1
        lines = [f"HTTP/1.1 {status} Because", f"Content-Length: {len(body)}", *more]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def answer(self, path: str, writer: asyncio.StreamWriter, nth: int) -> bool:
        match path.partition("?")[0]:
            case "/slow":
                await asyncio.sleep(float(path.partition("=")[2]))
                self.say(writer, 200, b"slept", "X-Release: shop-1")
            case "/drop":
                return False
            case "/drop-late":
                await asyncio.sleep(0.4)
                return False
            case "/reset":
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return False
            case "/half":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot a hundred")
                await writer.drain()
                return False
            case "/never":
                await asyncio.sleep(30)
            case "/garbage":
                writer.write(b"SSH-2.0-hello\r\n\r\n")
            case "/error":
                self.say(writer, 502, b"")
            case "/moved":
                self.say(writer, 302, b"", "Location: /")
            case "/bad-release":
                self.say(writer, 200, b"", "X-Release: shop-bad")
            case "/chunked":
                self.log["200"] += 1
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
                await asyncio.sleep(0.01)
                writer.write(b"1;x=y\r\n!\r\n0\r\nTrailer: 1\r\n\r\n")
            case "/last":
                self.say(writer, 200, b"bye", "Connection: close")
                return False
            case "/third-time-closed":
                if nth == 3:  # what an idle close that crosses the next request looks like to a client
                    return False
                self.say(writer, 200, b"ok")
            case _:
                self.say(writer, 200, self.BODY, "X-Release: shop-1")
        return True


@contextlib.asynccontextmanager
async def serving(authority: Authority) -> AsyncIterator[tuple[Server, int]]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.chain, authority.key)
    server = Server()
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=context)
    try:
        yield server, listener.sockets[0].getsockname()[1]
    finally:
        listener.close()


def plan(authority: Authority, port: int, **more: Any) -> Plan:
    given: dict[str, Any] = {
        "address": "127.0.0.1", "host": HOST, "port": port, "ca_file": str(authority.ca_file), "run_id": "unit",
        "rate": 200, "slow_share": 0.0, "max_requests": 60, "max_seconds": 10, "follow_static": False, "timeout": 1.5,
    }  # fmt: skip
    return Plan(**(given | more))


def drive(authority: Authority, **more: Any) -> tuple[dict[str, Any], Server]:
    async def run() -> tuple[dict[str, Any], Server]:
        async with serving(authority) as (server, port):
            engine = Engine(plan(authority, more.pop("port", port), **more))
            await engine.run()
            return summarize(engine.outcomes, engine.marks, engine.scheduled, engine.refused), server

    return asyncio.run(run())


def test_a_good_server_loses_nothing_and_both_tallies_agree(authority: Authority) -> None:
    result, server = drive(authority, follow_static=True, max_requests=200)
    total = result["total"]
    assert (total["scheduled"], total["sent"], total["answered"], total["lost"]) == (200, 200, 200, 0)
    assert total["complete"]
    assert total["by_release"] == {"shop-1": 200}
    assert 0 < total["latency_ms"]["p50"] <= total["latency_ms"]["p99"] <= total["latency_ms"]["max"]
    assert compare(result, server.log)["agree"]
    assert server.agents == {"slipway-load/unit"}
    assert server.paths["/static/site.0123456789ab.css"] > 20, "the static files of a page are fetched too"


def test_new_and_kept_connections_are_both_used(authority: Authority) -> None:
    # Slowly, so that a busy machine does not make requests overlap: those that do need connections of their own.
    result, server = drive(authority, rate=50, max_requests=200, new_share=0.2, kept=4)
    by = result["total"]["by_connection"]
    assert by["new"] == pytest.approx(40, abs=2)
    assert max(server.requests_per_connection) > 20
    assert server.requests_per_connection.count(1) >= by["new"]
    assert server.connections < 60


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/drop", "closed"),
        ("/reset", "reset"),
        ("/half", "truncated"),
        ("/never", "timeout"),
        ("/garbage", "protocol"),
        ("/error", "status"),
        ("/moved", "status"),
    ],
)
@pytest.mark.parametrize("new_share", [0.0, 1.0])
def test_every_kind_of_loss_is_seen(authority: Authority, path: str, reason: str, new_share: float) -> None:
    result, _ = drive(authority, api=(path,), max_requests=50, new_share=new_share, kept=3)
    total = result["total"]
    bad = total["by_kind"]["api"]
    assert bad == 10
    assert total["lost"] == bad
    assert set(total["lost_by_reason"]) <= {reason, "closed"}, total["lost_by_reason"]
    assert total["lost_by_reason"][reason] == bad
    assert total["answered"] == 40
    assert result["total"]["examples"][0]["reason"] == reason


def test_an_answer_from_a_refused_release_is_a_loss(authority: Authority) -> None:
    result, server = drive(authority, api=("/bad-release",), max_requests=50, refused=("shop-bad",))
    assert result["total"]["lost_by_reason"] == {"refused_release": 10}
    assert compare(result, server.log)["agree"], "the server did answer them"


def test_a_refused_release_named_later_counts_looking_back(authority: Authority) -> None:
    async def run() -> int:
        async with serving(authority) as (_, port):
            engine = Engine(plan(authority, port, api=("/bad-release",), max_requests=50))
            await engine.run()
            assert engine.snapshot()["lost"] == 0
            engine.refuse("shop-bad")
            return int(engine.snapshot()["lost"])

    assert asyncio.run(run()) == 10


def test_a_closed_port_is_refused(authority: Authority) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        result, _ = drive(authority, port=unused.getsockname()[1], max_requests=10)
    assert result["total"]["lost_by_reason"] == {"refused": 10}


def test_a_certificate_of_another_authority_is_a_loss(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path)
    result, server = drive(authority, ca_file=str(other.ca_file), max_requests=10)
    assert result["total"]["lost_by_reason"] == {"tls": 10}
    assert not server.log


def test_another_name_in_the_certificate_is_a_loss(authority: Authority) -> None:
    result, _ = drive(authority, host="elsewhere.test", max_requests=10)
    assert result["total"]["lost_by_reason"] == {"tls": 10}


def test_the_loop_is_open_a_slow_server_does_not_slow_the_sending(authority: Authority) -> None:
    result, _ = drive(
        authority, pages=("/slow?seconds=0.8",), rate=100, max_requests=50, new_share=0.0, kept=1, timeout=8.0
    )
    total = result["total"]
    assert total["sent"] == 50
    assert total["lost"] == 0
    phase = result["phases"][0]
    assert phase["to"] - phase["from"] < 2.0, "50 requests at 100/s leave in half a second, one by one they take 40 s"
    assert 790 < total["latency_ms"]["p50"] < 4000, "and none of them waited for another"


def test_what_the_server_closes_properly_costs_nothing(authority: Authority) -> None:
    result, server = drive(authority, pages=("/last",), new_share=0.0)
    assert result["total"]["lost"] == 0
    assert result["total"]["retried"] == 0
    assert max(server.requests_per_connection) == 1


def test_an_idle_connection_closed_under_a_request_is_retried_once_and_said_so(authority: Authority) -> None:
    result, server = drive(authority, pages=("/third-time-closed",), new_share=0.0, kept=2, max_requests=50)
    total = result["total"]
    assert total["lost"] == 0
    assert total["retried"] == server.requests_per_connection.count(3) >= 1
    assert compare(result, server.log)["agree"]


def test_a_request_taken_in_hand_and_dropped_is_never_retried(authority: Authority) -> None:
    result, server = drive(authority, api=("/drop-late",), new_share=0.0, kept=2, max_requests=50)
    assert result["total"]["retried"] == 0
    assert result["total"]["lost"] == 10
    assert server.paths["/drop-late"] == 10


def test_chunked_answers_are_read_to_their_end(authority: Authority) -> None:
    result, _ = drive(authority, pages=("/chunked",), kept=2)
    assert result["total"]["lost"] == 0


def test_phases_share_out_every_request(authority: Authority) -> None:
    async def run() -> dict[str, Any]:
        async with serving(authority) as (_, port):
            engine = Engine(plan(authority, port, max_requests=1000, rate=200))
            running = asyncio.create_task(engine.run())
            for name in ("deploy", "rollback"):
                await asyncio.sleep(0.2)
                engine.mark(name)
            await asyncio.sleep(0.2)
            engine.stop()
            await running
            return summarize(engine.outcomes, engine.marks, engine.scheduled)

    result = asyncio.run(run())
    assert [phase["name"] for phase in result["phases"]] == ["start", "deploy", "rollback"]
    assert sum(phase["sent"] for phase in result["phases"]) == result["total"]["sent"] == result["total"]["scheduled"]
    assert all(phase["sent"] > 20 for phase in result["phases"])


def test_bounds_in_count_and_time(authority: Authority) -> None:
    assert drive(authority, max_requests=5)[0]["total"]["sent"] == 5
    assert drive(authority, rate=50, max_requests=1000, max_seconds=0.3)[0]["total"]["sent"] in range(2, 18)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"rate": 0}, "rate is 0"),
        ({"rate": 1e9}, "rate is 1e"),
        ({"new_share": 1.5}, "new_share"),
        ({"kept": 0}, "kept"),
        ({"pages": ()}, "pages is empty"),
        ({"pages": ("http://elsewhere/",)}, "not a path"),
        ({"api": ("/a\r\nHost: b",)}, "not a path"),
        ({"max_seconds": 0}, "max_seconds"),
    ],
)
def test_a_wrong_plan_is_refused_with_a_sentence(authority: Authority, more: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        plan(authority, 1, **more)


def test_a_misspelt_plan_is_refused() -> None:
    with pytest.raises(ValueError, match="does not know pace"):
        Plan.from_dict({"pace": 1})


def test_the_mix_keeps_its_shares() -> None:
    made = Plan("127.0.0.1", HOST, "/x", "unit", api=("/api/",), slow_share=0.01, new_share=0.2)
    kinds = Counter(made.kind(number) for number in range(10_000))
    assert kinds["slow"] == pytest.approx(100, abs=5)
    assert kinds["page"] > kinds["api"] > 1900
    assert kinds["static"] > 4900
    slow_and_new = sum(made.kind(number) == "slow" and made.is_new(number) for number in range(10_000))
    assert 10 <= slow_and_new <= 30, "slow requests come on new and on kept connections"


# The parser, on its own.
def parse(data: bytes, step: int) -> Parser:
    parser = Parser()
    for begin in range(0, len(data), step):
        parser.feed(data[begin : begin + step])
    return parser


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No\r\n\r\n", b""),
        (b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nz", b"z"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n01234567\r\n2\r\nab\r\n0\r\n\r\n",
            b"01234567ab",
        ),
    ],
)
def test_the_parser_takes_bytes_as_they_come(data: bytes, body: bytes, step: int) -> None:
    parser = parse(data, step)
    assert parser.done
    assert parser.response.body == body


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/2 what\r\n\r\n",
        b"x" * 70_000,
    ],
)
def test_the_parser_refuses_what_is_not_one_response(data: bytes) -> None:
    with pytest.raises(Lost, match="protocol"):
        parse(data, 1000)


def test_a_body_until_the_end_is_whole_only_then() -> None:
    parser = parse(b"HTTP/1.0 200 OK\r\n\r\nabc", 100)
    assert not parser.done
    parser.eof()
    assert parser.done
    assert parser.response.close


# The tally.
def outcome(**more: Any) -> Outcome:
    given: dict[str, Any] = {"at": 0.0, "kind": "page", "new": False, "status": 200}
    return Outcome(**(given | more))


def tally(outcomes: list[Outcome]) -> dict[str, Any]:
    return summarize(outcomes, [("start", 0.0)], len(outcomes))


def test_the_log_is_read_by_user_agent_alone() -> None:
    lines = [
        'rest of a cut line", "user_agent": "slipway-load/a"}',
        '{"status": "200", "user_agent": "slipway-load/a"}',
        '{"status": 502, "user_agent": "slipway-load/a"}',
        '{"status": "200", "user_agent": "slipway-load/ab"}',
        '{"status": "200", "uri": "slipway-load/a", "user_agent": "curl"}',
    ]
    assert read_log(lines, "slipway-load/a") == {"200": 1, "502": 1}


@pytest.mark.parametrize(
    ("outcomes", "log", "agree"),
    [
        ([outcome()] * 3, {"200": 3}, True),
        ([outcome()] * 3, {"200": 4}, False),  # a request that the client does not know of
        ([outcome()] * 3, {"200": 2}, False),  # an answer that the server does not know of
        ([outcome()] * 3, {"200": 3, "502": 1}, False),
        ([outcome(), outcome(status=502, lost="status")], {"200": 1, "502": 1}, True),
        ([outcome(), outcome(status=502, lost="status")], {"200": 2}, False),
        ([outcome(), outcome(status=0, lost="timeout")], {"200": 1, "499": 1}, True),
        ([outcome(), outcome(status=0, lost="reset")], {"200": 2}, True),  # answered, but it never arrived
        ([outcome(), outcome(status=0, lost="refused")], {"200": 1}, True),
        ([outcome(), outcome(status=0, lost="reset")], {"200": 3}, False),
        ([], {}, False),  # nothing seen is no agreement
    ],
)
def test_agreement_of_the_two_tallies(outcomes: list[Outcome], log: dict[str, int], agree: bool) -> None:
    assert compare(tally(outcomes), Counter(log))["agree"] is agree


def test_a_request_without_an_outcome_shows() -> None:
    assert not summarize([outcome()], [("start", 0.0)], 2)["total"]["complete"]


def at(due: float, latency: float, kind: str = "api", **more: Any) -> Outcome:
    return Outcome(due, kind, False, latency=latency, status=200, **more)


def test_windows_are_told_apart_from_what_lies_between_them() -> None:
    outcomes = [
        *(at(due / 100, 0.010) for due in range(100)),  # before any window
        *(at(1 + due / 100, 0.020) for due in range(100)),
        *(at(2 + due / 100, 0.100) for due in range(100)),
        *(at(3 + due / 100, 0.030) for due in range(100)),
        *(at(4 + due / 100, 0.300) for due in range(50)),
    ]
    outcomes[250] = at(2.5, 2.1, "slow")
    outcomes[251] = at(2.51, 0.001, "static")
    outcomes[252] = at(2.52, 9.0, lost="timeout")
    windows = [Window("calm", 1.0, 2.0), Window("switch/deploy", 2.0, 3.0), Window("calm", 3.0, 4.0)]
    windows.append(Window("switch/rollback", 4.0))  # open when the run ended
    seen = summarize(outcomes[::-1], [("start", 0.0)], len(outcomes), windows=windows)["windows"]
    assert list(seen) == ["calm", "switch", "switch/deploy", "switch/rollback"]
    assert (seen["calm"]["windows"], seen["calm"]["seconds"], seen["calm"]["sent"]) == (2, 2.0, 200)
    assert (seen["switch"]["sent"], seen["switch/deploy"]["sent"], seen["switch/rollback"]["sent"]) == (150, 100, 50)
    assert (seen["switch"]["lost"], seen["switch/deploy"]["lost"], seen["switch/rollback"]["lost"]) == (1, 1, 0)
    calm, deploy = seen["calm"]["latency_ms"], seen["switch/deploy"]["latency_ms"]
    assert [calm["api"][share] for share in ("p50", "p95", "p99")] == [20.0, 30.0, 30.0]
    answered = {kind: deploy[kind]["answered"] for kind in deploy}
    assert answered == {"all but slow": 98, "api": 97, "slow": 1, "static": 1}
    assert (deploy["all but slow"]["max"], deploy["slow"]["max"], deploy["static"]["p99"]) == (100.0, 2100.0, 1.0)
    assert seen["switch"]["latency_ms"]["all but slow"]["p99"] == 300.0


def test_what_is_due_at_the_border_belongs_to_the_window_that_begins() -> None:
    outcomes = [at(0.5, 0.010), at(1.0, 0.010), at(1.5, 0.010), at(2.0, 0.010)]
    seen = summarize(outcomes, [("start", 0.0)], 4, windows=[Window("one", 0.0, 1.0), Window("two", 1.0, 2.0)])
    assert {name: window["sent"] for name, window in seen["windows"].items()} == {"one": 1, "two": 2}


def test_percentiles() -> None:
    assert [percentile(range(1, 101), share) for share in (0.5, 0.9, 0.99, 1.0)] == [50, 90, 99, 100]
    assert percentile([], 0.5) == 0.0
    assert percentile([7.0], 0.99) == 7.0


# As a process.
@pytest.fixture
def standing(authority: Authority) -> Iterator[tuple[Server, int]]:
    """The test server in a thread of its own, for what runs outside this process."""
    import threading

    ready = threading.Event()
    found: dict[str, Any] = {}

    async def stand() -> None:
        async with serving(authority) as (server, port):
            found.update(server=server, port=port, loop=asyncio.get_running_loop(), stop=asyncio.Event())
            ready.set()
            await found["stop"].wait()

    thread = threading.Thread(target=lambda: asyncio.run(stand()))
    thread.start()
    ready.wait(5)
    yield found["server"], found["port"]
    found["loop"].call_soon_threadsafe(found["stop"].set)
    thread.join(5)


def test_a_run_under_control(authority: Authority, standing: tuple[Server, int]) -> None:
    server, port = standing
    with Load(plan(authority, port, api=("/bad-release",), max_requests=5000)) as load:
        load.mark("one")
        assert load.mark("two") > 0
        load.refuse("shop-bad")
        while load.snapshot()["done"] < 40:
            pass
        result = load.stop()
    assert [phase["name"] for phase in result["phases"]] == ["start", "one", "two"]
    assert result["total"]["lost_by_reason"].keys() == {"refused_release"}
    assert result["total"]["complete"]
    assert compare(result, server.log)["agree"]
    assert result["cpu_seconds"] > 0


def test_windows_under_control(authority: Authority, standing: tuple[Server, int]) -> None:
    _, port = standing
    with Load(plan(authority, port, max_requests=5000)) as load:

        def wait(answers: int) -> None:
            until = load.snapshot()["done"] + answers
            while load.snapshot()["done"] < until:
                pass

        first = load.open("calm")
        wait(20)
        assert load.open("switch/deploy") > first
        wait(20)
        load.close()
        wait(20)
        result = load.stop()
    seen = {name: window["sent"] for name, window in result["windows"].items()}
    assert seen["switch"] == seen["switch/deploy"] > 10
    assert seen["calm"] > 10
    assert sum(seen[name] for name in ("calm", "switch")) < result["total"]["sent"] - 10
    assert result["total"]["complete"]


def test_no_load_without_a_master(authority: Authority, standing: tuple[Server, int]) -> None:
    _, port = standing
    load = Load(plan(authority, port, max_requests=100_000, max_seconds=60))
    with load:
        process = load._process
        assert process is not None
    assert process.poll() is not None, "leaving the block ends the run"


def test_a_generator_that_cannot_start_says_why(authority: Authority, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LoadError, match="ended on its own"), Load(plan(authority, 1, ca_file="/nowhere/ca.pem")):
        pass
    assert "/nowhere/ca.pem is not there" in capfd.readouterr().err


def test_the_command_line(authority: Authority, standing: tuple[Server, int], tmp_path: Path) -> None:
    import json

    _, port = standing

    def run(made: Plan) -> subprocess.CompletedProcess[str]:
        (tmp_path / "plan.json").write_text(json.dumps(made.as_dict()))
        command = [sys.executable, "-m", "benchmarks.loadgen", "--plan", str(tmp_path / "plan.json")]
        return subprocess.run([*command, "--output", str(tmp_path / "out.json")], capture_output=True, text=True)

    assert run(plan(authority, port, max_requests=20)).returncode == 0
    assert json.loads((tmp_path / "out.json").read_text())["total"]["answered"] == 20
    assert run(plan(authority, port, max_requests=20, pages=("/error",))).returncode == 1
