"""A small bookshop."""

__version__ = "1.0.0"
