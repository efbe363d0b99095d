"""bin/pack: the same commit gives the same bytes, and nothing but the commit is packed."""

import gzip
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[2] / "bin" / "pack"
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
# A commit of long ago: a time taken from anywhere else would show.
CLEAN |= {"GIT_COMMITTER_DATE": "2020-02-02T02:02:02Z", "GIT_AUTHOR_DATE": "2020-02-02T02:02:02Z"}


def git(repo: Path, *words: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always"]
    done = subprocess.run(["git", *identity, *words], cwd=repo, env=CLEAN, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def pack(repo: Path, *words: str, umask: int = 0o022, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PACK), "--repo", str(repo), "--name", "shop", "--json", *words]
    options = {"capture_output": True, "text": True, "check": False, "umask": umask}
    return subprocess.run(command, env={**CLEAN, **environment}, **options)


def packed(repo: Path, output: Path, *words: str, **options) -> dict:
    done = pack(repo, "--output", str(output), *words, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    repo = tmp_path / "origin"
    (repo / "config").mkdir(parents=True)
    (repo / "manage.py").write_text("#!/usr/bin/env python3\n")
    (repo / "manage.py").chmod(0o755)
    (repo / "config" / "settings.py").write_bytes(b"A = 1\r\nB = 2\n")
    (repo / "config" / "Grüße.txt").write_text("ä")
    (repo / "config" / "link").symlink_to("../manage.py")
    # What `git archive` would write into the file depends on the clone, so it must not be honoured.
    (repo / ".gitattributes").write_text("config/stamp.txt export-subst\nmanage.py text eol=crlf\n")
    (repo / "config" / "stamp.txt").write_text("$Format:%d%n$\n")
    git(repo, "init", "--quiet", "--initial-branch=main")
    git(repo, "add", "--all")
    git(repo, "commit", "--quiet", "--message=first")
    return repo


def test_same_commit_same_bytes_from_any_clone(repo: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "elsewhere" / "second"
    git(tmp_path, "clone", "--quiet", str(repo), str(first))
    git(tmp_path, "clone", "--quiet", "--config", "core.autocrlf=true", f"file://{repo}", str(second))
    git(second, "checkout", "--quiet", "-b", "other")
    git(second, "tag", "v1")
    for path in second.rglob("*"):
        if ".git" not in path.parts and not path.is_symlink():
            os.utime(path, (1, 1))
    one = packed(first, tmp_path / "out1", umask=0o022, TZ="UTC", LC_ALL="C")
    two = packed(second, tmp_path / "out2", umask=0o077, TZ="Pacific/Auckland", LC_ALL="C.UTF-8", PYTHONHASHSEED="7")
    left, right = Path(one["artifact"]).read_bytes(), Path(two["artifact"]).read_bytes()
    assert left == right
    assert one["sha256"] == two["sha256"]
    assert Path(two["artifact"]).stat().st_mode & 0o777 == 0o644


def test_artifact_holds_the_commit_and_names_it(repo: Path, tmp_path: Path) -> None:
    commit = git(repo, "rev-parse", "HEAD")
    answer = packed(repo, tmp_path / "out")
    assert Path(answer["artifact"]).name == f"shop-{commit}.tar.gz"
    assert answer["id"] == f"shop-{commit[:12]}"
    with tarfile.open(answer["artifact"]) as tar:
        members = {member.name: member for member in tar}
        content = tar.extractfile("config/settings.py").read()
        revision = tar.extractfile("REVISION").read().decode()
    assert content == b"A = 1\r\nB = 2\n"
    assert revision == f"{commit}\n"
    assert list(members) == sorted(members, key=os.fsencode)
    assert {(m.uid, m.gid, m.uname, m.gname) for m in members.values()} == {(0, 0, "", "")}
    assert {m.mtime for m in members.values()} == {int(git(repo, "show", "-s", "--format=%ct"))}
    assert (members["manage.py"].mode, members["config/settings.py"].mode) == (0o755, 0o644)
    assert members["config/link"].linkname == "../manage.py"
    with gzip.open(answer["artifact"]) as stream:
        stream.read(1)
        assert stream.mtime == 0


def test_a_directory_of_the_repository_becomes_the_top(repo: Path, tmp_path: Path) -> None:
    (repo / "apps" / "small").mkdir(parents=True)
    (repo / "apps" / "small" / "manage.py").write_text("small\n")
    git(repo, "add", "--all")
    git(repo, "commit", "--quiet", "--message=second")
    with tarfile.open(packed(repo, tmp_path / "out", "--path", "apps/small/")["artifact"]) as tar:
        assert tar.getnames() == ["REVISION", "manage.py"]


def test_what_is_not_committed_is_left_out_and_said(repo: Path, tmp_path: Path) -> None:
    clean = packed(repo, tmp_path / "out1")["sha256"]
    (repo / "secret.env").write_text("x")
    (repo / "manage.py").write_text("changed")
    done = pack(repo, "--output", str(tmp_path / "out2"))
    assert json.loads(done.stdout)["sha256"] == clean
    assert done.stderr == "pack: 2 uncommitted changes are left out: a commit is packed\n"


def test_an_older_commit_can_be_packed(repo: Path, tmp_path: Path) -> None:
    before = packed(repo, tmp_path / "out1")
    (repo / "manage.py").write_text("changed")
    git(repo, "commit", "--quiet", "--all", "--message=second")
    assert packed(repo, tmp_path / "out2", "--ref", "HEAD~1")["sha256"] == before["sha256"]
    assert packed(repo, tmp_path / "out2")["sha256"] != before["sha256"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--ref", "nowhere"], "git rev-parse failed"),
        (["--ref", "--output=x"], "git rev-parse failed"),
        (["--path", "nowhere"], "git ls-tree failed"),
        (["--name", "../x"], "cannot name a release"),
        (["--name", "x" * 52], "cannot name a release"),
        (["--name", "a..b"], "cannot name a release"),
    ],
)
def test_wrong_arguments_get_one_sentence(repo: Path, tmp_path: Path, words: list[str], why: str) -> None:
    done = pack(repo, "--output", str(tmp_path / "out"), *(["=".join(words)] if words[1].startswith("--") else words))
    assert done.returncode == 1
    assert why in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", "../config/../../x"])
def test_a_link_that_leaves_the_app_is_refused(repo: Path, tmp_path: Path, target: str) -> None:
    (repo / "config" / "bad").symlink_to(target)
    git(repo, "add", "--all")
    git(repo, "commit", "--quiet", "--message=second")
    done = pack(repo, "--output", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "config/bad is a link to" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_submodule_is_refused(repo: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", str(repo), "part")
    git(repo, "submodule", "--quiet", "add", str(tmp_path / "part"), "part")
    git(repo, "commit", "--quiet", "--message=second")
    done = pack(repo, "--output", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "part is a submodule" in done.stderr


def test_outside_of_a_repository_git_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    done = pack(tmp_path / "plain", GIT_CEILING_DIRECTORIES=str(tmp_path))
    assert done.returncode == 1
    assert "not a git repository" in done.stderr
