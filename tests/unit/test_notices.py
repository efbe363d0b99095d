"""Who is told of a deploy and a rollback, what, and that whatever a receiver does holds nobody up."""

from __future__ import annotations

import base64
import email
import email.policy
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import pki
from plugins.notices import channels, content, send
from plugins.notices.content import Story
from plugins.notices.ending import Ending
from plugins.notices.seen import Seen
from tests import receivers
from tests.receivers import CANARY, Hook, Post

OLD, NEW = "a1" * 20, "3f2a9c1d7e44" + "0" * 28
BOUND = 1.0  # seconds
MAIL = {"kind": "mail", "to": "a@b.test", "from": "c@d.test", "server": "s"}


@pytest.fixture
def story() -> Story:
    return Story(
        "deploy", "bookshop", "production", "ada on laptop", "bookshop-3f2a9c1d7e44", "bookshop-a1a1a1a1a1a1", OLD, NEW,
        ["app1", "app2"], True, "bookshop-3f2a9c1d7e44 is live on app1, app2.", 1_795_489_920.0, 14.23,
        [("changes", f"https://git.test/me/bookshop/compare/{OLD}...{NEW}")],
    )  # fmt: skip


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[Hook]:
    made = Hook(tmp_path)
    yield made
    made.close()


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    made = Post(tmp_path)
    yield made
    made.close()


def parsed(*entries: Any) -> list[channels.Channel]:
    found, problems = channels.parse(list(entries))
    assert problems == []
    return found


def to_hook(hook: Hook, kind: str = "webhook", **more: Any) -> channels.Channel:
    (found,) = parsed({"kind": kind, "url": hook.url, "ca_certificate": hook.authority, **more})
    return found


def to_post(post: Post, **more: Any) -> channels.Channel:
    given = {"to": ["ops@example.com", "dev@example.com"], "from": "deploy@example.com", "server": "127.0.0.1"}
    (found,) = parsed({"kind": "mail", **given, "port": post.port, "ca_certificate": post.authority, **more})
    return found


# What is told


def test_the_line_says_who_what_which_commits_how_long_and_how_it_ended(story: Story) -> None:
    assert content.line(story) == (
        "[bookshop production] deploy of bookshop-3f2a9c1d7e44 by ada on laptop done in 14 s"
        " (a1a1a1a1a1a1..3f2a9c1d7e44): bookshop-3f2a9c1d7e44 is live on app1, app2."
    )
    story.good, story.message, story.seconds, story.old = False, "It was not deployed.", 134.6, None
    assert content.line(story) == (
        "[bookshop production] deploy of bookshop-3f2a9c1d7e44 by ada on laptop FAILED after 2 min 15 s"
        " (3f2a9c1d7e44): It was not deployed."
    )


def test_the_document_of_the_generic_webhook(story: Story) -> None:
    told = content.body("webhook", story)
    text = told.pop("text")
    assert text == content.line(story)
    assert told == {
        "version": 1,
        "event": "deploy",
        "outcome": "success",
        "app": "bookshop",
        "environment": "production",
        "release": "bookshop-3f2a9c1d7e44",
        "previous": "bookshop-a1a1a1a1a1a1",
        "commits": {"old": OLD, "new": NEW},
        "actor": "ada on laptop",
        "hosts": ["app1", "app2"],
        "started": "2026-11-24T03:12:00Z",
        "seconds": 14.2,
        "message": "bookshop-3f2a9c1d7e44 is live on app1, app2.",
        "links": {"changes": f"https://git.test/me/bookshop/compare/{OLD}...{NEW}"},
    }


def test_slack_takes_no_markup_from_what_is_told_and_has_the_link(story: Story) -> None:
    story.message = "<!channel> & co"
    text = content.body("slack", story)["text"]
    assert "&lt;!channel&gt; &amp; co" in text
    assert text.endswith(f" <https://git.test/me/bookshop/compare/{OLD}...{NEW}|changes>")


def test_teams_gets_a_card_with_the_line_and_a_button(story: Story) -> None:
    (attachment,) = content.body("teams", story)["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert (card["type"], [block["text"] for block in card["body"]]) == ("AdaptiveCard", [content.line(story)])
    assert card["actions"] == [{"type": "Action.OpenUrl", "title": "changes", "url": story.links[0][1]}]


@pytest.mark.parametrize(
    ("repository", "event", "link"),
    [
        ("https://git.test/me/app", "deploy", f"https://git.test/me/app/compare/{OLD}...{NEW}"),
        ("https://git.test/me/app.git", "deploy", f"https://git.test/me/app/compare/{OLD}...{NEW}"),
        ("https://git.test/me/app/", "rollback", f"https://git.test/me/app/compare/{NEW}...{OLD}"),
        ("https://git.test/diff?from={old}&to={new}", "deploy", f"https://git.test/diff?from={OLD}&to={NEW}"),
        ("", "deploy", ""),
    ],
)
def test_where_the_commits_can_be_compared(story: Story, repository: str, event: str, link: str) -> None:
    story.event = event
    assert content.compare_link(repository, story) == link
    # A revision is what an artifact says of itself, and goes into no address unless it is one.
    story.new = "../../evil"
    assert content.compare_link(repository, story) == ""


def test_the_page_of_the_run() -> None:
    names = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "me/app", "GITHUB_RUN_ID": "7"}
    assert content.run_link(names) == "https://github.com/me/app/actions/runs/7"
    assert content.run_link({"GITHUB_REPOSITORY": "me/app"}) == ""


# Who is told


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("slack", "release_notices is no list"),
        ({"kind": "slack"}, "release_notices is no list"),
        ([7], "release_notices[0] is no entry"),
        ([{"url": "x"}], "has no kind that there is: there are webhook, slack, teams, mail"),
        ([{"kind": "slak"}], "(did you mean slack?)"),
        ([{"kind": "slack", "urll": "https://a.test/"}], "'urll', which slack does not take (did you mean url?)"),
        ([{"kind": "slack"}], "release_notices[0] (slack) has no url"),
        ([{"kind": "slack", "url": "https://a.test/b"}, {"kind": "teams", "url": ""}], "release_notices[1] (teams)"),
        ([{"kind": "webhook", "url": f"http://a.test/{CANARY}"}], "no https address"),
        ([{"kind": "webhook", "url": f"https://u:{CANARY}@a.test/"}], "no https address"),
        ([{"kind": "webhook", "url": f"https://a.test:99999/{CANARY}"}], "no https address"),
        ([{"kind": "webhook", "url": f"https://a.test/ {CANARY}"}], "no https address"),
        ([{"kind": "slack", "url": "https://a.test/", "on": ["sucess"]}], "'on' than a list of success and failure"),
        ([{"kind": "slack", "url": "https://a.test/", "ca_certificate": "x"}], "ca_certificate that is none"),
        ([{"kind": "mail", "to": "a@b.test", "from": "c@d.test"}], "(mail) has no server"),
        ([{"kind": "mail", "to": "a@b.test\nBcc: x@y.test", "from": "c@d.test", "server": "s"}], "under 'to'"),
        ([{"kind": "mail", "to": "a@b.test", "from": "nobody", "server": "s"}], "under 'from'"),
        ([{"kind": "mail", "to": "a@b.test", "from": "c@d.test", "server": "s", "port": 0}], "port that is no number"),
        ([{**MAIL, "password": CANARY}], "without the other"),
        ([{**MAIL, "starttls": False, "username": "u", "password": CANARY}], "in the clear"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_said_without_its_secrets(given: Any, words: str) -> None:
    found, problems = channels.parse(given)
    assert any(words in problem for problem in problems), problems
    assert CANARY not in "".join(problems) + repr(found)
    assert all(problem.endswith(".") and "\n" not in problem for problem in problems)


def test_yaml_reads_the_key_on_as_true_and_it_is_understood() -> None:
    (found,) = parsed({"kind": "slack", "url": "https://a.test/", True: "failure"})
    assert found.on == ("failure",)


def test_bounds_and_the_repository_are_checked_as_well() -> None:
    assert channels.check([], 5, "https://git.test/me/app") == []
    assert "1 to 60" in channels.check([], 0, "")[0]
    assert "1 to 60" in channels.check([], "soon", "")[0]
    assert "release_repository_url" in channels.check([], 5, "git@git.test:me/app")[0]


# How it is sent


@pytest.mark.parametrize("kind", ["webhook", "slack", "teams"])
def test_a_webhook_is_told_over_tls(hook: Hook, story: Story, kind: str) -> None:
    assert send.tell([to_hook(hook, kind)], story, BOUND) == []
    assert hook.bodies == [content.body(kind, story)]
    assert hook.paths == [f"/services/T0/{CANARY}"]


def test_who_wants_to_hear_of_failures_hears_of_nothing_else(hook: Hook, story: Story) -> None:
    assert send.tell([to_hook(hook, on=["failure"])], story, BOUND) == []
    assert hook.bodies == []
    story.good = False
    assert send.tell([to_hook(hook, on=["failure"]), to_hook(hook, on=["success"])], story, BOUND) == []
    assert [body["outcome"] for body in hook.bodies] == ["failure"]


def told_late(found: list[channels.Channel], story: Story, *words: str) -> None:
    """It is one sentence that holds no secret, and the bound holds."""
    began = time.monotonic()
    said = send.tell(found, story, BOUND)
    assert time.monotonic() - began < BOUND + 0.5
    assert len(said) == len(found)
    for sentence in said:
        assert any(word in sentence for word in words), sentence
        assert sentence.startswith("The notice to ")
        assert sentence.endswith(".")
        assert "\n" not in sentence
        assert CANARY not in sentence


@pytest.mark.parametrize(
    ("behave", "word"),
    [
        (receivers.status(500), "answered 500"),
        (receivers.status(302), "answered 302"),
        (receivers.status(204, after=BOUND + 2), "timed out"),
        (receivers.reset, "closed the connection"),
        (receivers.drip, "timed out"),
    ],
)
def test_whatever_a_webhook_does_nobody_waits_longer_than_the_bound(
    hook: Hook, story: Story, behave: Any, word: str
) -> None:
    hook.behave = behave
    told_late([to_hook(hook)], story, word)


def test_all_of_them_together_take_no_longer_than_one(hook: Hook, post: Post, story: Story) -> None:
    hook.behave = receivers.status(204, after=BOUND + 2)
    with receivers.silent() as port:
        told_late([*[to_hook(hook)] * 3, to_post(post, port=port)], story, "timed out")


def test_one_that_is_not_there_or_shows_another_certificate_is_said(hook: Hook, story: Story) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{nobody.getsockname()[1]}/{CANARY}"
        told_late(parsed({"kind": "slack", "url": url}), story, "Connection refused")
    told_late([to_hook(hook, ca_certificate=pki.new_authority("another")[0])], story, "certificate verify failed")
    assert hook.bodies == []


def test_one_that_fails_keeps_nothing_from_the_others(hook: Hook, story: Story) -> None:
    (nowhere,) = parsed({"kind": "slack", "url": "https://127.0.0.1:1/x"})
    assert len(send.tell([nowhere, to_hook(hook)], story, BOUND)) == 1
    assert len(hook.bodies) == 1


# Mail


def test_a_mail_is_sent_over_starttls_to_all_with_what_a_person_wants(post: Post, story: Story) -> None:
    assert send.tell([to_post(post, username="me", password=CANARY)], story, 5) == []
    spoken = " | ".join(post.said)
    assert "tls AUTH PLAIN " + base64.b64encode(f"\0me\0{CANARY}".encode()).decode() in post.said
    assert "tls rcpt TO:<ops@example.com>" in spoken
    assert "tls rcpt TO:<dev@example.com>" in spoken
    (raw,) = post.mails
    mail = email.message_from_string(raw, policy=email.policy.default)
    assert mail["Subject"] == "[bookshop production] deploy of bookshop-3f2a9c1d7e44: done"
    assert (mail["From"], mail["To"]) == ("deploy@example.com", "ops@example.com, dev@example.com")
    assert mail["Date"]
    assert mail.get_content_type() == "text/plain"
    text = mail.get_content()
    assert text.startswith(story.message)
    for words in ("ada on laptop", "a1a1a1a1a1a1..3f2a9c1d7e44", "14 s", story.links[0][1]):
        assert words in text


def test_a_mail_server_without_starttls_or_of_another_authority_is_told_nothing(post: Post, story: Story) -> None:
    told_late([to_post(post, ca_certificate=pki.new_authority("another")[0])], story, "certificate verify failed")
    post.offers = ["AUTH PLAIN"]
    told_late([to_post(post, username="me", password=CANARY)], story, "no STARTTLS")
    assert post.mails == []
    assert not [words for words in post.said if words.startswith("AUTH")]


def test_what_a_mail_server_refuses_is_said_by_its_number_and_not_in_its_words(post: Post, story: Story) -> None:
    post.refuses = {"AUTH": f"535 {CANARY} is wrong"}
    told_late([to_post(post, username="me", password=CANARY)], story, "refused username and password (535)")
    post.refuses = {"RCPT": f"550 {CANARY}"}
    told_late([to_post(post)], story, "takes nothing for dev@example.com, ops@example.com")
    post.refuses = {"DATA": f"452 {CANARY}"}
    told_late([to_post(post)], story, "answered 452")


def test_the_farewell_of_a_mail_server_does_not_matter(post: Post, story: Story) -> None:
    post.refuses = {"QUIT": "500 what"}
    assert send.tell([to_post(post)], story, 5) == []
    assert len(post.mails) == 1


# What a run's results say


def test_a_deploy_is_told_by_its_results() -> None:
    seen = Seen("deploy")
    seen.result("app1", "release_check", None, {"release": "b", "revision": NEW})
    assert not seen.asked
    releases = [{"id": "a", "revision": OLD}, {"id": "x", "revision": "f" * 40}]
    seen.result("app1", "releasectl", "status", {"live": {"release": "a"}, "releases": releases})
    assert seen.asked
    seen.result("app2", "releasectl", "prepare", {"revision": "e" * 40, "release": "b"})
    seen.result("app1", "releasectl", "activate", {"failed": True})
    # Taking it back is not what the run was for.
    seen.result("app1", "releasectl", "rollback", {"release": "a", "previous": "b", "revision": OLD})
    told = seen.story
    assert (told.release, told.previous, told.old, told.new) == ("b", "a", OLD, "e" * 40)
    assert told.hosts == ["app1", "app2"]


def test_a_rollback_is_told_by_its_answer() -> None:
    seen = Seen("rollback")
    seen.result("app1", "release_check", None, {"release": ""})
    answer = {"release": "a", "previous": "b", "revision": OLD, "previous_revision": NEW}
    seen.result("app1", "releasectl", "rollback", answer)
    told = seen.story
    assert (told.release, told.previous, told.old, told.new) == ("a", "b", NEW, OLD)


def test_new_settings_are_told_when_something_changed() -> None:
    seen = Seen("settings")
    seen.result("app1", "releasectl", "lock", {"changed": True})
    seen.result("app1", "releasectl", "settings", {"changed": False})
    assert (seen.asked, seen.changed) == (True, False)
    seen.result("app2", "releasectl", "settings", {"changed": True, "release": "a", "settings": {"version": "env.2"}})
    assert seen.changed
    assert (seen.story.event, seen.story.hosts, seen.story.release) == ("settings", ["app1", "app2"], None)


def test_what_was_skipped_asked_nobody_and_a_lost_host_was_asked() -> None:
    seen = Seen("rollback")
    seen.result("app1", "releasectl", "rollback", {"skipped": True})
    assert not seen.asked
    seen.lost("app1", "releasectl")
    assert seen.asked


def test_the_sentences_of_an_ending() -> None:
    ending = Ending()
    ending.ok({"closing": "All is well."})
    ending.ok({"closing": "All is well.", "msg": "said twice"})
    assert [(one.text, one.good) for one in ending.sentences([])] == [("All is well.", True)]
    ending.failed("app1", "releasectl", {"msg": "No\n disk.", "journal": ["one"]})
    ending.failed("app2", "releasectl", {"msg": "No disk."})
    ending.unreachable("app3", {"msg": "Task failed: timed  out"})
    assert [(one.text, one.good, one.journal) for one in ending.sentences(["app1", "app2", "app3"])] == [
        ("All is well.", True, ()),
        ("No disk.", False, ("one",)),
        ("app3 could not be reached: timed out", False, ()),
    ]
    ending.failed("app1", "release_verdict", {"msg": "It went back.", "closing": "It went back."})
    assert [one.text for one in ending.sentences(["app1"])] == ["All is well.", "It went back."]
