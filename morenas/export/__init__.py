"""Found adapters in the forms that others load, and others' adapters in ours; ``functions`` holds them.

Importing this package pulls in neither torch nor transformers: a run that cannot be exported is refused before them.
"""
