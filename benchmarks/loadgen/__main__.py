"""python -m benchmarks.loadgen: a run from the command line, or under another program's control (--control)."""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, TextIO

from benchmarks.loadgen.engine import Engine
from benchmarks.loadgen.plan import Plan
from benchmarks.loadgen.result import summarize

COMMANDS = "mark NAME, open WINDOW, close, refuse RELEASE, snapshot, stop"


def _say(event: str, **more: Any) -> None:
    print(json.dumps({"event": event, **more}), flush=True)


def obey(engine: Engine, line: str) -> None:
    """One line of the control channel; each is answered by one event."""
    verb, _, argument = line.strip().partition(" ")
    if verb == "mark" and argument:
        engine.mark(argument)
        _say("marked", name=argument, at=round(engine.now(), 3))
    elif verb == "open" and argument:
        _say("opened", name=argument, at=round(engine.open(argument), 3))
    elif verb == "close" and not argument:
        engine.close()
        _say("closed", at=round(engine.now(), 3))
    elif verb == "refuse" and argument:
        engine.refuse(argument)
        _say("refusing", release=argument)
    elif verb == "snapshot" and not argument:
        _say("snapshot", **engine.snapshot())
    elif verb == "stop" and not argument:
        engine.stop()
    else:
        _say("error", message=f"{line.strip()!r} is not a command: {COMMANDS}")


async def _listen(engine: Engine, stream: TextIO) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), stream)
    while line := await reader.readline():
        obey(engine, line.decode())
    engine.stop()  # whoever was in control is gone: no load without a master


async def _run(plan: Plan, control: bool) -> dict[str, Any]:
    engine = Engine(plan)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, engine.stop)
    listener = asyncio.create_task(_listen(engine, sys.stdin)) if control else None
    _say("started", user_agent=plan.user_agent, rate=plan.rate)
    await engine.run()
    if listener is not None:
        listener.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listener
    result = summarize(engine.outcomes, engine.marks, engine.scheduled, engine.refused, engine.windows)
    times = os.times()
    result["plan"] = plan.as_dict()
    result["user_agent"] = plan.user_agent
    result["started_at"] = engine.started_at
    result["cpu_seconds"] = round(times.user + times.system, 2)
    result["load_average"] = [round(value, 2) for value in os.getloadavg()]
    return result


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loadgen", description=__doc__)
    parser.add_argument("--plan", required=True, help="the plan, a JSON file, or - for the first line of stdin")
    parser.add_argument("--control", action="store_true", help=f"obey lines on stdin: {COMMANDS}; its end stops")
    parser.add_argument("--output", type=Path, help="write the result here as well")
    options = parser.parse_args(arguments)
    try:
        if options.plan == "-":
            # Unbuffered, byte by byte: what follows the first line belongs to the control channel.
            text = b"".join(iter(lambda: byte if (byte := os.read(0, 1)) != b"\n" else b"", b"")).decode()
        else:
            text = Path(options.plan).read_text(encoding="utf-8")
        plan = Plan.from_dict(json.loads(text))
        if not Path(plan.ca_file).is_file():
            raise ValueError(f"{plan.ca_file} is not there: name the file of the authority to trust")
    except (OSError, ValueError, TypeError) as error:
        print(f"loadgen: {error}", file=sys.stderr)
        return 2
    result = asyncio.run(_run(plan, options.control))
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _say("result", result=result)
    return 0 if result["total"]["lost"] == 0 and result["total"]["complete"] else 1


if __name__ == "__main__":
    sys.exit(main())
