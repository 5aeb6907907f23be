"""What Hydra and OmegaConf complain of, told in one line with the key's full path and the nearest valid name.

Whatever depends on the words of their messages stands in this file, beside a sample of each; a test makes Hydra say
every one of them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from omegaconf.errors import OmegaConfBaseException

from morenas.base.errors import suggest
from morenas.run.quoting import for_hydra, key_of


@dataclass(frozen=True)
class Message:
    """A message of Hydra's or OmegaConf's.

    Attributes:
        pattern: Finds it, and in it what it is about.
        sample: How it begins.
    """

    pattern: str
    sample: str

    def search(self, text: str) -> re.Match[str] | None:
        """Find the message in what was said."""
        return re.search(self.pattern, text)


NO_CHOICE = Message(r"Could not (?:find|load) '(\S+)/(\S+?)'", "In 'search': Could not find 'model/roberta'")
NO_OVERRIDE = Message(r"^Could not override '(.+?)'", "Could not override 'task'. No match in the defaults list.")
UNSET = Message(
    r"interpolation '\$\{(\S+)\}': Incompatible value 'None'",
    "While dereferencing interpolation '${task.hub_path}': Incompatible value 'None' for field of type 'str'",
)
AMBIGUOUS = Message(r"^Ambiguous value for argument '(.+)'(?:\n|$)", "Ambiguous value for argument 'task.data_dir=a,b'")
UNREAD = Message(
    r"hydra\.cc/docs/\S+/override_grammar",
    "mismatched input '=' expecting <EOF>\nSee https://hydra.cc/docs/1.2/advanced/override_grammar/basic for details",
)
MESSAGES = (NO_CHOICE, NO_OVERRIDE, UNSET, AMBIGUOUS, UNREAD)


def explain(
    error: Exception,
    known: Collection[str],
    words: Sequence[str] = (),
    choices: Callable[[str], Sequence[str]] = lambda group: (),
) -> str:
    """Tell an error of Hydra's or OmegaConf's in one line.

    Args:
        known: Every key there is.
        words: Of the command line, to tell a key as it was typed.
        choices: From the name of a group to its choices.
    """
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if key := getattr(cause, "full_key", None):
        return _of_key(str(key), str(cause), known, words)
    if UNREAD.search(str(error)):
        return _unread(str(getattr(error, "override", "")))
    if found := AMBIGUOUS.search(lines[0]):
        return (
            f"{found[1]}: a comma in a value has two meanings. One text: {_quoted(found[1])}; a list: "
            f"{shlex.quote('{}=[{}]'.format(*found[1].split('=', 1)))}; several runs: add -m."
        )
    if found := NO_CHOICE.search(lines[0]):
        group, name = _as_typed((found[1], found[2]), words)
        if group == "hydra/launcher":
            return (
                f"{group}={name}: there is no such launcher. joblib, submitit_local, submitit_slurm and slurm come "
                "with: pip install 'morenas[sweeps]'"
            )
        there = choices(group)
        return f"{group}={name}: there is no such choice{suggest(name, there)}. Choose from {', '.join(there)}."
    if found := NO_OVERRIDE.search(lines[0]):
        wrong = f"{found[1]}: nothing is chosen yet." if found[1] in known else no_such_key(found[1], known)
        return " ".join([wrong, *lines[1:]])
    return " ".join(lines)


def _unread(word: str) -> str:
    """Say how a value is written that Hydra's grammar does not read as it is."""
    if "=" not in word:
        return f"{word}: give key=value; a value with a blank in it is quoted twice: 'key=\"a b\"'."
    return (
        f"{word}: cannot be read. A value with = , # & ( ) [ ] {{ }} or quotes in it is quoted twice, for the shell "
        f"and for Hydra: {_quoted(word)}"
    )


def _quoted(word: str) -> str:
    """A word whose value is one text, as it is typed in a shell."""
    key, _, value = word.partition("=")
    return shlex.quote(f"{key}={for_hydra(value)}")


def no_such_key(key: str, known: Collection[str], chosen: str = "") -> str:
    """Say that a key does not exist: with the nearest one that does, or all of its section.

    Args:
        chosen: What decides about the keys that the section has.
    """
    wrong = f"{key}: there is no such key{chosen and f' with {chosen}'}"
    section, _, name = key.rpartition(".")
    siblings = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == section}
    if not section or not siblings:
        return f"{wrong}{suggest(key, known)}."
    # The section is spelled right, so the last part decides: by the whole path every sibling would be near.
    near = suggest(key, [other for last, other in siblings.items() if suggest(name, [last])])
    return f"{wrong}{near or f'; {section} has ' + ', '.join(sorted(siblings))}."


def _of_key(key: str, said: str, known: Collection[str], words: Iterable[str]) -> str:
    if re.sub(r"\[\d+\]$", "", key) not in known:
        typed = next((word for word in map(key_of, words) if word.startswith(f"{key}.")), key)
        return no_such_key(typed, known)
    if unset := UNSET.search(said):
        return f"{unset[1]}: must be set, for example {unset[1]}=<value>"
    return f"{key}: {said.splitlines()[0]}"


def _as_typed(found: tuple[str, str], words: Iterable[str]) -> tuple[str, str]:
    """Group and choice as they were typed: either may be a path, task/glue=rte is task=glue/rte."""
    typed = (word.lstrip("+").split("=", 1) for word in words if "=" in word)
    return next(((group, name) for group, name in typed if f"{group}/{name}" == "/".join(found)), found)
