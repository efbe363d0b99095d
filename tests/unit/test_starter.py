"""`make init`: what it asks and writes, and what it never writes over."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from plugins.secrets import age
from plugins.secrets.sops import Sops
from starter import asking, cli, workflow
from tests import newcomer

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHtAqZqnoVbcXeueJ4WWwA3dfKndjOgOjEkskLNZMp1X me@laptop"


def load(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody who has no key of age yet."""
    for name in ("SOPS_AGE_KEY", "SOPS_AGE_KEY_FILE", "SOPS_AGE_KEY_CMD", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return newcomer.write_app(tmp_path / "ledger")


@pytest.fixture
def slipway(tmp_path: Path) -> Path:
    """As much of a checkout as `init` looks at."""
    root = tmp_path / "slipway"
    for name in ("inventories/production", "inventories/staging", "group_vars", "roles/bootstrap/meta"):
        for source in sorted((ROOT / name).rglob("*.yml")):
            target = root / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(source.read_text())
    (root / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    newcomer.git(root, "init", "--quiet")
    newcomer.commit(root, "Slipway")
    return root


@pytest.fixture
def words(app: Path, tmp_path: Path) -> list[str]:
    key = tmp_path / "key.pub"
    key.write_text(PUBLIC + "\n")
    return [
        "--domain", "ledger.acme.io", "--host", "203.0.113.7", "--app", str(app), "--key", str(key),
        "--networks", "198.51.100.7", "--email", "ops@acme.io", "--agree-terms", "--yes",
    ]  # fmt: skip


def files(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".git" not in path.parts
    }


def test_it_writes_what_a_run_reads(slipway: Path, app: Path, words: list[str], capsys: pytest.CaptureFixture) -> None:
    assert cli.main(words, slipway) == 0
    inventory = load(slipway / "inventories/production/hosts.yml")
    assert inventory["production"]["hosts"] == {"ledger.acme.io": {"ansible_host": "203.0.113.7"}}
    members = {group for group, content in inventory.items() if content["hosts"]}
    assert members == {"production", "edge", "app", "data"}
    assert set(inventory) == members | {"worker", "scheduler"}
    variables: dict = {}
    for path in sorted((slipway / "group_vars/production").glob("*.yml")):
        variables |= load(path) or {}
    assert variables["app_domain"] == "ledger.acme.io"
    assert variables["app_operator_networks"] == ["198.51.100.7/32"]
    assert variables["bootstrap_admin_public_keys"] == [PUBLIC]
    assert variables["secrets_source"] == {"kind": "sops", "file": "secrets/production.sops.yml"}
    assert "SECRET_KEY" not in variables["app_settings"]
    assert variables["app_settings"]["DATABASE_URL"].startswith("postgres://app:{{ secrets.postgres_app_password")
    assert "REDIS_URL" not in variables["app_settings"]
    assert (variables["tls_acme_email"], variables["tls_acme_agree_terms"]) == ("ops@acme.io", True)
    assert "192.0.2." not in json.dumps(variables)
    assert "example.com" not in json.dumps(variables)
    said = capsys.readouterr().out
    assert "settings module: ledger.base (from ledger/wsgi.py)" in said
    assert "bin/pack --repo" in said
    assert "--path web --name ledger" in said


def opened(slipway: Path, environment: str = "production") -> dict:
    return Sops(slipway / f"secrets/{environment}.sops.yml").read()


def test_what_is_secret_is_encrypted_or_out_of_gits_sight(slipway: Path, home: Path, words: list[str]) -> None:
    assert cli.main(words, slipway) == 0
    assert cli.main(words, slipway) == 0
    found = opened(slipway)
    assert set(found) == {
        "app", "postgres_app_password", "redis_app_password", "data_private_key", "data_authority", "data_certificate",
    }  # fmt: skip
    assert set(found["app"]) == {"SECRET_KEY"}
    listed = newcomer.git(slipway, "status", "--porcelain", "--untracked-files=all")
    assert ".vault" not in listed
    assert "secrets/production.sops.yml" in listed
    key = home / ".config/sops/age/keys.txt"
    secret = [found["app"]["SECRET_KEY"], *(found[name] for name in set(found) - {"app"}), key.read_text().split()[-1]]
    for path, text in files(slipway).items():
        if not path.startswith(".vault/"):
            assert not any(value.strip() in text for value in secret), path
    for path in (key, slipway / ".vault/production-deploy-key"):
        assert path.stat().st_mode & 0o777 == 0o600
    public = (slipway / ".vault/production-deploy-key.pub").read_text().strip()
    assert load(slipway / "group_vars/production/deployers.yml")["deployers_public_keys"] == [public]


def test_the_certificate_is_of_its_authority_and_for_localhost(slipway: Path, words: list[str]) -> None:
    assert cli.main(words, slipway) == 0
    found = opened(slipway)
    authority = x509.load_pem_x509_certificate(found["data_authority"].encode())
    certificate = x509.load_pem_x509_certificate(found["data_certificate"].encode())
    certificate.verify_directly_issued_by(authority)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]


def test_a_second_run_changes_nothing(slipway: Path, app: Path, words: list[str]) -> None:
    assert cli.main(words, slipway) == 0
    before = files(slipway) | files(app)
    assert cli.main(words, slipway) == 0
    assert files(slipway) | files(app) == before


def test_what_somebody_wrote_is_written_over_by_force_alone(
    slipway: Path, words: list[str], capsys: pytest.CaptureFixture
) -> None:
    mine = slipway / "group_vars/production/tls.yml"
    mine.write_text(mine.read_text() + "tls_key_types: [rsa]\n")
    before = files(slipway)
    assert cli.main(words, slipway) == 1
    assert "group_vars/production/tls.yml: there already" in capsys.readouterr().err
    # Not even what would have been new.
    assert files(slipway) == before
    assert cli.main([*words, "--force"], slipway) == 0
    assert "rsa" not in mine.read_text()


def test_a_secret_that_is_there_is_kept_by_force_as_well(slipway: Path, words: list[str]) -> None:
    assert cli.main(words, slipway) == 0
    Sops(slipway / "secrets/production.sops.yml").set({"mine": "x", "app": {"STRIPE_KEY": "y"}})
    before = (slipway / "secrets/production.sops.yml").read_text()
    assert cli.main([*words, "--force", "--domain", "other.acme.io"], slipway) == 0
    assert (slipway / "secrets/production.sops.yml").read_text() == before


def test_secrets_that_no_key_opens_are_not_added_to(
    slipway: Path, home: Path, words: list[str], capsys: pytest.CaptureFixture
) -> None:
    assert cli.main(words, slipway) == 0
    before = files(slipway)
    key = home / ".config/sops/age/keys.txt"
    key.rename(home / "elsewhere")
    assert cli.main([*words, "--force", "--domain", "other.acme.io"], slipway) == 1
    assert "No key here opens secrets/production.sops.yml" in capsys.readouterr().err
    assert not key.exists()
    key.write_text("AGE-PLUGIN-YUBIKEY-1QQ\n")
    assert cli.main(words, slipway) == 1
    assert "has no key of age" in capsys.readouterr().err
    assert files(slipway) == before


@pytest.mark.parametrize("how", ["SOPS_AGE_KEY_FILE", "SOPS_AGE_KEY", "usual"])
def test_a_key_that_is_there_is_used(
    slipway: Path, home: Path, words: list[str], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = home / ".config/sops/age/keys.txt"
    file = usual if how == "usual" else home / "mine.txt"
    recipient = age.new_key(file, "mine")
    if how != "usual":
        monkeypatch.setenv(how, str(file) if how.endswith("FILE") else file.read_text().split()[-1])
    assert cli.main(words, slipway) == 0
    assert Sops(slipway / "secrets/production.sops.yml").readers() == [recipient]
    assert recipient in (slipway / ".sops.yaml").read_text()
    assert usual.exists() == (how == "usual")


def test_rules_of_ones_own_say_who_opens_the_secrets(
    slipway: Path, home: Path, words: list[str], capsys: pytest.CaptureFixture
) -> None:
    mine = age.new_key(home / ".config/sops/age/keys.txt", "mine")
    colleague = age.made("a colleague's")[0]
    rules = slipway / ".sops.yaml"
    rules.write_text("creation_rules:\n  - {path_regex: elsewhere, age: " + colleague + "}\n")
    assert cli.main(words, slipway) == 1
    assert "a rule for secrets/production.sops.yml in .sops.yaml" in capsys.readouterr().err
    rules.write_text(f"creation_rules:\n  - path_regex: secrets/\n    age: {colleague}\n")
    assert cli.main(words, slipway) == 1
    assert f"add your recipient there, {mine}" in capsys.readouterr().err
    assert not (slipway / ".vault").exists()
    rules.write_text(f"creation_rules:\n  - path_regex: secrets/\n    age: {colleague},{mine}\n")
    assert cli.main(words, slipway) == 0
    assert Sops(slipway / "secrets/production.sops.yml").readers() == [colleague, mine]


def test_managed_services_are_let_out_to_and_nobody_is_a_stand_in(slipway: Path, words: list[str]) -> None:
    urls = [
        "--database-url",
        "postgres://u:s3cret@db.acme.io:25060/x?sslmode=require",
        "--redis-url",
        "rediss://10.0.0.9/0",
    ]
    assert cli.main([*words, *urls], slipway) == 0
    assert load(slipway / "inventories/production/hosts.yml")["data"]["hosts"] == {}
    entries = load(slipway / "group_vars/production/firewall.yml")["firewall_outbound_extra"]
    assert [(entry["ports"], entry.get("names"), entry.get("networks")) for entry in entries] == [
        ([25060], ["db.acme.io"], None), ([6379], None, ["10.0.0.9"]),
    ]  # fmt: skip
    assert not any("s3cret" in text for text in files(slipway).values())
    assert (
        load(slipway / "group_vars/production/main.yml")["app_settings"]["DATABASE_URL"] == "{{ secrets.database_url }}"
    )
    assert opened(slipway)["database_url"] == urls[1]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--redis-url", "rediss://10.0.0.9/0"], "--database-url is missing"),
        (["--database-url", "mysql://u@db.acme.io/x"], "--database-url is not an address"),
        (["--database-url", "postgres://u:{{x}}@db.acme.io/x"], "percent-encoded"),
        (["--database-ca", "/nowhere.pem"], "no file with a certificate"),
        (["--repository", "https://github.com/a/b"], "owner/name"),
        (["--domain", "localhost"], "--domain: 'localhost' is not a name"),
        (["--app", "/nowhere"], "--app: There is no directory"),
        (["--wsgi", "ledger.wsgi"], "--wsgi: 'ledger.wsgi' is not module and name, such as mysite.wsgi:application"),
        (["--settings-module", "ledger/base.py"], "is not a module such as mysite.settings"),
        (["--celery-app", "a b"], "is not a module, such as mysite, or module and name, or none"),
        (["--health-path", "healthz"], "--health-path: 'healthz' is not a path such as /healthz"),
        (["--name", "My Shop"], "is not a name of small letters"),
    ],
)
def test_a_wrong_flag_is_one_sentence_and_writes_nothing(
    slipway: Path, words: list[str], more: list[str], said: str, capsys: pytest.CaptureFixture
) -> None:
    before = files(slipway)
    assert cli.main([*words, *more], slipway) == 1
    assert said in capsys.readouterr().err
    assert files(slipway) == before


def test_what_is_missing_is_named_where_nobody_can_be_asked(
    slipway: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert cli.main([], slipway) == 1
    assert "--domain is missing" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_five_questions_are_asked_and_a_wrong_answer_again(
    slipway: Path, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    key = tmp_path / "key.pub"
    key.write_text(PUBLIC)
    typed = [
        "http://ledger.acme.io", "ledger.acme.io", "ubuntu@203.0.113.7", str(tmp_path / "none"), str(app),
        f"{key} everywhere", f"{key} 198.51.100.0/24", "ops@acme.io", "y",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda _prompt="": typed.pop(0))
    monkeypatch.setattr(asking, "seen_from", lambda _host: "")
    assert cli.main([], slipway) == 0
    assert typed == []
    said = capsys.readouterr().out
    assert re.findall(r"^(\d)/5 ", said, re.MULTILINE) == ["1", "2", "3", "4", "5"]
    for wrong in ("the name alone is wanted", "There is no directory", "everywhere is neither"):
        assert wrong in said
    assert load(slipway / "group_vars/production/bootstrap.yml")["bootstrap_first_user"] == "ubuntu"
    # Whoever typed the address agreed to what was said with the question.
    assert load(slipway / "group_vars/production/tls.yml")["tls_acme_agree_terms"] is True


def test_what_no_question_asks_is_listed_with_its_place(
    slipway: Path, app: Path, words: list[str], capsys: pytest.CaptureFixture
) -> None:
    base = app / "web/ledger/base.py"
    base.write_text(base.read_text() + 'STRIPE = os.environ["STRIPE_KEY"]\n')
    words.remove("--agree-terms")
    assert cli.main(words, slipway) == 0
    said = capsys.readouterr().out
    for path, name in (("tls.yml", "tls_acme_agree_terms"), ("main.yml", "STRIPE_KEY")):
        match = re.search(rf"group_vars/production/{path}:(\d+): .*{name}", said)
        assert match, said
        line = (slipway / "group_vars/production" / path).read_text().splitlines()[int(match[1]) - 1]
        assert line.strip().startswith(f"{name}:")


# The workflow file.


def test_the_workflow_can_do_nothing_but_read_and_is_pinned(slipway: Path, app: Path, words: list[str]) -> None:
    assert cli.main([*words, "--repository", "acme/slipway", "--runner", "[self-hosted, linux]"], slipway) == 0
    file = app / ".github/workflows/deploy.yml"
    found = yaml.safe_load(file.read_text())
    assert found["permissions"] == {"contents": "read"}
    assert found["concurrency"] == {"group": "deploy-production", "cancel-in-progress": False}
    assert found[True] == {"push": {"tags": ["v*"]}, "workflow_dispatch": None}
    job = found["jobs"]["deploy"]
    assert (job["runs-on"], job["environment"]) == (["self-hosted", "linux"], "production")
    for step in job["steps"]:
        if "uses" in step:
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"])
            assert step["with"]["persist-credentials"] is False
    # The same ones as this repository's own.
    own = set(re.findall(r"actions/checkout@\w+", (ROOT / ".github/workflows/ci.yml").read_text()))
    assert {step["uses"] for step in job["steps"] if "uses" in step} == own
    assert "@" not in re.sub(r"actions/checkout@", "", file.read_text())
    shell = "\n".join(step["run"] for step in job["steps"] if "run" in step)
    assert "${{" not in shell, "what GitHub puts in is put into the environment, never into the shell's text"


def test_it_refuses_until_it_is_pinned(slipway: Path, app: Path, words: list[str]) -> None:
    assert cli.main(words, slipway) == 0
    file = app / ".github/workflows/deploy.yml"

    def refuses() -> bool:
        found = yaml.safe_load(file.read_text())
        done = subprocess.run(
            ["bash", "-e", "-c", found["jobs"]["deploy"]["steps"][0]["run"]],
            env=dict(found["env"]), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ("bin/init --pin" in done.stdout) == (done.returncode != 0)
        return done.returncode != 0

    assert refuses()
    known = slipway / ".vault/known_hosts"
    known.write_text("203.0.113.7 ssh-rsa AAAAB3\n203.0.113.7 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHtAqZqnoVbc\n")
    pin = ["--pin", "--app", str(app), "--known-hosts", str(known)]
    assert cli.main(pin, slipway) == 1, "what it would deploy with is not committed"
    assert refuses()
    commit = newcomer.commit(slipway, "Ours")
    assert cli.main(pin, slipway) == 0
    assert yaml.safe_load(file.read_text())["env"] == {
        "SLIPWAY_REPOSITORY": workflow.NOBODY,
        "SLIPWAY_COMMIT": commit,
        "SLIPWAY_KNOWN_HOSTS": "203.0.113.7 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHtAqZqnoVbc",
    }
    assert not refuses()


def test_a_host_that_ssh_does_not_know_is_not_pinned(
    slipway: Path, app: Path, words: list[str], capsys: pytest.CaptureFixture
) -> None:
    assert cli.main(words, slipway) == 0
    newcomer.commit(slipway, "Ours")
    (slipway / ".vault/known_hosts").write_text("")
    assert cli.main(["--pin", "--app", str(app), "--known-hosts", str(slipway / ".vault/known_hosts")], slipway) == 1
    assert "does not know 203.0.113.7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("git@github.com:acme/slipway.git", "acme/slipway"),
        ("https://github.com/acme/slipway", "acme/slipway"),
        ("https://gitlab.com/acme/slipway.git", ""),
    ],
)
def test_where_this_checkout_is_on_github_is_its_remotes_word(slipway: Path, url: str, name: str) -> None:
    newcomer.git(slipway, "remote", "add", "origin", url)
    assert workflow.repository(slipway) == name


def test_staging_stands_beside_production(slipway: Path, app: Path, words: list[str]) -> None:
    assert cli.main(words, slipway) == 0
    assert cli.main([*words, "--environment", "staging", "--domain", "staging.acme.io"], slipway) == 0
    assert load(slipway / "inventories/staging/hosts.yml")["staging"]["hosts"] == {
        "staging.acme.io": {"ansible_host": "203.0.113.7"}
    }
    assert (app / ".github/workflows/deploy-staging.yml").is_file()
    assert opened(slipway)["app"] != opened(slipway, "staging")["app"]


def test_what_is_written_lints(slipway: Path, app: Path, words: list[str]) -> None:
    urls = [
        "--database-url",
        "postgres://u:s3cret@db.acme.io:25060/x?sslmode=require",
        "--redis-url",
        "rediss://10.0.0.9/0",
    ]
    assert cli.main(words, slipway) == 0
    assert cli.main([*words, *urls, "--environment", "staging"], slipway) == 0
    done = subprocess.run(
        [str(Path(sys.executable).with_name("yamllint")), "--strict", "-c", str(ROOT / ".yamllint"), str(slipway),
         str(app / ".github")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
