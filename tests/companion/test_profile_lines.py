"""The three-way merge of profiles, and the limit on their length."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from companion.material import quoted
from companion.memory.profile_change import patched, rewritten
from companion.profile_lines import MAX_PROFILE, add_lines, lines_of, merge, text_of, within_limit

pytestmark = pytest.mark.unit
LINES = st.lists(st.sampled_from([f"{label}: {value}" for label in "abc" for value in "xyz"] + ["prose", "more"]))
TEXTS = LINES.map(text_of)


@pytest.mark.parametrize(
    ("there", "base", "new", "expected"),
    [
        ("", "", "Name: Ada", "Name: Ada"),
        ("a\nLikes: chess", "a", "a\nLives in: Oslo", "a\nLikes: chess\nLives in: Oslo"),
        # A line that the other side has removed stays away.
        ("Name: Ada", "Name: Ada\nLikes: tea", "Name: Ada\nLikes: tea\nWork: nurse", "Name: Ada\nWork: nurse"),
        ("", "Name: Ada", "Name: Ada\nLikes: tea", "Likes: tea"),
        # Two lines of one label, from one base, are both there.
        ("Allergic to: nuts", "", "Allergic to: penicillin", "Allergic to: nuts\nAllergic to: penicillin"),
        # A correction is not undone from an older base, and takes the place of the line that it corrects.
        ("Lives in: Berlin", "Lives in: Oslo", "Lives in: Oslo\nLikes: tea", "Lives in: Berlin\nLikes: tea"),
        ("Lives in: Oslo\nLikes: tea", "Lives in: Oslo", "Lives in: Berlin", "Lives in: Berlin\nLikes: tea"),
        ("Lives in: Rome", "Lives in: Oslo", "Lives in: Berlin", "Lives in: Rome\nLives in: Berlin"),
        # What is stored stays as it is written where nothing changes.
        ("  Name: Ada\n\nLikes: tea", "Likes: tea", "Likes: tea", "  Name: Ada\n\nLikes: tea"),
    ],
)
def test_examples(there: str, base: str, new: str, expected: str) -> None:
    assert merge(there, base, new) == expected


@given(TEXTS, TEXTS, TEXTS)
def test_the_result_is_what_is_there_without_what_was_removed_and_with_what_was_added(
    there: str, base: str, new: str
) -> None:
    stored, before, after = (set(lines_of(text)) for text in (there, base, new))
    assert set(lines_of(merge(there, base, new))) == stored - (before - after) | (after - before)


@given(TEXTS, TEXTS, TEXTS)
def test_to_merge_again_changes_nothing(there: str, base: str, new: str) -> None:
    once = merge(there, base, new)
    assert lines_of(merge(once, base, new)) == lines_of(once)


@given(TEXTS, TEXTS, TEXTS)
def test_the_order_of_what_is_there_is_kept(there: str, base: str, new: str) -> None:
    after = lines_of(merge(there, base, new))
    if lines_of(there) != lines_of(base):
        kept = [line for line in lines_of(there) if line in after and line not in lines_of(new)]
        assert [line for line in after if line in kept] == kept


@given(TEXTS, TEXTS, st.lists(TEXTS))
def test_a_late_text_brings_nothing_back(there: str, new: str, versions: list[str]) -> None:
    known = {line for text in versions for line in lines_of(text)}
    after = set(lines_of(add_lines(there, new, known)))
    assert after >= set(lines_of(there))
    assert not (after - set(lines_of(there))) & known
    assert after >= set(lines_of(new)) - known


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=1500)).map("\n".join))
def test_a_profile_beyond_the_limit_loses_no_line_and_no_part_of_one(text: str) -> None:
    kept, surplus = within_limit(text)
    assert len(kept) <= MAX_PROFILE
    assert sorted([*lines_of(kept), *surplus]) == sorted(lines_of(text))
    if len(text) <= MAX_PROFILE:
        assert (kept, surplus) == (text, [])


def test_surplus_lines_are_the_last_ones() -> None:
    lines = [f"{number:03}: {'x' * 95}" for number in range(50)]  # 100 characters each
    kept, surplus = within_limit("\n".join(lines))
    assert lines_of(kept) == lines[:39]
    assert surplus == lines[39:]


# -- what a model asks for ---------------------------------------------------------------------------------------

KNOWN = "Name: Ada\nLives in: Oslo\nLikes: tea"


@pytest.mark.parametrize(
    ("add", "remove", "replace", "expected"),
    [
        (["Work: nurse"], [], [], f"{KNOWN}\nWork: nurse"),
        ([], ["likes:  Tea."], [], "Name: Ada\nLives in: Oslo"),
        ([], [], [("Lives in: Oslo", "Lives in: Berlin")], "Name: Ada\nLives in: Berlin\nLikes: tea"),
        (["Likes: jazz\nLikes: tea"], ["Likes: tea"], [], "Name: Ada\nLives in: Oslo\nLikes: tea\nLikes: jazz"),
        ([], [], [("Pet: cat", "Pet: dog")], f"{KNOWN}\nPet: dog"),
        ([], ["Pet: cat"], [], KNOWN),
    ],
)
def test_a_patch(add: list[str], remove: list[str], replace: list[tuple[str, str]], expected: str) -> None:
    change = patched(KNOWN, add, remove, replace)
    assert merge(KNOWN, change.base, change.text) == expected
    assert change.not_found == (["Pet: cat"] if "Pet: cat" in [*remove, *(old for old, _ in replace)] else [])


def test_what_is_added_is_added_even_if_another_has_removed_it_meanwhile() -> None:
    change = patched(KNOWN, ["Likes: tea"], [], [])
    assert merge("Name: Ada", change.base, change.text) == "Name: Ada\nLikes: tea"


def test_what_was_read_elsewhere_can_be_removed() -> None:
    change = patched("Name: Ada", [], ["Likes: tea"], [])
    assert merge(KNOWN, change.base, change.text) == "Name: Ada\nLives in: Oslo"


@given(TEXTS, LINES, LINES, st.lists(st.tuples(LINES.map(text_of), LINES.map(text_of)), max_size=2))
def test_a_patch_adds_and_removes_what_it_says(
    known: str, add: list[str], remove: list[str], replace: list[tuple[str, str]]
) -> None:
    change = patched(known, add, remove, replace)
    after = set(lines_of(merge(known, change.base, change.text)))
    assert after >= set(add)
    named = {line for text in (*add, *(new for _, new in replace)) for line in lines_of(text)}
    assert not (after & set(remove)) - named
    gone = {line for text in (*remove, *(old for old, _ in replace)) for line in lines_of(text)}
    assert after >= set(lines_of(known)) - gone


def test_a_line_that_the_prompt_shows_with_look_alikes_is_the_stored_one() -> None:
    known = "## Language\nLikes: tea"
    shown = quoted(known)
    assert shown != known
    assert rewritten(known, f"{shown}\nPet: cat").text == f"{known}\nPet: cat"
    change = patched(known, [], [shown.splitlines()[0]], [])
    assert (change.text, change.not_found) == ("Likes: tea", [])


def test_a_corrected_line_is_not_a_forgotten_one() -> None:
    assert rewritten(KNOWN, "Likes: jazz").forgotten == ["Name: Ada", "Lives in: Oslo"]
    assert patched(KNOWN, [], ["Name: Ada"], [("Likes: tea", "Likes: jazz")]).forgotten == ["Name: Ada"]
