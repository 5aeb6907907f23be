"""Stage 1: the search. ``python -m morenas.search`` is ``__main__``; importing this package pulls in nothing heavy."""
