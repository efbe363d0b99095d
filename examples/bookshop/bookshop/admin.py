from django.contrib import admin

from bookshop.models import Author, Book, Order


@admin.register(Author)
class AuthorAdmin(admin.ModelAdmin):
    search_fields = ["name"]


@admin.register(Book)
class BookAdmin(admin.ModelAdmin):
    list_display = ["title", "author", "price", "stock"]
    list_select_related = ["author"]
    search_fields = ["title", "author__name"]
    autocomplete_fields = ["author"]


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ["created_at", "book", "quantity", "email", "confirmed_at"]
    list_select_related = ["book"]
    date_hierarchy = "created_at"
    raw_id_fields = ["book"]
