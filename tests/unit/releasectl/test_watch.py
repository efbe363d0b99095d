"""Counting a release's answers in what nginx writes."""

import json
import os
from datetime import UTC, datetime

import pytest

from releasectl import watch

NOW = 1_800_000_000.0


def line(release="b", status=200, upstream=None, took=0.0, **more):
    """A line of nginx's log."""
    when = datetime.fromtimestamp(NOW, tz=UTC)
    entry = {
        "time": when.strftime("%Y-%m-%dT%H:%M:%S+00:00"), "status": status, "release": release,
        "upstream_status": str(status) if upstream is None else upstream, "request_time": took, **more,
    }  # fmt: skip
    return json.dumps(entry) + "\n"


def counted(log, *lines):
    answers = watch.Answers(str(log), "b", NOW - 5)
    with log.open("a") as stream:
        stream.writelines(lines)
    answers.read()
    answers.close()
    return answers.requests, answers.errors


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        (line(), (1, 0)),
        (line(status=404), (1, 0)),
        (line(status=500), (1, 1)),
        (line(release="a", status=500), (0, 0)),
        # Nothing answered on the socket, or it broke off: nginx tells the visitor 503, and a fleet's door says nothing.
        (line(release="", status=503, upstream="502"), (1, 1)),
        (line(release="", status=444, upstream="502", backend="unix:/run/app/current.sock"), (1, 1)),
        (line(release="", status=504, upstream="504", took=60.0), (0, 0)),
        (line(release="", upstream="200, 502"), (1, 1)),
        # The app was not asked: maintenance, a static file, a client that went away.
        (line(release="", status=503, upstream=""), (0, 0)),
        (line(release="", status=499, upstream="-"), (0, 0)),
        # What another host answered, in the words of an edge that balances.
        (line(status=500, backend="192.0.2.7:8443"), (0, 0)),
        (line(release="", status=503, upstream="502", backend="192.0.2.7:8443, unix:/run/app/current.sock"), (0, 0)),
        ("no json\n", (0, 0)),
        ('{"status": "x"}\n', (0, 0)),
        ("[1]\n", (0, 0)),
        ("x" * 200_000 + "\n", (0, 0)),
    ],
)
def test_what_counts(log, text, counts):
    assert counted(log, text) == counts


def test_a_half_line_waits_for_its_end(log):
    answers = watch.Answers(str(log), "b", 0)
    text = line(status=500)
    for piece in (text[:30], text[30:] + text[:10], text[10:]):
        with log.open("a") as stream:
            stream.write(piece)
        answers.read()
    assert (answers.requests, answers.errors) == (2, 2)


def test_a_log_that_is_rotated_or_cut_is_followed(log):
    answers = watch.Answers(str(log), "b", 0)
    with log.open("a") as old:
        log.rename(log.with_suffix(".1"))
        log.write_text(line())
        old.write(line() * 2)
    answers.read()
    assert answers.requests == 3
    log.write_text("")
    answers.read()
    log.write_text(line() * 4)
    answers.read()
    assert answers.requests == 7


@pytest.mark.parametrize("kind", ["none", "missing", "link", "fifo"])
def test_what_is_no_log_counts_nothing(log, tmp_path, kind):
    path = {"none": "", "missing": tmp_path / "x", "link": tmp_path / "link", "fifo": tmp_path / "fifo"}[kind]
    if kind == "link":
        path.symlink_to(log)
    if kind == "fifo":
        os.mkfifo(path)
    answers = watch.Answers(str(path), "b", 0)
    assert not answers.readable
    answers.read()
    assert answers.requests == 0
