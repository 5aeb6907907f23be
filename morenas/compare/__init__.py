"""One table of many runs. ``python -m morenas.compare`` is ``__main__``."""
