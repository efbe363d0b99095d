"""What the app runs beside gunicorn and Celery: its own processes, and its jobs on a calendar, as units know them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
KEYS = {
    "app_extra_processes": {"name", "command", "single", "stop_signal", "stop_timeout"},
    "app_timers": {"name", "command", "calendar", "delay", "timeout"},
}
WHERE = "in group_vars/<environment>/main.yml"
# Of systemd.kill(5): what a process can be asked to end by.
SIGNALS = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH")


def own_processes(
    extra: Iterable[Mapping[str, Any]],
    timers: Iterable[Mapping[str, Any]],
    groups: Iterable[str],
    stop_timeout: int = 300,
) -> list[dict[str, Any]]:
    """Those of a host that is in these groups: processes on workers, and what there is once on the scheduler."""
    here = set(groups)
    found = []
    for item in extra:
        single = bool(item.get("single", False))
        if ("scheduler" if single else "worker") in here:
            found.append({
                "unit": f"app-{item['name']}", "name": item["name"], "command": list(item["command"]),
                "single": single, "job": False, "stop_signal": item.get("stop_signal", "SIGTERM"),
                "stop_timeout": int(item.get("stop_timeout", stop_timeout)), "calendar": "", "delay": 0, "timeout": 0,
            })  # fmt: skip
    for item in timers if "scheduler" in here else ():
        found.append({
            "unit": f"app-job-{item['name']}", "name": item["name"], "command": list(item["command"]),
            "single": False, "job": True, "stop_signal": "SIGTERM", "stop_timeout": 60, "calendar": item["calendar"],
            "delay": int(item.get("delay", 0)), "timeout": int(item.get("timeout", 3600)),
        })  # fmt: skip
    return found


def process_files(processes: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The files of their units, as the action install_files takes them."""
    found = []
    for process in processes:
        kinds = {"process@.service.j2": "@.service"}
        if process["job"]:
            kinds |= {"job.service.j2": ".service", "job.timer.j2": ".timer"}
        found += [
            {
                "template": template,
                "dest": f"/etc/systemd/system/{process['unit']}{ending}",
                "mode": "0644",
                "vars": {"process": dict(process)},
            }
            for template, ending in kinds.items()
        ]
    return found


def process_problems(extra: Any, timers: Any) -> list[str]:
    """What is wrong with the two lists, a sentence each."""
    return [*_problems("app_extra_processes", extra), *_problems("app_timers", timers)]


def _problems(variable: str, items: Any) -> Iterable[str]:
    if not isinstance(items, list):
        yield f"{variable} is no list: correct it {WHERE}."
        return
    seen: set[str] = set()
    for number, item in enumerate(items, 1):
        if not isinstance(item, Mapping):
            yield f"Entry {number} of {variable} is no mapping: give it a name and a command {WHERE}."
            continue
        name = str(item.get("name", ""))
        called = f"{variable}: {name or f'entry {number}'}"
        if not NAME.fullmatch(name) or name.startswith("job-"):
            yield (
                f"{called} is no name of a process: lower-case letters, digits and dashes, 31 at most, beginning with a"
                f" letter and not with job-; correct it {WHERE}."
            )
        if name in seen:
            yield f"{called} is there twice: give each a name of its own {WHERE}."
        seen.add(name)
        if unknown := sorted(set(map(str, item)) - KEYS[variable]):
            known = ", ".join(sorted(KEYS[variable]))
            yield f"{called} has {unknown[0]}, which is not known: there are {known}; correct it {WHERE}."
        yield from (f"{called} {problem}; correct it {WHERE}." for problem in _values(variable, item))


def _values(variable: str, item: Mapping[str, Any]) -> Iterable[str]:
    command = item.get("command")
    if not isinstance(command, list) or not command or not all(isinstance(word, str) and word for word in command):
        yield "has no command: a list of words, as [python, manage.py, run_huey]"
    elif any(ord(character) < 32 for word in command for character in word):
        yield "has a control character in its command"
    if variable == "app_timers" and not re.fullmatch(r"[\w*:.,/~ +-]{1,100}", str(item.get("calendar", ""))):
        yield "has no calendar, as '*-*-* 03:00:00' or hourly (systemd.time(7))"
    if not isinstance(item.get("single", False), bool):
        yield "has a single that is neither true nor false"
    if item.get("stop_signal", "SIGTERM") not in SIGNALS:
        yield f"has a stop_signal that is none of {', '.join(SIGNALS)}"
    for key in ("stop_timeout", "delay", "timeout"):
        value = item.get(key, 1)
        if (
            isinstance(value, bool)
            or not re.fullmatch(r"[0-9]{1,6}", str(value))
            or (key != "delay" and int(value) < 1)
        ):
            yield f"has a {key} that is no number of seconds"


class FilterModule:
    """For templates."""

    def filters(self) -> dict[str, Any]:
        return {
            "own_processes": own_processes,
            "process_files": process_files,
            "process_problems": process_problems,
        }
