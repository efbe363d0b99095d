"""Sending: all at once, within one bound, and whatever happens here changes nothing of the run that is told."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from email.message import EmailMessage
from email.utils import format_datetime, localtime, make_msgid

from plugins.module_utils import webhooks
from plugins.notices import content
from plugins.notices.channels import TLS_PORT, Channel

AGENT = "slipway-notices"


class NotSent(Exception):
    """Why not; no word of it is a secret."""


def tell(channels: Sequence[Channel], story: content.Story, seconds: float) -> list[str]:
    """Tell all of them, and return a sentence for each that was not told within ``seconds``."""
    wanted = [channel for channel in channels if story.outcome in channel.on]
    deadline = time.monotonic() + seconds
    answers: dict[int, str] = {}

    def one(number: int, channel: Channel) -> None:
        try:
            send(channel, story, deadline)
            answers[number] = ""
        except NotSent as reason:
            answers[number] = str(reason)
        except Exception as error:
            # Its text may hold an address or a password: the name of what happened has to do.
            answers[number] = f"something unforeseen ({type(error).__name__})"

    # Of a kind that nobody waits for when the program ends: a name server that says nothing cannot be interrupted.
    threads = [threading.Thread(target=one, args=(n, c), daemon=True) for n, c in enumerate(wanted)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = f"timed out, no answer within {seconds:g} s"
    said = [(channel, answers.get(number, late)) for number, channel in enumerate(wanted)]
    return [f"The notice to {channel.label} was not sent: {why}." for channel, why in said if why]


def send(channel: Channel, story: content.Story, deadline: float) -> None:
    """Tell one of them."""
    left = max(0.1, deadline - time.monotonic())
    trust = webhooks.trust(pem=channel.ca_certificate or None)
    if channel.kind == "mail":
        with _sentences():
            _mail(channel, _message(channel, story), left, trust)
        return
    status, said = webhooks.post(channel.url, content.body(channel.kind, story), AGENT, left, trust)
    if not 200 <= status < 300:
        raise NotSent(said)


def _message(channel: Channel, story: content.Story) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = " ".join(content.subject(story).split())
    message["From"] = channel.sender
    message["To"] = ", ".join(channel.to)
    message["Date"] = format_datetime(localtime())
    message["Message-ID"] = make_msgid(domain=channel.sender.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(content.text(story))
    return message


def _mail(channel: Channel, message: EmailMessage, seconds: float, trust: object) -> None:
    # The name for EHLO is given, or smtplib asks name servers for one, and they may be slow.
    here = socket.gethostname()
    server: smtplib.SMTP
    if channel.port == TLS_PORT:
        server = smtplib.SMTP_SSL(channel.server, channel.port, here, timeout=seconds, context=trust)  # type: ignore[arg-type]
    else:
        server = smtplib.SMTP(channel.server, channel.port, here, timeout=seconds)
    with contextlib.closing(server):
        if channel.starttls and channel.port != TLS_PORT:
            server.starttls(context=trust)  # type: ignore[arg-type]
        if channel.username:
            server.login(channel.username, channel.password)
        refused = server.send_message(message, channel.sender, list(channel.to))
        # It is taken: how the farewell goes does not matter.
        with contextlib.suppress(smtplib.SMTPException, OSError):
            server.quit()
    if refused:
        raise NotSent(f"{channel.server} did not take it for {', '.join(sorted(refused))}")


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    """What smtplib raises holds the server's own words, which may quote what it was given."""
    try:
        yield
    except smtplib.SMTPAuthenticationError as error:
        raise NotSent(f"the server refused username and password ({error.smtp_code})") from None
    except smtplib.SMTPNotSupportedError:
        raise NotSent("the server offers no STARTTLS, or no login") from None
    except smtplib.SMTPRecipientsRefused as error:
        raise NotSent(f"the server takes nothing for {', '.join(sorted(error.recipients))}") from None
    except smtplib.SMTPResponseException as error:
        raise NotSent(f"the server answered {error.smtp_code}") from None
    except smtplib.SMTPException as error:
        raise NotSent(f"the server ended the conversation ({type(error).__name__})") from None
    except TimeoutError:
        raise NotSent("timed out") from None
    except OSError as error:
        raise NotSent(f"the server is not reached: {error}") from None
