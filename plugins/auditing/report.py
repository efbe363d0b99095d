"""What one audit of one host found: composed, compared with the one before, judged, and told."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from plugins.auditing.catalogue import LYNIS, Known

SCHEMA = 1
# What a control can come to, and how the report puts it.
RESULTS = {
    "failed": "not as it should be",
    "passed": "seen as it should be",
    "excepted": "excepted in the environment's variables",
    "unseen": "not seen here: it needs a kernel of the host's own",
    "elsewhere": "about other hosts",
    "off": "switched off for all, with a reason",
    "na": "not applicable",
}
HOW = (
    "Each control was checked on the host itself, as root, by the command that stands beside it in "
    "roles/audit/files/controls/ at the commit above; the commands ask what runs (the daemon, the kernel, the packet "
    "filter) and change nothing. A control counts as seen only when its command ended with 0."
)


def applied(text: str) -> str:
    """What a host says was last applied to it (see the module record_applied), as a sentence."""
    try:
        record = json.loads(text)
        runs = [run for run in (record.get("whole"), *(record.get("since") or [])) if run]
        told = [
            f"{run['commit'] or 'no commit'}{' with changes' if run.get('dirty') else ''} on {run['at']} by {run['by']}"
            + (f" ({', '.join(f'{k} {v}' for k, v in run['parts'].items())})" if run.get("parts") else "")
            for run in runs
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return "the host does not say"
    return "; then ".join(told) or "the host does not say"


def results(planned: Iterable[Mapping[str, Any]], checked: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each control with what came of it."""
    by_id = {one["id"]: one for one in checked}
    found = []
    for control in planned:
        told = {name: control[name] for name in ("id", "title", "topic", "where", "reason", "check")}
        answer = by_id.get(control["id"])
        told["result"] = control["treatment"]
        if control["treatment"] == "check":
            # What was not answered was not seen.
            ok = bool(answer and answer["ok"])
            told["result"] = "passed" if ok else "failed"
            if not ok:
                told["code"] = answer.get("code") if answer else None
                told["output"] = list(answer.get("output", [])) if answer else ["was not checked"]
        if control["exception"]:
            told["as_it_should_be"] = told["result"] == "passed"
            told |= {"result": "excepted", "reason": control["exception"]}
        found.append(told)
    return found


def judge_lynis(
    answer: Mapping[str, Any], known: Iterable[Known], exceptions: Iterable[Mapping[str, str]]
) -> dict[str, Any]:
    """Lynis' answer, each warning and suggestion with the reason for leaving it, where there is one."""
    reasons = {str(entry["id"]): str(entry["reason"]) for entry in exceptions}
    explained = list(known)

    def told(finding: Mapping[str, str]) -> dict[str, str]:
        reason = reasons.get(finding["id"]) or next((k.reason for k in explained if k.explains(finding)), "")
        return {**finding, "reason": reason}

    kept = ("score", "version", "tests", "profile", "altered", "seconds")
    return {
        **{name: answer.get(name) for name in kept},
        "warnings": [told(finding) for finding in answer["warnings"]],
        "suggestions": [told(finding) for finding in answer["suggestions"]],
    }


def findings(
    controls: Iterable[Mapping[str, Any]], lynis: Mapping[str, Any] | None, floor: int, unknown_fails: bool
) -> list[str]:
    """Why the audit fails: one line each, nothing when it does not."""
    found = []
    for control in controls:
        if control["result"] == "failed":
            said = f": {control['output'][-1]}" if control["output"] else ""
            found.append(f"{control['id']} {control['title']} (done by {control['where']}){said}")
    if lynis is None:
        return found
    found += [f"Lynis' score counts for nothing: {what}." for what in lynis["altered"]]
    if lynis["score"] < floor:
        found.append(f"Lynis gives {lynis['score']}, under the floor of {floor} (audit_lynis_floor).")
    if unknown_fails:
        found += [
            f"Lynis' {kind} {one['id']} has no reason in {LYNIS}: {one['text']} {one['details']}"
            for kind in ("warning", "suggestion")
            for one in lynis[f"{kind}s"]
            if not one["reason"]
        ]
    return [line.strip() for line in found]


def compare(
    controls: Iterable[Mapping[str, Any]], lynis: Mapping[str, Any] | None, earlier: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """What changed since the last report (and, for Lynis, since the last that has a score); None without one."""
    if not earlier:
        return None
    last = earlier[0]
    now = {control["id"]: control["result"] for control in controls}
    before = {control["id"]: control["result"] for control in last["controls"]}
    failed_now = {identity for identity, result in now.items() if result == "failed"}
    failed_before = {identity for identity, result in before.items() if result == "failed"}
    told: dict[str, Any] = {
        "with": last["date"],
        "commit": last["commit"],
        "new_failures": [identity for identity in now if identity in failed_now - failed_before],
        "mended": [identity for identity in before if identity in failed_before and now.get(identity) == "passed"],
        "no_longer_seen": [i for i in before if before[i] in ("passed", "failed") and now.get(i) in (None, "unseen")],
    }
    scored = next((report for report in earlier if report.get("lynis")), None)
    if lynis is not None and scored is not None:
        old, new = _named(scored["lynis"]), _named(lynis)
        told |= {
            "score_before": scored["lynis"]["score"],
            "score_change": lynis["score"] - scored["lynis"]["score"],
            "new_suggestions": sorted(new - old),
            "suggestions_gone": sorted(old - new),
        }
    return told


def _named(lynis: Mapping[str, Any]) -> set[str]:
    """Without the details: those hold dates and counts, which would be news each day."""
    return {f"{one['id']} {one['text']}".strip() for kind in ("warnings", "suggestions") for one in lynis[kind]}


def earlier(directory: Path, host: str, troubles: list[str]) -> list[dict[str, Any]]:
    """The reports of a host, newest first. One that cannot be read is named and passed over."""
    found = []
    for path in sorted(directory.glob(f"*Z-{host}.json"), reverse=True):
        try:
            report = json.loads(path.read_text())
            whole = not report.get("only") and isinstance(report["controls"], list)
            if report["host"] == host and report["schema"] == SCHEMA and whole:
                found.append(report)
        except (OSError, ValueError, KeyError, TypeError) as error:
            troubles.append(f"{path.name} cannot be compared with: {type(error).__name__}")
    return found


def count(controls: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    counts = dict.fromkeys(RESULTS, 0)
    for control in controls:
        counts[control["result"]] += 1
    return counts


def closing(report: Mapping[str, Any]) -> str:
    """One sentence about one host."""
    counts, lynis, compared = report["counts"], report["lynis"], report["compared"]
    seen = counts["passed"] + counts["failed"]
    asked = " that were asked for" if report.get("only") else ""
    said = f"{report['host']}: {counts['passed']} of {seen} controls{asked} are as they should be"
    extras = [
        f"{counts[result]} {word}"
        for result, word in (("excepted", "excepted"), ("unseen", "not seen here"))
        if counts[result]
    ]
    said += f" ({', '.join(extras)})" if extras else ""
    if lynis:
        change = (compared or {}).get("score_change")
        said += f", Lynis {lynis['score']}" + (f" ({change:+d})" if change else "")
    if compared and (compared["new_failures"] or compared["mended"]):
        since = [f"new: {', '.join(compared['new_failures'])}"] if compared["new_failures"] else []
        since += [f"mended: {', '.join(compared['mended'])}"] if compared["mended"] else []
        said += f"; since {compared['with']} {', '.join(since)}"
    reasons = len(report["findings"])
    verdict = "the audit is passed" if not reasons else f"the audit FAILED for {reasons} reason{'s'[: reasons != 1]}"
    return f"{said}; {verdict}."


def compose(facts: Mapping[str, Any], controls: list[dict[str, Any]], lynis: dict[str, Any] | None,
            before: list[dict[str, Any]], floor: int, unknown_fails: bool) -> dict[str, Any]:  # fmt: skip
    """The whole report. `facts`: host, environment, commit, applied, system, began, only."""
    report: dict[str, Any] = {
        "schema": SCHEMA,
        **facts,
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "how": HOW,
        "floor": floor,
        "counts": count(controls),
        "lynis": lynis,
        "compared": None if facts.get("only") else compare(controls, lynis, before),
        "findings": findings(controls, lynis, floor, unknown_fails),
        "controls": controls,
    }
    report["verdict"] = "failed" if report["findings"] else "passed"
    report["closing"] = closing(report)
    return report


def cell(text: Any) -> str:
    """Text that a table of Markdown can hold."""
    return " ".join(str(text).replace("|", "\\|").split())


def table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(cell(value) for value in row)} |" for row in rows), ""]


def render(report: Mapping[str, Any]) -> str:
    """The report for people."""
    lines = [f"# Audit of {report['host']}, {report['date']}", "", f"**{report['closing']}**", ""]
    lines += table(
        ("", ""),
        [
            ("environment", report["environment"]),
            ("system", report["system"]),
            ("audited from commit", report["commit"]),
            ("last applied to the host", report["applied"]),
            ("audited by", report["actor"]),
            ("began", report["began"]),
        ],
    )
    if report["findings"]:
        lines += ["## Why it failed", "", *(f"- {finding}" for finding in report["findings"]), ""]
    lines += _compared(report["compared"], report["troubles"])
    if report["lynis"]:
        lines += _lynis(report["lynis"], report["floor"])
    else:
        lines += ["## Lynis", "", "Was not run (audit_lynis is false)." if report["lynis_wanted"] is False else
                  "Was not run.", ""]  # fmt: skip
    lines += ["## Controls", "", report["how"], ""]
    lines += table(("controls", "result"), [(n, RESULTS[name]) for name, n in report["counts"].items() if n])
    for name, words in RESULTS.items():
        told = [control for control in report["controls"] if control["result"] == name]
        if told:
            lines += [f"### {words.capitalize()}", "", *_controls(name, told)]
    return "\n".join(lines).rstrip() + "\n"


def _compared(compared: Mapping[str, Any] | None, troubles: list[str]) -> list[str]:
    lines = ["## Since the last audit", ""]
    if compared is None:
        lines += ["There is no earlier report of this host here."]
    else:
        lines += [f"Compared with {compared['with']} (commit {compared['commit']}).", ""]
        words = {
            "new_failures": "new failures", "mended": "mended", "no_longer_seen": "no longer seen",
            "new_suggestions": "new from Lynis", "suggestions_gone": "gone from Lynis",
        }  # fmt: skip
        for name, word in words.items():
            if name in compared:
                lines.append(f"- {word}: {', '.join(compared[name]) or 'none'}")
        if "score_change" in compared:
            lines.append(f"- Lynis' score: {compared['score_before']} before, {compared['score_change']:+d}")
    return [*lines, *(f"- {trouble}" for trouble in troubles), ""]


def _lynis(lynis: Mapping[str, Any], floor: int) -> list[str]:
    profile = lynis["profile"]
    whole = "; ".join(lynis["altered"]) or "as the package brought it (dpkg's checksum), and no other is read"
    lines = [
        "## Lynis",
        "",
        f"Lynis {lynis['version']} did {lynis['tests']} tests in {lynis['seconds']} s as root and gives "
        f"**{lynis['score']}** (floor: {floor}). Its profile {profile['path']} is {whole}; SHA-256 "
        f"{profile['sha256']}.",
        "",
    ]
    for kind in ("warnings", "suggestions"):
        rows = [
            (one["id"], f"{one['text']} {one['details']}", one["reason"] or "**no reason is given**")
            for one in lynis[kind]
        ]
        lines += [
            f"### {kind.capitalize()}: {len(rows)}",
            "",
            *(table(("test", "says", "left, for"), rows) if rows else []),
        ]
    return lines


def _controls(name: str, told: list[Mapping[str, Any]]) -> list[str]:
    if name == "failed":
        return table(
            ("control", "title", "done by", "what the check said"),
            [(c["id"], c["title"], c["where"], " / ".join(c["output"]) or f"exit code {c['code']}") for c in told],
        )
    if name in ("passed", "unseen", "elsewhere"):
        return table(("control", "title", "done by"), [(c["id"], c["title"], c["where"]) for c in told])
    return table(("control", "title", "reason"), [(c["id"], c["title"], c["reason"]) for c in told])
