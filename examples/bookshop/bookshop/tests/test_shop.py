"""What a customer sees and does."""

import datetime
import json
from unittest import mock

from django.core import mail
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import TestCase, override_settings
from django.utils import timezone

from bookshop import tasks
from bookshop.models import Author, Book, Order


class ShopCase(TestCase):
    def setUp(self) -> None:
        cache.clear()
        author = Author.objects.create(name="Mary Shelley")
        self.book = Book.objects.create(title="Frankenstein", author=author, price="7.99", published=1818, stock=3)

    def order(self, **changes):
        order = {"book": self.book.pk, "quantity": 1, "email": "reader@bookshop.example"}
        with self.captureOnCommitCallbacks(execute=True):
            return self.client.post("/api/orders/", json.dumps({**order, **changes}), content_type="application/json")


class PageTest(ShopCase):
    @override_settings(VERSION="4.5.6", RELEASE_ID="bookshop-abc", GREETING="Good <day>")
    def test_page_shows_version_release_and_greeting(self):
        answer = self.client.get("/")
        self.assertContains(answer, '<span id="version">4.5.6</span>')
        self.assertContains(answer, '<span id="release">bookshop-abc</span>')
        self.assertContains(answer, "Good &lt;day&gt;")
        self.assertContains(answer, "Frankenstein")
        self.assertEqual(answer["X-Release"], "bookshop-abc")

    def test_first_migration_stocked_the_shelf(self):
        self.assertContains(self.client.get("/"), "Middlemarch")

    def test_recommendations_are_behind_their_flag(self):
        with override_settings(FEATURES={}):
            self.assertNotContains(self.client.get("/"), "Much read")
        with override_settings(FEATURES={"recommendations": True}):
            self.assertContains(self.client.get("/"), "Much read")

    def test_slow_is_behind_its_flag_and_bounded(self):
        with override_settings(FEATURES={}):
            self.assertEqual(self.client.get("/slow?seconds=0").status_code, 404)
        with override_settings(FEATURES={"slow": True}):
            self.assertEqual(self.client.get("/slow?seconds=0").status_code, 200)
            for wrong in ("31", "-1", "nan", "inf", "x"):
                self.assertEqual(self.client.get(f"/slow?seconds={wrong}").status_code, 400, wrong)

    def test_an_answer_to_an_unknown_host_names_its_release_too(self):
        answer = self.client.get("/", headers={"host": "elsewhere.example"})
        self.assertEqual(answer.status_code, 400)
        self.assertIn("X-Release", answer)

    def test_admin_asks_for_a_login(self):
        self.assertRedirects(self.client.get("/admin/"), "/admin/login/?next=/admin/")


class ApiTest(ShopCase):
    def test_list_and_detail(self):
        titles = [book["title"] for book in self.client.get("/api/books/").json()["books"]]
        self.assertIn("Frankenstein", titles)
        detail = self.client.get(f"/api/books/{self.book.pk}/").json()
        self.assertEqual((detail["author"], detail["in_stock"]), ("Mary Shelley", True))
        self.assertEqual(self.client.get("/api/books/999999/").status_code, 404)

    def test_list_comes_from_the_cache_the_second_time(self):
        self.client.get("/api/books/")
        with self.assertNumQueries(0):
            self.client.get("/api/books/")

    def test_order_is_confirmed_once(self):
        answer = self.order(quantity=2)
        self.assertEqual(answer.status_code, 201)
        self.assertEqual(len(mail.outbox), 1)
        tasks.confirm_order.delay(answer.json()["id"])
        self.assertEqual(len(mail.outbox), 1)
        self.book.refresh_from_db()
        self.assertEqual(self.book.stock, 1)

    def test_order_beyond_the_stock_is_refused(self):
        self.assertEqual(self.order(quantity=4).status_code, 409)
        self.book.refresh_from_db()
        self.assertEqual(self.book.stock, 3)

    def test_wrong_orders_are_refused_with_a_sentence(self):
        for changes, status in [
            ({"book": 999999}, 404),
            ({"book": "1"}, 400),
            ({"book": True}, 400),
            ({"book": 2**70}, 400),
            ({"quantity": 0}, 400),
            ({"quantity": 21}, 400),
            ({"quantity": 1.5}, 400),
            ({"email": "nobody"}, 400),
            ({"email": None}, 400),
        ]:
            answer = self.order(**changes)
            self.assertEqual(answer.status_code, status, changes)
            self.assertIn("error", answer.json())
        for body in (b"", b"{", b"[]", b"\xff", b"9" * 20_000):
            answer = self.client.post("/api/orders/", body, content_type="application/json")
            self.assertEqual(answer.status_code, 400, body[:9])
        self.assertEqual(Order.objects.count(), 0)

    def test_order_stands_though_the_broker_is_away(self):
        with (
            mock.patch.object(tasks.confirm_order, "delay", side_effect=OSError),
            self.assertLogs("django.test", "ERROR"),
        ):
            answer = self.order()
        self.assertEqual(answer.status_code, 201)
        Order.objects.update(created_at=timezone.now() - datetime.timedelta(minutes=5))
        tasks.confirm_pending_orders.delay()
        self.assertEqual(len(mail.outbox), 1)
        self.assertIsNotNone(Order.objects.get().confirmed_at)


class TaskTest(ShopCase):
    @override_settings(FEATURES={"recommendations": True})
    def test_bestsellers_are_recommended_most_sold_first(self):
        other = Book.objects.create(title="The Last Man", author=self.book.author, price="8", published=1826, stock=9)
        self.order(quantity=1)
        self.order(book=other.pk, quantity=2)
        tasks.recompute_bestsellers.delay()
        recommended = self.client.get("/").context["recommended"]
        self.assertEqual([book["title"] for book in recommended], ["The Last Man", "Frankenstein"])


class CoverTest(ShopCase):
    def test_cover_is_kept_by_the_configured_storage(self):
        self.book.cover = SimpleUploadedFile("front.png", b"png")
        self.book.full_clean()
        self.book.save()
        with self.book.cover.open() as cover:
            self.assertEqual(cover.read(), b"png")
