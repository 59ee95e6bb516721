"""What accuracy.json keeps of several measurements, and that it reads what earlier versions wrote."""

import json

from nex_merge.runs import files
from nex_merge.runs.accuracies import add_measurement, by_name, read_measurements

DIGEST = "0123456789abcdef"


def test_a_file_of_an_earlier_version_is_one_measurement_and_stays_as_it_is_until_another_comes(tmp_path):
    folder = files.trial_folder(tmp_path, "base")
    folder.mkdir(parents=True)
    first = {
        "accuracy": 0.5,
        "right": 4,
        "n": 8,
        "right_by_problem": "10101010",
        "source": f"bench.jsonl, text {DIGEST}",
    }
    (folder / files.ACCURACY).write_text(json.dumps(first, indent=1))
    assert read_measurements(tmp_path, "base") == [first]
    add_measurement(tmp_path, "base", first)
    assert json.loads((folder / files.ACCURACY).read_text()) == first

    add_measurement(tmp_path, "base", {"accuracy": 0.2, "source": "/else/where/lm_eval.csv"})
    found = by_name(read_measurements(tmp_path, "base"))
    assert {name: one.accuracy for name, one in found.items()} == {"lm_eval": 0.2, "bench": 0.5}
    assert found["bench"].n == 8 and found["bench"].right == "10101010"
    assert files.read_accuracy(tmp_path, "base")["accuracy"] == 0.2, "earlier versions read the last one"


def test_what_a_later_measurement_has_figures_of_is_not_kept(tmp_path):
    files.trial_folder(tmp_path, "a").mkdir(parents=True)

    def measure(source, **tasks):
        parts = {name: {"accuracy": value, "source": f"{name} {source}"} for name, value in tasks.items()}
        add_measurement(tmp_path, "a", {"accuracy": sum(tasks.values()) / len(tasks), "source": source, "tasks": parts})

    measure("1", x=0.1)
    measure("2", x=0.2, y=0.4)
    measure("3", x=0.3)
    assert [one["source"] for one in read_measurements(tmp_path, "a")] == ["3", "2"]
    found = by_name(read_measurements(tmp_path, "a"))
    assert {name: (one.accuracy, one.source) for name, one in found.items()} == {"x": (0.3, "x 3"), "y": (0.4, "y 2")}
