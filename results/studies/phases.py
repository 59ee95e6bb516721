"""Do NEX's phases have to do with trying and concluding? On qwen3-tiny, whose text says which line does which.

    nex-merge search configs/qwen3_ties.yaml --trials 12
    python results/studies/phases.py measure results/qwen3_ties   # resumable, half a minute a variant on one core
    python results/studies/phases.py tables                       # phases.csv beside this file, tables on stdout

The variants of that run (base, parents, merges) answer fresh problems that no training batch, search or measurement of
accuracy has seen: `choose`, on which base's and parents' best setting is chosen, and `report`, on which everything is
reported.
"""

import argparse
import csv
import os
from collections import Counter
from functools import lru_cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from nex_merge.activations.cache import read_cache, write_cache
from nex_merge.activations.capture import capture_all
from nex_merge.engines.loading import load_tokenizer
from nex_merge.families.qwen3_tiny.grammar import ANSWER, CONCLUSION, HEAD, TRY, line_labels
from nex_merge.families.qwen3_tiny.problems import KINDS, make_problems
from nex_merge.inspect import agreement
from nex_merge.inspect.annotated import PhaseAgreement, measure_agreement
from nex_merge.inspect.annotations import Labels, label_lines
from nex_merge.inspect.reading import Reading, read
from nex_merge.nex.calibration import analyse
from nex_merge.nex.novelty import detrend
from nex_merge.nex.phases import segment
from nex_merge.records import Prompt
from nex_merge.runs import files
from nex_merge.runs.remerge import Remerger
from nex_merge.runs.run import RunFolder
from nex_merge.setup.config import ActivationsConfig, PromptsConfig
from nex_merge.setup.families import open_family

HERE = Path(__file__).parent
DATA = HERE.parent / "study_data" / "phases"
SETS = {"choose": (4, 12), "report": (5, 20)}  # seed, problems of each kind
WIDTHS = (2, 4, 5, 8, 16)
OWN = (5, 0.95, 2)  # tokens a row, rho, min_run: what the family's searches take
SETTINGS = [(width, rho, 2) for width in WIDTHS for rho in (0.5, 0.8, 0.95, 0.99)]


def settings_of(width: int) -> ActivationsConfig:
    """Rows of `width` tokens that keep as many scores a token as the family's, 64 of 5 tokens."""
    return ActivationsConfig(slice_tokens=width, top_k=64 * width // 5)


def measure(run: Path) -> None:
    remerger = Remerger(RunFolder(run))
    for result in remerger.run.results():
        if result.state not in files.SCORED:
            continue
        for name, (seed, count) in SETS.items():
            folder = DATA / name / result.trial
            if (folder / "done").exists() or (name == "choose" and result.kind == "merge"):
                continue
            remerger.load(result)
            problems = [problem for kind in KINDS for problem in make_problems(kind, count, seed)]
            prompts = [Prompt(({"role": "user", "content": p.prompt},), p.prompt) for p in problems]
            engine, generation = remerger.engine, remerger.config.generation
            ids = engine.encode(prompts, PromptsConfig(file=""), generation.max_new_tokens)
            responses = engine.answer(ids, generation)
            caches, _ = capture_all(engine.resident.model, responses, [settings_of(width) for width in WIDTHS])
            files.write_responses(folder, responses)
            for width, cache in zip(WIDTHS, caches, strict=True):
                write_cache(folder / str(width), cache, {"slice_tokens": width})
            right = sum(p.is_right(r.text) for p, r in zip(problems, responses, strict=True))
            (folder / "done").write_text(f"{right / len(problems)}\n")
            print(name, result.trial, right / len(problems), flush=True)


def variants(name: str) -> list[str]:
    order = {"base": 0, "pairs": 1, "signs": 2}
    return sorted((p.parent.name for p in (DATA / name).glob("*/done")), key=lambda t: (order.get(t, 3), t))


class Bench:
    """The responses of one set of problems, read under any setting."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tokenizer = load_tokenizer(open_family("qwen3-tiny", ["pairs", "signs"]).folders["base"])
        self._labels: dict[tuple[str, int], Labels] = {}

    @lru_cache(maxsize=64)  # noqa: B019, there are two of these objects
    def pairs(self, trial: str, setting: tuple[int, float, int]) -> list[tuple[Reading, Labels]]:
        width, rho, min_run = setting
        folder = DATA / self.name / trial
        cache, responses = read_cache(folder / str(width)), files.read_responses(folder)
        found = []
        for i, analysis in enumerate(analyse(cache, rho, min_run)):
            reading = read(responses[i], cache, i, analysis, None, self.tokenizer)
            # Labels are of tokens, whatever the rows.
            if (trial, i) not in self._labels:
                self._labels[trial, i] = label_lines(reading, line_labels)
            found.append((reading, self._labels[trial, i]))
        return found

    def compared(self, chosen: list[str], setting: tuple[int, float, int]) -> PhaseAgreement:
        return measure_agreement([pair for trial in chosen for pair in self.pairs(trial, setting)], tolerance=1)

    def accuracy(self, trial: str) -> float:
        return float((DATA / self.name / trial / "done").read_text())


def line_kinds(reading: Reading) -> list[tuple[str, int, int]]:
    """(what a line is, its first token, the one after its last) of every line of a response."""
    found, first, text, thinking, fresh = [], 0, "", True, True
    n = len(reading.response.token_ids)
    for token in range(n):
        text += reading.response.text[reading.token_starts[token] : reading.token_starts[token + 1]]
        if "\n" not in text and token < n - 1:
            continue
        line = " ".join(text.split())
        if HEAD.fullmatch(line):
            kind, fresh = "head", True
        elif TRY.fullmatch(line):
            kind, fresh = ("first try" if fresh else "later try"), False
        elif CONCLUSION.fullmatch(line):
            kind = "hit at first" if fresh else "hit later"
        elif ANSWER.fullmatch(line):
            kind = "conclusion" if thinking else "answer"
        else:
            kind = "marker" if line in ("", "<think>", "</think>") else "malformed"
        thinking = thinking and line != "</think>"
        found.append((kind, first, token + 1))
        first, text = token + 1, ""
    return found


def shares_by_kind(bench: Bench, chosen: list[str], setting: tuple[int, float, int]) -> dict[str, tuple[int, float]]:
    """Line kind -> (tokens, share of them in explore rows)."""
    total, explore = Counter(), Counter()
    for trial in chosen:
        for reading, _ in bench.pairs(trial, setting):
            lengths = [row.end_token - row.first_token for row in reading.rows]
            phases = np.repeat([row.phase or "" for row in reading.rows], lengths)
            for kind, first, end in line_kinds(reading):
                total[kind] += int((phases[first:end] != "").sum())
                explore[kind] += int((phases[first:end] == "explore").sum())
    return {kind: (total[kind], explore[kind] / max(total[kind], 1)) for kind in total}


def word_phases(reading: Reading, setting: tuple[int, float, int]) -> np.ndarray:
    """What NEX's steps make of new words in place of new neurons: explore of each retained row, bool [K]."""
    seen: set[int] = set()
    slopes = []
    for number in reading.kept_rows:
        row = reading.rows[number]
        own = set(reading.response.token_ids[row.first_token : row.end_token])
        slopes.append(len(own - seen) / (row.end_token - row.first_token))
        seen |= own
    observations, zero_spread = detrend(np.array(slopes, np.float32))
    return segment(observations, zero_spread, *setting[1:]).explore


def against_words(bench: Bench, chosen: list[str], setting: tuple[int, float, int]) -> agreement.AgreementEstimate:
    """Kappa, row by row, of NEX's phases with those of new words."""
    found = []
    for trial in chosen:
        for reading, _ in bench.pairs(trial, setting):
            own = np.array([reading.rows[number].phase == "explore" for number in reading.kept_rows])
            if len(own):
                found.append(agreement.label_counts(own, word_phases(reading, setting)))
    return agreement.estimate(found, agreement.kappa)


def cells(found: PhaseAgreement) -> list[str]:
    def one(item) -> str:
        return "-" if item.value is None else f"{item.value:.3f} [{item.low:.3f}, {item.high:.3f}]"

    def chance(item) -> str:
        return "-" if item.value is None else f"{item.chance:.3f} [{item.chance_low:.3f}, {item.chance_high:.3f}]"

    rows, tokens, f1 = found.rows.kappa, found.tokens.kappa, found.f1
    return [one(rows), chance(rows), one(tokens), chance(tokens), f"{tokens.as_good:.4f}", one(f1), chance(f1)]


def record(name: str, who: str, setting: tuple[int, float, int], found: PhaseAgreement) -> dict[str, object]:
    row: dict[str, object] = {"prompts": name, "variant": who}
    row |= dict(zip(("slice_tokens", "rho", "min_run"), setting, strict=True))
    row |= {"responses": found.responses, "malformed_lines": found.malformed_lines, "rows_tied": found.rows_tied}
    row |= {"boundaries_found": found.boundaries_found, "boundaries_wanted": found.boundaries_wanted}
    for level in ("rows", "tokens"):
        own = getattr(found, level)
        row |= {f"{level}_compared": own.compared, f"{level}_agreed": own.agreed}
        row |= {f"{level}_explore_nex": own.explore_found, f"{level}_explore_text": own.explore_wanted}
    items = {"kappa_rows": found.rows.kappa, "kappa_tokens": found.tokens.kappa}
    for key, item in {**items, "precision": found.precision, "recall": found.recall, "f1": found.f1}.items():
        for part in ("value", "low", "high", "chance", "chance_low", "chance_high", "as_good"):
            row[f"{key}_{part}"] = getattr(item, part)
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}


def tables() -> None:
    choose, report = Bench("choose"), Bench("report")
    parents, everyone = ["base", "pairs", "signs"], variants("report")
    merges = [trial for trial in everyone if trial not in parents]
    out = []
    print("## The family's own settings, report set")
    for who, chosen in [*((t, [t]) for t in everyone), ("the merges", merges), ("all", everyone)]:
        found = report.compared(chosen, OWN)
        out.append(record("report", who, OWN, found))
        right = np.mean([report.accuracy(t) for t in chosen])
        share = f"{found.tokens.explore_found:.2f} / {found.tokens.explore_wanted:.2f}"
        print("|", " | ".join([who, f"{right:.2f}", share, *cells(found)]), "|", flush=True)
    print("\n## Settings, base and parents, choose set")
    grid = []
    for setting in SETTINGS:
        found = choose.compared(parents, setting)
        out.append(record("choose", "base and parents", setting, found))
        grid.append((found.tokens.kappa.value, setting))
        print("|", " | ".join([*map(str, setting), *cells(found)]), "|", flush=True)
    best = max(grid)[1]
    print(f"\n## The best there, {best}, on the report set; and the family's own")
    for setting in (OWN, best):
        for who, chosen in (("base and parents", parents), ("the merges", merges)):
            found = report.compared(chosen, setting)
            out.append(record("report", who, setting, found))
            print("|", " | ".join([str(setting), who, *cells(found)]), "|", flush=True)
    print("\n## Share of tokens in explore rows by what their line is, all variants, report set")
    for setting in (OWN, best):
        for kind, (tokens, share) in sorted(shares_by_kind(report, everyone, setting).items()):
            print(f"| {setting} | {kind} | {tokens} | {share:.3f} |", flush=True)
    print("\n## NEX's phases against those that new words give, kappa by rows, report set")
    for who, chosen in (("base and parents", parents), ("the merges", merges)):
        item = against_words(report, chosen, OWN)
        print(
            f"| {who} | {item.value:.3f} [{item.low:.3f}, {item.high:.3f}] | {item.chance:.3f} "
            f"[{item.chance_low:.3f}, {item.chance_high:.3f}] | {item.as_good:.4f} |"
        )
    with open(HERE / "phases.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(out[0]))
        writer.writeheader()
        writer.writerows(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("measure", "tables"))
    parser.add_argument("run", nargs="?", type=Path)
    args = parser.parse_args()
    if args.part == "measure":
        if args.run is None:
            parser.error("measure takes a run folder")
        measure(args.run)
    else:
        tables()


if __name__ == "__main__":
    main()
