"""The JSON API."""

import json

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.http import Http404, HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from bookshop import shop
from bookshop.models import Book

MOST_COPIES = 20
MOST_BYTES = 10_000


@require_GET
def book_list(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"books": shop.catalogue()})


@require_GET
def book_detail(request: HttpRequest, pk: int) -> JsonResponse:
    book = Book.objects.select_related("author").filter(pk=pk).first()
    if book is None:
        raise Http404
    return JsonResponse({**shop.as_item(book), "in_stock": book.stock > 0})


# No cookie gives any right here, so there is nothing that a forged request could borrow.
@csrf_exempt
@require_POST
def order_create(request: HttpRequest) -> JsonResponse:
    try:
        book_id, quantity, email = _read_order(request)
    except ValueError as error:
        return _refuse(400, str(error))
    book = Book.objects.filter(pk=book_id).first()
    if book is None:
        return _refuse(404, "There is no such book.")
    try:
        order = shop.place_order(book, quantity, email)
    except shop.OutOfStock:
        return _refuse(409, "There are not as many copies left.")
    return JsonResponse({"id": order.pk, "book": book.pk, "quantity": quantity}, status=201)


def _read_order(request: HttpRequest) -> tuple[int, int, str]:
    if len(request.body) > MOST_BYTES:
        raise ValueError("The order is too long.")
    try:
        order = json.loads(request.body)
    except ValueError:
        raise ValueError("The order is not JSON.") from None
    if not isinstance(order, dict):
        raise ValueError("The order is not a JSON object.")
    book, quantity, email = order.get("book"), order.get("quantity", 1), order.get("email")
    # type() and not isinstance(): JSON's true is an int to Python.
    if type(book) is not int or not 0 < book < 2**63:
        raise ValueError("book must be the number of a book.")
    if type(quantity) is not int or not 1 <= quantity <= MOST_COPIES:
        raise ValueError(f"quantity must be between 1 and {MOST_COPIES}.")
    if not isinstance(email, str) or len(email) > 254:
        raise ValueError("email must be an address.")
    try:
        validate_email(email)
    except ValidationError:
        raise ValueError("email must be an address.") from None
    return book, quantity, email


def _refuse(status: int, why: str) -> JsonResponse:
    return JsonResponse({"error": why}, status=status)
