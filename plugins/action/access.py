"""What onboard.yml, offboard.yml and access_report.yml do on the controller, one verb each; see plugins/access."""

from __future__ import annotations

import datetime
import difflib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from plugins.access import entries, leaving, log, proof, report
from plugins.action.releasectl import actor
from plugins.action.ssh_login import command, connection, outcome
from plugins.secrets import asked
from plugins.secrets.source import Refused as Unopened

ENVIRONMENTS = ("production", "staging", "lab")
FORCED = "/usr/local/libexec/slipway/access run"
# One login: what root would say, and what may be run as root.
LOOK = 'sudo -n true 2>/dev/null; echo "root $?"; sudo -n -l'


class Refused(Exception):
    """What the task fails with: a sentence."""


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def environment_of(groups: list[str]) -> str:
    return next((name for name in ENVIRONMENTS if name in groups), "<environment>")


def find(person: str, people: list[dict[str, Any]], automation: list[dict[str, Any]]) -> dict[str, Any]:
    """The entry of a person, or of an identity of automation."""
    if not person:
        raise Refused(f"Say who: -e person=NAME, as in {entries.WHERE}. Nothing was changed.")
    names = [str(entry["name"]) for entry in [*people, *automation]]
    for entry in [*people, *automation]:
        if entry["name"] == person:
            return entry
    near = difflib.get_close_matches(person, names, 1, 0.6)
    hint = f"; did you mean {near[0]}?" if near else "."
    raise Refused(f"{person} is not in {entries.WHERE}{hint} Nothing was changed.")


def commands_of(entry: dict[str, Any]) -> list[str]:
    return [str(command) for command in (entry.get("commands") or {}).values()]


def understand(out: str) -> tuple[bool, list[str]]:
    """(whether root said yes, what sudo lists) of what a login with LOOK printed."""
    root = "root 0" in out.splitlines()
    lines = out.partition("may run the following commands")[2].splitlines()[1:]
    return root, [" ".join(line.split()) for line in lines if line.strip()]


class ActionModule(ActionBase):
    """`access: {verb: …}`; the other arguments are the verb's own."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        self.variables = task_vars or {}
        self.host = self.variables["inventory_hostname"]
        given = dict(self._task.args)
        verb = given.pop("verb")
        try:
            answer = getattr(self, f"do_{verb}")(**given)
        except (Refused, log.Unfit) as error:
            return {**result, "failed": True, "changed": False, "msg": str(error)}
        return {**result, "changed": False, **(answer or {})}

    # Before anything is changed

    def do_entry(
        self, person: str, people: Any, automation: Any, leaving: bool, emergency: bool = False
    ) -> dict[str, Any]:
        groups = self.variables.get("group_names", [])
        if emergency:
            entry = self._whoever(person, [*people, *automation])
            return {"entry": entry, "concerns": True, "actor": actor()}
        entry = find(person, people or [], automation or [])
        left = entry.get("state", "present") == "left"
        if leaving and not left:
            raise Refused(
                f"{person} is in force by {entries.WHERE}: set `state: left`, `left: {now():%Y-%m-%d}` and"
                " `left_ticket` there, have it reviewed, and run this again. In an emergency, first:"
                f" -e offboard_ticket=TICKET shuts {person} out now, whatever the file says. Nothing was changed."
            )
        if not leaving and left:
            raise Refused(
                f"{person} has left by {entries.WHERE} ({entry['left_ticket']}): to come back takes `state: present`, a"
                " new `ticket` and a `since` of today or later. Nothing was changed."
            )
        if not leaving and entries.is_over(entry, now()):
            raise Refused(f"The access of {person} ended on {entry['until']} by {entries.WHERE}. Nothing was changed.")
        return {"entry": entry, "concerns": entries.concerns(entry, self.host, groups)}

    def _whoever(self, person: str, known: list[dict[str, Any]]) -> dict[str, Any]:
        """In an emergency also somebody whom the file does not know."""
        if not entries.NAME.match(person):
            raise Refused(f"{person!r} is no login: -e person=NAME. Nothing was changed.")
        connected = (
            str(self._templar.template(self.variables.get("ansible_user") or "")) or self._play_context.remote_user
        )
        if person in ("root", connected):
            raise Refused(f"This run is connected as {connected}: it does not shut {person} out. Nothing was changed.")
        return next((entry for entry in known if entry["name"] == person), {"name": person, "role": "unknown"})

    # Proofs

    def do_joined(self, entry: dict[str, Any], settings: dict[str, Any], shown: str) -> dict[str, Any]:
        [account] = self._accounts(entry, settings)
        forced = FORCED if entry.get("commands") else "none"
        found = proof.joined(account, json.loads(shown), proof.rights(account["role"], commands_of(entry)), forced)
        if found:
            raise Refused(f"{entry['name']} on {self.host}: {'; '.join(found)}.")
        return {"msg": f"{entry['name']} can do on {self.host} what the role says, and nothing else."}

    def do_left(self, name: str, shown: str) -> dict[str, Any]:
        found = proof.gone(name, json.loads(shown))
        if found:
            raise Refused(f"{name} on {self.host}: {'; '.join(found)}.")
        return {"msg": f"Nothing of {name} is in force on {self.host}."}

    def do_login(self, entry: dict[str, Any], settings: dict[str, Any], private_key_file: str) -> dict[str, Any]:
        """Log in as the person, and look what sudo says to them."""
        [account] = self._accounts(entry, settings)
        hostvars = connection(self.variables, self._templar.template)
        argv = command(entry["name"], private_key_file, False, hostvars)
        done = subprocess.run(
            [*argv[:-1], LOOK], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode == 255:
            state, said = outcome(done.returncode, done.stderr, sudo=False)
            raise Refused(
                f"A login as {entry['name']} on {self.host} was to be accepted, and it was: {state} ({said})."
            )
        root, listed = understand(done.stdout)
        wanted = proof.rights(account["role"], commands_of(entry))
        if root != (account["role"] == "admin") or listed != wanted:
            raise Refused(
                f"{entry['name']} logged in on {self.host}, and sudo lets it run {'; '.join(listed) or 'nothing'}"
                f" (any command as root: {'yes' if root else 'no'}); it shall be: {'; '.join(wanted)}."
            )
        return {"msg": f"{entry['name']} logged in on {self.host}; sudo offers {'; '.join(listed)}."}

    def _accounts(self, entry: dict[str, Any], settings: dict[str, Any]) -> list[dict[str, Any]]:
        people, automation = ([entry], []) if "role" in entry else ([], [entry])
        return entries.accounts(people, automation, [], self.host, ["all", *(entry.get("hosts") or [])], settings)

    # Afterwards

    def do_log(self, path: str, action: str, entry: dict[str, Any], hosts: list[str], ticket: str = "") -> Any:
        outcomes = {host: self._outcome(self.variables["hostvars"][host]) for host in hosts}
        done = set(outcomes.values())
        line = {
            "action": action,
            "person": entry["name"],
            "role": entry.get("role", "automation"),
            "ticket": ticket or str(entry["left_ticket"] if entry.get("state") == "left" else entry["ticket"]),
            "approved_by": entry.get("approved_by", ""),
            "until": entries.end_of(entry.get("until")),
            "keys": [entries.fingerprint(str(key)) for key in entry.get("keys") or []],
            "actor": actor(),
            "hosts": outcomes,
            "outcome": "done" if done == {"done"} else "failed" if "done" not in done else "partly",
        }
        if self._task.check_mode:
            return {"skipped": True, "line": line}
        return {"line": log.append(Path(path), line, now()), "changed": True}

    @staticmethod
    def _outcome(variables: Any) -> str:
        if "__deployers_trouble" in variables:
            return "failed: " + " ".join(str(variables["__deployers_trouble"]).split())[:300]
        return "done" if "__deployers_done" in variables else "not reached"

    def do_secrets(self, role: str) -> dict[str, Any]:
        environment = environment_of(self.variables.get("group_names", []))
        # As it is written: what a value is made of says whether it is secret, and the value itself has no place here.
        kept = self._kept(environment)
        found = leaving.secrets(role, dict(self.variables.get("app_settings") or {}), environment, kept)
        why = leaving.WHY_AN_ADMIN if role == "admin" else leaving.WHY_A_DEPLOYER
        said = [why, *(f"{each['what']}: {each['rotate']}" for each in found)]
        if asked.is_set(self.variables):
            said.append(leaving.remaining(environment))
        return {"secrets": found, "msg": said}

    def _kept(self, environment: str) -> leaving.Kept:
        if not asked.is_set(self.variables):
            return leaving.beside(environment)
        try:
            source = asked.source(self.variables, self._templar, self._loader)
        except Unopened as refused:
            raise Refused(str(refused)) from None
        of_app = self.variables.get("app_secrets")
        try:
            names = sorted(of_app if isinstance(of_app, dict) else source.read().get("app") or {})
        except (Unopened, AnsibleError):
            # Who shuts somebody out need not be able to open them.
            names = [f"all that {source.place} has below app"]
        return leaving.Kept(source.editing(), source.closing(), names)

    def do_report(
        self, hosts: list[str], people: Any, automation: Any, shared: Any, settings: Any, admin: dict[str, Any],
        directory: str, log_path: str, tolerate: bool,
    ) -> dict[str, Any]:  # fmt: skip
        when = now()
        findings: list[report.Finding] = []
        notices: list[report.Finding] = []
        tables: dict[str, Any] = {}
        commands = {entry["name"]: commands_of(entry) for entry in automation}
        roots = {entry["name"] for entry in automation if entry.get("root")}
        for host in sorted(hosts):
            variables = self.variables["hostvars"][host]
            answer = variables.get("__deployers_asked") or {}
            try:
                facts = json.loads(str(answer["stdout"]).strip().splitlines()[-1])
            except (ValueError, KeyError, IndexError):
                text = f"could not be asked: {answer.get('msg') or 'it gave no report'} {answer.get('stderr', '')}"
                findings.append(report.finding(host, "unknown", "", " ".join(text.split())[:300]))
                continue
            wanted = entries.accounts(people, automation, shared, host, variables["group_names"], settings)
            findings += report.compare(host, facts, wanted, admin, commands, when)
            notices += report.notices(host, wanted, roots, when)
            tables[host] = report.table(facts, wanted, admin["name"])
        content = {
            "time": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "actor": actor(),
            "hosts": tables,
            "findings": findings,
            "notices": notices,
            "last_changes": log.read(Path(log_path))[-20:],
        }
        place = Path(directory).resolve()
        place.mkdir(parents=True, exist_ok=True)
        stem = place / f"access-{when:%Y%m%dT%H%M%SZ}"
        stem.with_suffix(".json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        stem.with_suffix(".md").write_text(report.markdown(content))
        said = [f"{each['host']}: {each['who']} {each['text']}" for each in findings]
        answer = {
            "findings": findings,
            "report": f"{stem}.md",
            "msg": [*said, f"{len(findings)} findings; see {stem}.md"],
        }
        if findings and not tolerate:
            return {**answer, "failed": True, "msg": "\n".join(answer["msg"])}
        return answer
