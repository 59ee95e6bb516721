"""The JSON schemas of configurations, families and search spaces, by which editors complete and check them.

They say what keys there are and of which type; what depends on the members or on mergekit is left to
`nex-merge validate`.
"""

import json
from typing import Any

from pydantic import BaseModel

from nex_merge.setup.config import RunConfig
from nex_merge.setup.families import FamilyConfig
from nex_merge.setup.search_space import SpaceConfig

# Beside the configurations that `nex-merge init` writes: named by them relatively, so that both can be moved together.
BESIDE = "nex-merge.schema.json"
_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_WHAT = {RunConfig: "configuration", FamilyConfig: "family", SpaceConfig: "search space"}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of RunConfig, FamilyConfig or SpaceConfig."""
    schema = model.model_json_schema()
    if model is RunConfig:
        for key, inner in (("family", FamilyConfig), ("search_space", SpaceConfig)):
            own = inner.model_json_schema(ref_template="#/$defs/{model}")
            schema["$defs"] |= own.pop("$defs", {}) | {inner.__name__: own}
            members = schema["properties"][key]["anyOf"]
            members[[member.get("type") for member in members].index("object")] = {"$ref": f"#/$defs/{inner.__name__}"}
    return {"$schema": _DRAFT, **schema, "title": f"nex-merge {_WHAT[model]}"}  # type: ignore[index]


def schema_text(model: type[BaseModel]) -> str:
    """A schema as its file has it."""
    return json.dumps(schema_of(model), indent=1, ensure_ascii=False) + "\n"
