"""Put a first dozen on the shelf, so that a new shop does not open empty."""

from django.db import migrations

BOOKS = [
    ("Jane Austen", "Pride and Prejudice", 1813, "8.99"),
    ("Charlotte Brontë", "Jane Eyre", 1847, "9.50"),
    ("Herman Melville", "Moby-Dick", 1851, "12.00"),
    ("Charles Dickens", "Great Expectations", 1861, "9.99"),
    ("Fyodor Dostoevsky", "Crime and Punishment", 1866, "11.50"),
    ("George Eliot", "Middlemarch", 1871, "13.00"),
    ("Leo Tolstoy", "Anna Karenina", 1878, "12.50"),
    ("Robert Louis Stevenson", "Treasure Island", 1883, "7.50"),
    ("Oscar Wilde", "The Picture of Dorian Gray", 1890, "8.00"),
    ("H. G. Wells", "The Time Machine", 1895, "6.50"),
    ("Joseph Conrad", "Lord Jim", 1900, "9.00"),
    ("Virginia Woolf", "Mrs Dalloway", 1925, "10.00"),
]


def stock_the_shelf(apps, schema_editor):
    Author = apps.get_model("bookshop", "Author")
    Book = apps.get_model("bookshop", "Book")
    for name, title, published, price in BOOKS:
        author, _ = Author.objects.get_or_create(name=name)
        Book.objects.get_or_create(
            title=title,
            author=author,
            defaults={"published": published, "price": price, "stock": 1000},
        )


class Migration(migrations.Migration):
    dependencies = [("bookshop", "0001_initial")]

    # Taking the migration back leaves the books: somebody may have ordered one.
    operations = [migrations.RunPython(stock_the_shelf, migrations.RunPython.noop)]
