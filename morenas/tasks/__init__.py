"""Tasks: where examples come from, how they are split, encoded, batched and scored.

Importing this package pulls in neither datasets nor torch: a hub that is out of reach is noticed before them.
"""

from morenas.tasks.spec import TaskSpec

__all__ = ["TaskSpec"]
