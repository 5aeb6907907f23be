"""``python -m morenas.compare RUN...``: one table of many runs, mean and spread over seeds."""

from morenas.compare.table import main

if __name__ == "__main__":
    main()
