"""Found adapters in the forms that others load, and others' adapters in ours; the functions are in ``api``.

Importing this package pulls in neither torch nor transformers: a run that cannot be exported is refused before them.
"""
