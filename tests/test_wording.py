"""A number with its noun; lines that a terminal need not break within words."""

import shlex

from nex_merge.wording import by_number, counted, fitted, wrapped


def test_one_is_not_many():
    assert [counted(n, "sample") for n in (0, 1, 2, 1024)] == ["0 samples", "1 sample", "2 samples", "1,024 samples"]
    assert counted(2, "class", "classes") == "2 classes"


def test_names_are_sorted_as_people_count():
    names = ["worker 2", "worker 10", "worker 1", "here", "10", "9", "a1b2", "a1b10"]
    assert sorted(names, key=by_number) == ["9", "10", "a1b2", "a1b10", "here", "worker 1", "worker 2", "worker 10"]


def test_words_and_paths_stay_in_one_piece():
    path = f"/data/{'long-name-' * 9}end"
    for width in (60, 80):
        lines = wrapped(f"  - the split-half reliability of what lies in {path} is low", width).split("\n")
        assert path in [line.strip() for line in lines] and all(len(line) <= width or path in line for line in lines)


def test_a_command_is_continued_so_that_it_can_be_copied():
    command = "nex-merge search results/qwen3_ties/config.yaml --set generation.max_new_tokens=1664 --out 'a b'"
    told = fitted(f"Most of them are cut, so raise the limit: {command}", 60)
    sentence, _, lines = told.partition("\n")
    assert sentence == "Most of them are cut, so raise the limit:" and max(map(len, told.split("\n"))) <= 60
    assert shlex.split(lines.replace("\\\n", " ")) == shlex.split(command)
    assert fitted(f"Short: {command}", 60, 1000) == f"Short: {command}", "in a file it stays on its line"
