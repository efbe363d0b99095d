"""The lightest app that can be released: no Django, no database, no broker."""
