"""The release lifecycle on the host: one module a noun, standard library only, Python 3.10 or newer."""
