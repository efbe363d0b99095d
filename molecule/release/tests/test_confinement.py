"""Whoever holds the deploy key can release code, and nothing more: tried from a real session of the deployer."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shlex
import subprocess
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
FEATHERWEIGHT = ROOT / "lab" / "featherweight"
INCOMING = "/opt/app/incoming"
RELEASECTL = "/usr/local/sbin/releasectl"


class Deployer:
    """A shell of the deployer on app1."""

    def __init__(self, lab: dict[str, Any]) -> None:
        self.config = lab["ssh_config"]

    def run(self, script: str, given: bytes = b"") -> subprocess.CompletedProcess[str]:
        words = ["ssh", "-F", self.config, "deployer@app1", f"bash -c {shlex.quote(script)}"]
        done = subprocess.run(words, input=given, capture_output=True, timeout=300, check=False)
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        return subprocess.CompletedProcess(words, done.returncode, out, err)

    def upload(self, content: bytes) -> str:
        name = f"try-{uuid.uuid4().hex[:12]}.tar.gz"
        done = self.run(f"cat > {INCOMING}/{name}", content)
        assert done.returncode == 0, done.stderr
        return name


@pytest.fixture(scope="module")
def deployer(lab: dict[str, Any]) -> Deployer:
    return Deployer(lab)


@pytest.fixture(scope="module", autouse=True)
def nothing_changes(app1: Any, ops: Any, edge: Any, cargo: dict[str, Any]) -> Iterator[None]:
    """Whatever is tried: the same release serves, and nothing of the attempts is left."""
    live = ops.have_live(edge, cargo["good-1"])
    before = seen(app1, ops)
    yield
    app1.run(f"rm -rf {INCOMING}/try-* /tmp/marker-*")
    assert edge.get().release == live
    assert seen(app1, ops) == before


def seen(app1: Any, ops: Any) -> dict[str, Any]:
    status = ops.status()
    kept = {key: status[key] for key in ("live", "previous", "releases", "intent", "lease")}
    places = "/opt/app/releases /var/lib/app/staging /var/www/app/static /etc/sudoers.d /etc/slipway /usr/local"
    return {**kept, "files": app1.check_output(f"find {places} -not -path '*/venv/*' | sort | sha256sum")}


def archive(files: dict[str, str | bytes]) -> bytes:
    """A featherweight release with some files put in their places."""
    content: dict[str, bytes] = {
        str(path.relative_to(FEATHERWEIGHT)): path.read_bytes()
        for path in FEATHERWEIGHT.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    content["requirements.lock"] = b""
    content |= {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in content.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text), 0o755
            tar.addfile(info, io.BytesIO(text))
    return gzip.compress(buffer.getvalue(), mtime=0)


@pytest.fixture
def prepare(deployer: Deployer, ops: Any) -> Callable[..., dict[str, Any]]:
    def prepare(content: bytes, release: str = "try-1") -> dict[str, Any]:
        name = deployer.upload(content)
        digest = hashlib.sha256(content).hexdigest()
        answer: dict[str, Any] = ops.releasectl("prepare", "--id", release, "--artifact", name, "--sha256", digest)
        return answer

    return prepare


# What it may


def test_sudo_shows_releasectl_and_nothing_else(deployer: Deployer) -> None:
    listing = deployer.run("sudo -n -l").stdout
    commands = listing.split("may run the following commands", 1)[1].splitlines()[1:]
    assert [line.strip() for line in commands if line.strip()] == [f"(root) NOPASSWD: {RELEASECTL}"]


@pytest.mark.parametrize(
    "attempt",
    [
        "sudo -n id",
        "sudo -n -u app id",
        "sudo -n -u app-build id",
        "sudo -n -g app-edge id",
        "sudo -n -s",
        "sudo -n -i",
        "sudo -n /bin/sh -c id",
        "sudo -n -e /etc/passwd",
        "sudoedit -n /etc/slipway/releasectl.json",
        "sudo -n /usr/local/libexec/slipway/hostctl stop",
        f"sudo -n -u app {RELEASECTL} status",
        f"sudo -n -C 9 {RELEASECTL} status",
        f"sudo -n PYTHONPATH=/tmp {RELEASECTL} status",
        f"sudo -n -E {RELEASECTL} status",
        f"sudo -n -D /tmp {RELEASECTL} status",
        f"ln -sf {RELEASECTL} ~/r && sudo -n ~/r status",
        f"cp {RELEASECTL} ~/r && sudo -n ~/r status",
        "systemctl --no-ask-password stop nginx",
        "systemctl --no-ask-password set-environment A=b",
        "systemd-run --no-ask-password id",
        "systemd-run --no-ask-password --uid=app id",
        "loginctl --no-ask-password enable-linger deployer",
        "su -c id",
        "unshare -r id -un | grep -x root && mount -t tmpfs none /mnt",
    ],
)
def test_no_other_way_to_more_rights(deployer: Deployer, attempt: str) -> None:
    done = deployer.run(f"{{ {attempt} ; }} < /dev/null")
    assert done.returncode != 0, done.stdout
    assert "uid=" not in done.stdout
    deployer.run("rm -f ~/r")


# What it may read


def secrets(app1: Any) -> list[str]:
    names = app1.check_output("ls /etc/app/env/").split()
    values = [app1.check_output(f"cat /etc/app/env/{name}") for name in names if "KEY" in name or name.endswith("_URL")]
    assert values
    # Of an address, the password alone.
    return [value.split("://", 1)[1].split("@")[0].split(":", 1)[1] if "://" in value else value for value in values]


def test_the_settings_cannot_be_read(app1: Any, deployer: Deployer) -> None:
    known = secrets(app1)
    assert all(len(secret) >= 16 for secret in known)
    for command in (
        "cat /etc/app/env/* /etc/app/env.*/* /run/slipway/env/* /run/slipway/jobs/*/*",
        "cat /var/lib/app/state.json /var/log/app/releases/*",
        "cat /proc/[0-9]*/environ",
        "cat /proc/[0-9]*/cmdline | tr '\\0' ' '",
        "systemctl cat --no-pager 'gunicorn@*' 'celery-worker@*' app.service",
        "systemctl show --no-pager 'gunicorn@*' 'celery-worker@*' 'celery-beat@*'",
        "journalctl --no-pager --since -1h",
        f"sudo -n {RELEASECTL} status --json; sudo -n {RELEASECTL} history --json --limit 1000",
    ):
        done = deployer.run(command)
        for secret in known:
            assert secret not in done.stdout + done.stderr, command
    # Everything on the host that can be read at all. The lab's own machine keeps nothing of it in a container.
    where = "/etc /home /opt /root /run /srv /tmp /usr/local /var"
    found = deployer.run(f"grep -rlsIF -f - {where}", "\n".join(known).encode())
    assert found.stdout == ""
    # And this is what it looks like where one may: the search does find.
    control = app1.run(f"grep -rlsF -- {shlex.quote(known[0])} /etc/app/")
    assert "/etc/app/env" in control.stdout


def test_the_app_cannot_be_reached_behind_the_edge(deployer: Deployer) -> None:
    reach = (
        "import glob, socket\n"
        "for path in ['/run/app/current.sock', *glob.glob('/run/app/*/gunicorn.sock')]:\n"
        "    try:\n"
        "        socket.socket(socket.AF_UNIX).connect(path); print('reached', path)\n"
        "    except PermissionError:\n"
        "        print('barred')\n"
    )
    done = deployer.run("python3 -", reach.encode())
    assert "barred" in done.stdout
    assert "reached" not in done.stdout


# Where it may write


def test_it_writes_to_incoming_its_home_and_the_sticky_directories_alone(deployer: Deployer) -> None:
    tree = "find / -path /proc -prune -o \\( -type f -o -type d \\) -writable"
    own = ("/home/deployer/", f"{INCOMING}/", f"/run/user/{deployer.run('id -u').stdout.strip()}/")
    found = deployer.run(f"{tree} ! -perm -1000 -print 2>/dev/null").stdout.splitlines()
    assert [path for path in found if not f"{path}/".startswith(own)] == []
    assert "/home/deployer" in found
    # In a sticky directory nobody touches what is another's.
    sticky = deployer.run(f"{tree} -perm -1000 -print 2>/dev/null").stdout.splitlines()
    temporary = (INCOMING, "/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run/lock")
    assert [path for path in sticky if not path.startswith(temporary)] == []
    assert INCOMING in sticky


# What it hands over: arguments


@pytest.mark.parametrize(
    "arguments",
    [
        "prepare --id try-1 --artifact /etc/shadow --sha256 " + "0" * 64,
        "prepare --id try-1 --artifact ../../../etc/shadow --sha256 " + "0" * 64,
        "prepare --id ../try-1 --artifact x --sha256 " + "0" * 64,
        "activate --id ../../../etc",
        "activate --id 'a b'",
        "activate --id " + "x" * 300,
        "activate --id $'a\\nb'",
        "discard --id .",
        "discard --id ../releases",
        "rollback --id ''",
        "rollback --id -- -rf",
        "status --config /tmp/evil.json",
        "lock --purpose $'a\\e[2Jb'",
        "prune --keep 0",
        "prune --keep -1",
        "history --limit 99999999999999999999",
        "environment app",
        "--help=x",
        "",
    ],
)
def test_arguments_that_are_none_get_one_sentence(deployer: Deployer, arguments: str) -> None:
    done = deployer.run(f"sudo -n {RELEASECTL} {arguments} --json")
    assert done.returncode == 2, done.stdout
    answer = json.loads(done.stdout)
    assert answer["ok"] is False
    assert answer["message"].isprintable()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("target", ["/etc/shadow", "/etc/app/env/DATABASE_URL", "/var/lib/app/state.json", "/dev/zero"])
def test_an_artifact_that_is_a_link_is_not_followed(app1: Any, deployer: Deployer, ops: Any, target: str) -> None:
    deployer.run(f"ln -s {target} {INCOMING}/try-link")
    answer = ops.releasectl("prepare", "--id", "try-1", "--artifact", "try-link", "--sha256", "0" * 64)
    assert not answer["ok"]
    assert "plain file" in answer["message"]
    assert "SHA-256" not in answer["message"]


# Its environment and where it stands


@pytest.mark.parametrize(
    "environment",
    [
        "PYTHONPATH=$PWD",
        "PYTHONHOME=$PWD",
        "PYTHONSTARTUP=$PWD/json.py PYTHONINSPECT=1",
        "PYTHONUSERBASE=$PWD",
        "PYTHONBREAKPOINT=json.x PYTHONWARNINGS=error PYTHONEXECUTABLE=$PWD/python3",
        "LD_PRELOAD=$PWD/evil.so LD_LIBRARY_PATH=$PWD LD_AUDIT=$PWD/evil.so",
        "PATH=$PWD:$PATH",
        "TMPDIR=$PWD TMP=$PWD TEMP=$PWD HOME=$PWD XDG_CONFIG_HOME=$PWD",
        "SUDO_EDITOR=$PWD/python3 EDITOR=$PWD/python3 VISUAL=$PWD/python3 SUDO_ASKPASS=$PWD/python3",
        "SYSTEMD_PAGER=$PWD/python3 PAGER=$PWD/python3 SYSTEMD_EDITOR=$PWD/python3",
        "BASH_ENV=$PWD/python3 ENV=$PWD/python3 SHELLOPTS=xtrace",
        "SUDO_USER=root SUDO_UID=0 SERVICE_RESULT=x UV_CONFIG_FILE=$PWD/uv.toml GCONV_PATH=$PWD",
    ],
)
def test_nothing_of_its_environment_reaches_root(app1: Any, deployer: Deployer, environment: str) -> None:
    marker = f"/tmp/marker-{uuid.uuid4().hex}"
    python = f"import os\nopen({marker!r}, 'w').write(str(os.geteuid()))\n"
    shell = f"#!/bin/sh\nid -u > {marker}\n"
    traps = ["json.py", "argparse.py", "sitecustomize.py", "usercustomize.py", "releasectl.py", "os.py"]
    programs = ["python3", "systemctl", "systemd-run", "journalctl", "sh", "uv", "env"]
    script = "rm -rf ~/evil; mkdir -p ~/evil/releasectl && cd ~/evil\n"
    script += "".join(f"printf %s {shlex.quote(python)} > {name}\n" for name in [*traps, "releasectl/__init__.py"])
    script += "".join(f"printf %s {shlex.quote(shell)} > {name}; chmod +x {name}\n" for name in programs)
    # The right one is named in full, as deploy.yml does; what it starts in turn is what is looked at.
    script += f"export {environment}\n/usr/bin/sudo -n {RELEASECTL} prune --keep 1000 --json"
    done = deployer.run(script)
    assert json.loads(done.stdout)["ok"], done.stdout + done.stderr
    assert not app1.file(marker).exists or app1.file(marker).content_string.strip() != "0"
    deployer.run("rm -rf ~/evil")


def test_the_record_says_who_it_was_whatever_it_claims(deployer: Deployer, ops: Any) -> None:
    deployer.run(f"export SUDO_USER=ops LOGNAME=ops USER=ops; sudo -n {RELEASECTL} discard --id try-none --actor root")
    deployer.run(f"sudo -n {RELEASECTL} activate --id try-none --actor root")
    newest = ops.releasectl("history", "--limit", "1")["events"][-1]
    assert newest["actor"] == "deployer (root)"


# What it ships: code that runs while a release is built

SPY = """
import json, os, socket, subprocess
def attempt(what):
    try:
        return what() or "done"
    except BaseException as error:
        return f"no: {type(error).__name__}"
def listing(path):
    return attempt(lambda: "saw " + ",".join(sorted(os.listdir(path))))
def spy(own):
    run = lambda *words: subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    def connect(path):
        socket.socket(socket.AF_UNIX).connect(path)
    def write(path):
        open(path, "a").write("x")
    def setuid():
        path = os.path.join(own, "suid-" + str(os.getpid()))
        write(path); os.chmod(path, 0o6755)
    return {
        "uid": str(os.getuid()) + " " + ",".join(map(str, os.getgroups())),
        "environment": " ".join(sorted(os.environ)),
        "settings": listing("/etc/app"), "private": listing("/run/slipway"), "run": listing("/run/app"),
        "incoming": listing("/opt/app/incoming"), "state": listing("/var/lib/app"), "events": listing("/var/log/app/releases"),
        "releases": listing("/opt/app/releases"), "venvs": listing("/opt/app/venvs"), "home": listing("/home/deployer"),
        "shadow": attempt(lambda: open("/etc/shadow").read()),
        "init": attempt(lambda: open("/proc/1/environ").read() and ""),
        "others": attempt(lambda: "saw" if [p for p in os.listdir("/proc") if p.isdigit()
                                            and os.stat("/proc/" + p).st_uid != os.getuid()] else "none"),
        "socket": attempt(lambda: connect("/run/app/current.sock")),
        "write-etc": attempt(lambda: write("/etc/cron.d/x")), "write-src": attempt(lambda: write("/opt/app/releases/try-1/src/manage.py")),
        "write-current": attempt(lambda: os.symlink("/tmp", "/opt/app/current2")),
        "write-release": attempt(lambda: write("/opt/app/releases/x")), "write-www": attempt(lambda: write("/var/www/app/static/x")),
        "setuid": attempt(setuid),
        "sudo": attempt(lambda: run("/usr/bin/sudo", "-n", "/usr/local/sbin/releasectl", "status")),
        "stop": attempt(lambda: run("systemctl", "--no-ask-password", "stop", "nginx")),
        "user-namespace": attempt(lambda: run("unshare", "-r", "id")),
        "kill": attempt(lambda: os.kill(1, 0)),
    }
"""  # noqa: E501
DENIED = (
    "private", "run", "incoming", "state", "events", "home", "shadow", "init", "socket", "write-etc", "write-src",
    "write-current", "write-release", "write-www", "setuid", "sudo", "stop", "user-namespace", "kill",
)  # fmt: skip


def judged(report: dict[str, str], known: list[str]) -> None:
    got = {name: report[name] for name in DENIED if not report[name].startswith("no:")}
    assert got == {}
    assert report["settings"].startswith("no:") or report["settings"] == "saw "
    assert report["releases"] == "saw try-1"
    assert re.fullmatch(r"saw ([0-9a-f]{16})?", report["venvs"]), "at most its own"
    assert report["others"].startswith("no:") or report["others"] == "none"
    assert not report["uid"].startswith("0 ")
    assert not [name for name in report["environment"].split() if name.startswith(("SUDO_", "LEASE"))]
    text = json.dumps(report)
    assert not [secret for secret in known if secret in text]


def source_package() -> bytes:
    """A source package whose build runs our code, without anything from an index."""
    files = {
        "evil-1.0/PKG-INFO": "Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n",
        "evil-1.0/pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "evil"\nbackend-path = ["."]\n'
        '[project]\nname = "evil"\nversion = "1.0"\n',
        "evil-1.0/evil.py": SPY
        + "def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):\n"
        + "    raise SystemExit('SPY ' + json.dumps(spy(wheel_directory)))\n"
        + "def get_requires_for_build_wheel(config_settings=None):\n    return []\n",
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return gzip.compress(buffer.getvalue(), mtime=0)


def report_in(answer: dict[str, Any]) -> dict[str, str]:
    lines = [line for line in answer["journal"] if "SPY {" in line]
    assert lines, answer
    report: dict[str, str] = json.loads(lines[-1].split("SPY ", 1)[1])
    return report


def test_code_that_runs_while_packages_are_built_sees_and_changes_nothing(app1: Any, prepare: Any) -> None:
    package = source_package()
    lock = f"evil @ ./evil-1.0.tar.gz --hash=sha256:{hashlib.sha256(package).hexdigest()}\n"
    answer = prepare(archive({"requirements.lock": lock, "evil-1.0.tar.gz": package}))
    assert not answer["ok"]
    judged(report_in(answer), secrets(app1))


def test_code_that_runs_while_static_files_are_collected_sees_and_changes_nothing(app1: Any, prepare: Any) -> None:
    manage = SPY + "print('SPY ' + json.dumps(spy(os.environ['STATIC_ROOT'])))\nraise SystemExit(1)\n"
    answer = prepare(archive({"manage.py": manage}))
    assert not answer["ok"]
    judged(report_in(answer), secrets(app1))


@pytest.mark.parametrize("point", ["before_build", "after_build"])
def test_hooks_of_a_build_see_nothing_and_change_the_code_alone(app1: Any, prepare: Any, point: str) -> None:
    hook = f"#!/usr/bin/python3\n{SPY}print('SPY ' + json.dumps(spy(os.getcwd())))\nraise SystemExit(1)\n"
    answer = prepare(archive({f".slipway/hooks/{point}": hook}))
    assert not answer["ok"]
    assert f"hook {point} of try-1 failed" in answer["message"]
    report = report_in(answer)
    assert report["write-src"] == "done", "it may change the code that it came with"
    judged({**report, "write-src": "no:"}, secrets(app1))


def test_a_hook_that_takes_too_long_is_ended_with_all_that_it_started(app1: Any, configured: Any, prepare: Any) -> None:
    configured(hook_timeout=1)
    hook = "#!/bin/sh\necho begun; (setsid sh -c 'trap \"\" TERM; sleep 271' &) ; trap '' TERM; sleep 271; sleep 271\n"
    answer = prepare(
        archive({".slipway/hooks/before_build": hook, ".slipway/hooks/on_failure": "#!/bin/sh\necho woe\n"})
    )
    assert "did not end within 1 s (release_hook_timeout)" in answer["message"]
    assert [(ran["name"], ran["output"]) for ran in answer["hooks"]] == [
        ("before_build", "begun"),
        ("on_failure", "woe"),
    ]
    assert app1.run("pgrep -u app-build").stdout == ""


def test_a_hook_of_a_verb_that_was_killed_is_ended_by_the_next(app1: Any, ops: Any, deployer: Deployer) -> None:
    content = archive({".slipway/hooks/before_build": "#!/bin/sh\nsleep 272\n"})
    name, digest = deployer.upload(content), hashlib.sha256(content).hexdigest()
    words = f"prepare --id try-1 --artifact {name} --sha256 {digest}"
    ssh = ["ssh", "-F", deployer.config, "deployer@app1", f"sudo -n {RELEASECTL} {words}"]
    running = subprocess.Popen(ssh, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    hook = "systemctl is-active releasectl-hook-try-1.service"
    try:
        app1.check_output(f"timeout 30 sh -c 'until {hook}; do sleep 0.1; done'")
        app1.check_output("systemctl kill --signal=KILL 'releasectl-prepare-*'")
        assert app1.run(hook).stdout.strip() == "active"
        assert ops.releasectl("prune", "--keep", "1000")["ok"]
        assert app1.run(hook).stdout.strip() == "inactive"
        assert not app1.file("/opt/app/releases/try-1").exists
    finally:
        running.kill()
        running.wait(30)


def test_what_a_build_leaves_in_a_release_gives_nobody_more_rights(app1: Any, ops: Any, prepare: Any) -> None:
    """Links to what it may not read, under names that would be published; files that others could write to."""
    manage = (
        "import os\n"
        "root = os.environ['STATIC_ROOT']\n"
        "os.symlink('/etc/shadow', root + '/leak.0123456789ab.txt')\n"
        "os.symlink('/etc/app', root + '/dir.0123456789ab')\n"
        "open(root + '/open.css', 'w').close(); os.chmod(root + '/open.css', 0o777)\n"
        "os.mkdir(root + '/d'); os.chmod(root + '/d', 0o777)\n"
    )
    answer = prepare(archive({"manage.py": manage}))
    try:
        assert answer["ok"], answer
        odd = app1.check_output("find /opt/app/releases/try-1 -not -type l \\( -perm /7022 -o -not -user root \\)")
        assert odd == ""
        assert not app1.file("/var/www/app/static/leak.0123456789ab.txt").exists
        assert not app1.file("/var/www/app/static/dir.0123456789ab").exists
    finally:
        ops.releasectl("discard", "--id", "try-1")


@pytest.mark.parametrize(
    "lock",
    [
        "-r /etc/shadow\n",
        "-r /etc/app/env/DATABASE_URL\n",
        "-c /run/slipway/env/x\n",
        "-e .\n",
        "--index-url http://127.0.0.1:9/simple\ngunicorn==1.0 --hash=sha256:" + "0" * 64 + "\n",
        "--find-links /opt/app/releases\nevil==1.0 --hash=sha256:" + "0" * 64 + "\n",
        "gunicorn\n",
        "evil @ file:///etc/shadow\n",
        "\0\n",
    ],
)
def test_option_lines_in_the_requirements_open_nothing(app1: Any, prepare: Any, lock: str) -> None:
    answer = prepare(archive({"requirements.lock": lock}))
    assert not answer["ok"]
    assert answer["message"].isprintable()
    text = json.dumps(answer)
    assert not [secret for secret in secrets(app1) if secret in text]
    assert "root:" not in text
