"""A change of a profile as a model asks for it: lines to add, remove and replace, or a whole new text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..material import quoted
from ..profile_lines import label_of, lines_of, text_of


@dataclass(frozen=True, slots=True)
class ProfileChange:
    """What is to change.

    Attributes:
        base: the profile that the change was made from.
        text: the profile after it.
        forgotten: lines that are removed, and have no successor: a line is the successor of one at most.
        not_found: lines that were to be removed or replaced, and that the profile does not have.
        perhaps_forgotten: those of them that have no successor. The store may have them, in the profile or as facts.
    """

    base: str
    text: str
    forgotten: Sequence[str]
    not_found: Sequence[str] = ()
    perhaps_forgotten: Sequence[str] = ()

    @property
    def added(self) -> list[str]:
        """The lines that are new."""
        return [line for line in lines_of(self.text) if line not in lines_of(self.base)]


def rewritten(known: str, text: str) -> ProfileChange:
    """The change to a whole new text.

    Args:
        known: the profile that the model had read.
        text: the profile that it has written.
    """
    before, after = lines_of(known), lines_of(text)
    originals = {quoted(line): line for line in before}  # the prompt shows some characters by look-alikes
    if any(line not in before and line in originals for line in after):
        after = list(dict.fromkeys(line if line in before else originals.get(line, line) for line in after))
        text = text_of(after)
    successors = Counter(label_of(line) for line in after if line not in before)
    forgotten = []
    for line in before:
        if line in after:
            continue
        if label_of(line) and successors[label_of(line)]:
            successors[label_of(line)] -= 1
        else:
            forgotten.append(line)
    return ProfileChange(known, text, forgotten)


def patched(known: str, add: Iterable[str], remove: Iterable[str], replace: Iterable[tuple[str, str]]) -> ProfileChange:
    """The change of some lines.

    A line that is to go is found if it differs in case, blanks or final punctuation. One that is not found is removed
    all the same if the store has it: the model may have read it elsewhere.

    Args:
        known: the profile, as it is known now.
        add: lines to add, even if another author has removed them meanwhile.
        remove: lines to remove.
        replace: lines to remove, each with the one that takes its place.
    """
    lines = lines_of(known)
    after = list(lines)
    added: list[str] = []
    forgotten: list[str] = []
    not_found: list[str] = []
    perhaps_forgotten: list[str] = []

    def take_out(text: str, successors: int) -> None:
        """Remove the lines of a text, in whose place so many others come."""
        for wanted in lines_of(text):
            line = _find(after, wanted)
            if line is not None:
                after.remove(line)
            elif _find(lines, wanted) is None:
                not_found.append(wanted)
            else:
                continue  # named twice
            successors -= 1
            if successors < 0:
                (perhaps_forgotten if line is None else forgotten).append(line or wanted)

    for old, new in replace:
        first = next(filter(None, (_find(after, wanted) for wanted in lines_of(old))), None)
        place = len(after) if first is None else after.index(first)
        successors = lines_of(new)
        take_out(old, sum(line not in [*after, *added] for line in successors))
        after[place:place] = successors
        added += successors
    for text in remove:
        take_out(text, 0)
    for text in add:
        after += lines_of(text)
        added += lines_of(text)
    after = list(dict.fromkeys(after))
    # Without what is added, so that it is added; with what was not found, so that it is removed.
    base = [line for line in [*lines, *not_found] if line not in added]
    result = known if after == lines else text_of(after)
    return ProfileChange(known if base == lines else text_of(base), result, forgotten, not_found, perhaps_forgotten)


def _find(lines: Sequence[str], wanted: str) -> str | None:
    """The line that is wanted: word for word, else the first one that reads the same."""
    if wanted in lines:
        return wanted
    return next((line for line in lines if _plain(line) == _plain(wanted)), None)


def _plain(line: str) -> str:
    return " ".join(quoted(line).split()).rstrip(".,;!").casefold()
