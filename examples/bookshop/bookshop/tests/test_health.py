"""Health checks: what they look at, and what they do not tell."""

from unittest import mock

from django.db import OperationalError
from django.test import SimpleTestCase, TestCase, override_settings

from bookshop import health

CANARY = "canary-5e1f"


class AliveTest(SimpleTestCase):
    """SimpleTestCase refuses queries: the process alone is asked."""

    def test_alive_for_any_host(self):
        for host in ("testserver", "10.0.0.1", "elsewhere.example"):
            answer = self.client.get("/healthz", headers={"host": host})
            self.assertEqual((answer.status_code, answer.content), (200, b"ok\n"))
            self.assertIn("X-Release", answer)


class ReadyTest(TestCase):
    def test_ready(self):
        answer = self.client.get("/readyz", headers={"host": "10.0.0.1"})
        self.assertEqual(answer.status_code, 200)
        self.assertEqual(answer["Cache-Control"], "no-store")
        self.assertEqual(answer.json()["database"], "ok")

    def test_names_what_failed_and_tells_no_secret(self):
        for check, named, other in (
            ("check_database", "database", "broker"),
            ("check_broker", "broker", "database"),
        ):
            broken = mock.patch.object(health, check, side_effect=OperationalError(CANARY))
            with broken as patched, self.assertLogs("bookshop.health", "ERROR") as logs:
                patched.__name__ = check
                answer = self.client.get("/readyz")
            self.assertEqual(answer.status_code, 503)
            self.assertEqual(answer.json()[named], "failed")
            self.assertEqual(answer.json()[other], "ok")
            self.assertNotIn(CANARY, answer.content.decode() + "".join(logs.output))
            self.assertIn(check, "".join(logs.output))

    @override_settings(CELERY_TASK_ALWAYS_EAGER=False, REDIS_URL="", REDIS_TLS={})
    def test_not_ready_without_a_broker(self):
        with self.assertLogs("bookshop.health", "ERROR"):
            self.assertEqual(self.client.get("/readyz").json()["broker"], "failed")

    @override_settings(
        CELERY_TASK_ALWAYS_EAGER=False,
        REDIS_URL=f"redis://app:{CANARY}@127.0.0.1:9/0",
        REDIS_TLS={},
    )
    def test_not_ready_when_the_broker_refuses(self):
        with self.assertLogs("bookshop.health", "ERROR") as logs:
            answer = self.client.get("/readyz")
        self.assertEqual(answer.status_code, 503)
        self.assertNotIn(CANARY, answer.content.decode() + "".join(logs.output))
