"""Where each address leads."""

from django.contrib import admin
from django.urls import path

from bookshop import api, views

urlpatterns = [
    path("", views.home, name="home"),
    path("slow", views.slow, name="slow"),
    path("robots.txt", views.robots, name="robots"),
    path("api/books/", api.book_list, name="book-list"),
    path("api/books/<int:pk>/", api.book_detail, name="book-detail"),
    path("api/orders/", api.order_create, name="order-create"),
    path("admin/", admin.site.urls),
]
