"""Tasks: where examples come from, how they are split, encoded, batched and scored.

Importing this package loads neither datasets nor torch, so that a wrong task is refused at once.
"""

from morenas.tasks.spec import TaskSpec

__all__ = ["TaskSpec"]
