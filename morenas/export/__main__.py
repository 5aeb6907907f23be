"""``python -m morenas.export``: what a run trained, in a form that others load."""

from morenas.export.command import main

if __name__ == "__main__":
    main()
