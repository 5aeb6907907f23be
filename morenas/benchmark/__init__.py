"""The bench: problems whose best architecture is known, methods that look for it, and what each of them reaches."""
