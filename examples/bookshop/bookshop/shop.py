"""What the shop does, apart from how it is asked."""

from typing import Any

from django.core.cache import cache
from django.db import transaction
from django.db.models import Count, F, Sum

from bookshop.models import Book, Order

BESTSELLERS = "bestsellers"
BESTSELLERS_SHOWN = 5
CATALOGUE = "catalogue"
CATALOGUE_SECONDS = 30


class OutOfStock(Exception):
    """More was ordered than there is."""


def as_item(book: Book) -> dict[str, Any]:
    return {
        "id": book.pk,
        "title": book.title,
        "author": book.author.name,
        "price": str(book.price),
        "published": book.published,
    }


def catalogue() -> list[dict[str, Any]]:
    books = cache.get(CATALOGUE)
    if books is None:
        books = [as_item(book) for book in Book.objects.select_related("author")]
        cache.set(CATALOGUE, books, CATALOGUE_SECONDS)
    return books


def compute_bestsellers() -> list[dict[str, Any]]:
    books = (
        Book.objects.select_related("author")
        .annotate(sold=Sum("orders__quantity"), buyers=Count("orders"))
        .filter(buyers__gt=0)
        .order_by("-sold", "title")[:BESTSELLERS_SHOWN]
    )
    return [{**as_item(book), "sold": book.sold} for book in books]


def bestsellers() -> list[dict[str, Any]]:
    """What the last run of the scheduled task found; nothing before the first."""
    return cache.get(BESTSELLERS, [])


def place_order(book: Book, quantity: int, email: str) -> Order:
    from bookshop.tasks import confirm_order

    with transaction.atomic():
        # One statement decides: two customers never share the last copy.
        taken = Book.objects.filter(pk=book.pk, stock__gte=quantity).update(stock=F("stock") - quantity)
        if not taken:
            raise OutOfStock
        order = Order.objects.create(book=book, quantity=quantity, email=email)
        # robust: the order stands though the broker is away; a scheduled task confirms it then.
        transaction.on_commit(lambda: confirm_order.delay(order.pk), robust=True)
    return order
