"""The JSON of all variants measured so far as two CSV: variants, and what they conclude from every prompt."""

import json
from typing import Any

from ranking.families import write_csv

from nex_merge import conclude
from pretrained.measure import DATA


def tables() -> None:
    """Write pretrained_variants.csv and pretrained_conclusions.csv."""
    # Digits sort before letters: members come last, in the order of their names.
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(DATA.glob("*.json"))]
    variants, conclusions = [], []
    for about in found:
        prompts: list[dict[str, Any]] = about.pop("prompts")
        about["parameters"] = json.dumps(about["parameters"])
        about["seconds"] = round(about["seconds"])
        variants.append(about)
        for number, item in enumerate(prompts):
            # As consensus does: a response that was cut off concludes nothing.
            concluded = None if item["truncated"] else conclude(item["response"], item["match"])
            conclusions.append({
                "variant": about["variant"], "prompt": number, "kind": item["kind"], "match": item["match"],
                "conclusion": concluded, "gold": conclude(item["gold"], item["match"]), "tokens": item["tokens"],
                "truncated": item["truncated"],
            })  # fmt: skip
    write_csv("pretrained_variants.csv", variants)
    write_csv("pretrained_conclusions.csv", conclusions)
    print(f"{len(variants)} variants")
