"""What Celery's worker loads beside the app (--include), so that a switch loses no task, there or back.

A task whose name this release does not know, which Celery drops, is set aside in a queue of its own on the same broker
and acknowledged once it is there. Workers whose release knows the name give it back to where it was, as it was: when
they start, and when there are other tasks in that queue than they have seen.

A worker that is told to stop finishes what it has in hand for SLIPWAY_STOP_TIMEOUT seconds, or for the app's own
worker_soft_shutdown_timeout when that is shorter. What is left then goes back into its queue, if it has acks_late.
"""

import contextlib
import os
import signal
import socket
import threading
from collections import Counter

from celery import bootsteps, signals
from celery.utils.log import get_logger
from kombu import Queue
from kombu.compression import compress

QUEUE = "slipway.aside"
HEADER = "slipway_aside"  # of a task in that queue: its name and where it belongs
EVERY = 15.0  # seconds between two looks at how many there are
BATCH = 200  # of them are gone through at once: the worker answers its broker in between
# Properties that a message is given anew when it is sent, or that are told by other names.
ANEW = (
    "delivery_tag", "delivery_info", "body_encoding", "content_type", "content_encoding", "application_headers",
    "priority",
)  # fmt: skip

logger = get_logger(__name__)


def send(message, headers, exchange, routing_key, channel):
    """Send what was received once more, with these headers and otherwise as it was."""
    # What was packed was unpacked when it was received.
    packed = headers.get("compression")
    sent = channel.prepare_message(
        compress(message.body, packed)[0] if packed else message.body,
        priority=message.properties.get("priority"),
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        headers=headers,
        properties={name: value for name, value in message.properties.items() if name not in ANEW},
    )
    channel.basic_publish(sent, exchange=exchange, routing_key=routing_key)


def notify(text):
    """Say it to systemd, sd_notify(3)."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    # Nobody may listen: that is no reason to stop working.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.sendto(text.encode(), "\0" + place[1:] if place.startswith("@") else place)


class Loaded(bootsteps.StartStopStep):
    """Tells systemd that the app is loaded and the children are there, so that whoever starts this unit waits for it.

    Not for the broker: the worker waits for it by itself, and a broker that is away is no reason to refuse a release.
    """

    requires = ("celery.worker.components:Pool",)

    def start(self, _worker):
        notify("READY=1")


class Aside(bootsteps.StartStopStep):
    """The queue of tasks that are set aside, as a part of the worker's consumer."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer, **options):
        super().__init__(consumer, **options)
        self.consumer = consumer
        self.most = int(os.environ["SLIPWAY_ASIDE_MAX"])
        self.unknown = None  # how many of the queue this worker has seen and does not know
        self.ahead = 0  # how many this look has still to go through
        self.left = 0  # how many it left there
        self.given = Counter()  # how many of which name it gave back
        self.looking = self.going_on = None
        self.drop = consumer.on_unknown_task

    def start(self, consumer):
        self.unknown, self.ahead = None, 0
        try:
            self.size()
        except consumer.connection_errors:
            raise
        except Exception as error:  # whatever a broker says to those who may not
            logger.error("There is no queue %s (%s): tasks that this release does not know are dropped", QUEUE, error)
            return
        consumer.on_unknown_task = self.keep
        self.going_on = consumer.timer.call_after(0.0, self.look)
        self.looking = consumer.timer.call_repeatedly(EVERY, self.look)

    def stop(self, _consumer):
        for timer in (self.looking, self.going_on):
            if timer is not None:
                timer.cancel()

    def size(self):
        """How many are set aside; there is such a queue afterwards."""
        channel = self.consumer.connection.default_channel
        return channel.queue_declare(queue=QUEUE, durable=True, auto_delete=False).message_count

    def keep(self, body, message, exc):
        """What is done with a task of an unknown name, in place of Celery's own, which rejects it."""
        task = message.headers if "task" in message.headers else message.payload  # the protocols 2 and 1
        name, number = task["task"], task.get("id")
        if (self.unknown or 0) >= self.most:
            logger.error("Not set aside, for there are %s already (services_celery_aside_max):", self.unknown)
            self.drop(body, message, exc)
            return
        where = {"exchange": message.delivery_info["exchange"], "routing_key": message.delivery_info["routing_key"]}
        send(message, {**message.headers, HEADER: {"task": name, **where}}, "", QUEUE, message.channel)
        message.ack()
        self.unknown = (self.unknown or 0) + 1
        logger.warning("Set aside: no task of this release is called %s[%s]; it waits in %s", name, number, QUEUE)
        self.show()

    def show(self):
        """Have `systemctl status` and `releasectl status` tell it."""
        said = f"{self.unknown} tasks of names that this release does not know are set aside" if self.unknown else ""
        notify(f"STATUS={said}")

    def look(self):
        """Go through the queue when there is other in it than this worker has seen."""
        if self.ahead:
            return
        self.ahead, self.left, self.given = self.size(), 0, Counter()
        if self.ahead == self.unknown:
            self.ahead = 0
        else:
            self.go_on()

    def go_on(self):
        try:
            with self.consumer.app.connection_for_write() as connection:
                queue = Queue(QUEUE, channel=connection.default_channel)
                for _ in range(min(self.ahead, BATCH)):
                    self.ahead -= 1
                    message = queue.get()
                    if message is None:
                        self.ahead = 0  # another worker was quicker
                        break
                    self.sort(message, queue.channel)
        except BaseException:
            self.unknown, self.ahead = None, 0
            raise
        if self.ahead:
            self.going_on = self.consumer.timer.call_after(0.1, self.go_on)
            return
        self.unknown = self.left
        for name, count in self.given.items():
            logger.warning("Given back: %s of %s, which were set aside, are in their queue again", count, name)
        self.show()

    def sort(self, message, channel):
        """Give a task back to its own queue, or to the end of those that are set aside."""
        headers = dict(message.headers)
        where = headers.pop(HEADER, None)
        if where and where["task"] in self.consumer.strategies:
            send(message, headers, where["exchange"], where["routing_key"], channel)
            self.given[where["task"]] += 1
        else:
            send(message, message.headers, "", QUEUE, channel)
            self.left += 1
        message.ack()


class Limit:
    """How long a worker that was told to stop may finish its tasks, in seconds."""

    def __init__(self, conf):
        most = float(os.environ["SLIPWAY_STOP_TIMEOUT"])
        self.conf = conf
        self.seconds = min(conf.get("worker_soft_shutdown_timeout") or most, most)
        self.timer = threading.Timer(self.seconds, self.over)
        self.timer.daemon = True
        # What Celery waits for by itself in a cold shutdown that somebody asks for.
        conf.worker_soft_shutdown_timeout = self.seconds

    def begin(self, how, **_more):
        if how == "Warm" and self.timer.ident is None:
            self.timer.start()

    def over(self):
        logger.warning("After %.0f s tasks are in hand: those with acks_late go back into their queue", self.seconds)
        self.conf.worker_soft_shutdown_timeout = 0.0  # it was waited
        os.kill(os.getpid(), signal.SIGQUIT)

    def warn(self, **_more):
        """Say what would have Redis hand a task out a second time while it is done."""
        visible = (self.conf.broker_transport_options or {}).get("visibility_timeout", 3600)
        longest = self.conf.task_time_limit or self.conf.task_soft_time_limit or 0
        what, needed = max(("the time limit of tasks", longest), ("the time to stop", self.seconds), key=lambda x: x[1])
        if visible < needed:
            logger.warning(
                "visibility_timeout is %s s, below %s, %.0f s: Redis hands out a task that takes longer a second time"
                " while it is done. Raise it in broker_transport_options.",
                visible, what, needed,
            )  # fmt: skip


@signals.worker_init.connect
def attach(sender, **_more):
    """Before the worker is put together, when it has the app and the app its settings."""
    app = sender.app
    app.steps["worker"].add(Loaded)
    app.steps["consumer"].add(Aside)
    limit = Limit(app.conf)
    signals.worker_shutting_down.connect(limit.begin, weak=False)
    if app.connection_for_read().transport.driver_type == "redis":
        # Nothing is logged before the worker is set up.
        signals.worker_ready.connect(limit.warn, weak=False)
