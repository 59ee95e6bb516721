"""The `prompts` of a configuration: where they come from, which of them are used, and how they are asked."""

from typing import Literal

from pydantic import Field, model_validator

from nex_merge.setup.paths import PathName
from nex_merge.setup.strict import Strict


class DatasetConfig(Strict):
    """Rows of a data set, by the `datasets` library."""

    path: PathName = Field(
        description="data set on the hub (owner/name), or a local file (Parquet, JSON, JSONL, CSV) or folder, such as "
        "save_to_disk writes"
    )
    name: str | None = Field(default=None, description="configuration of the data set, such as gsm8k's main")
    split: str | None = Field(default=None, description="split, such as train; null: the only one")
    column: str | None = Field(default=None, description="column that holds the prompt; null: as in prompts.column")


class SampleConfig(Strict):
    """Rows drawn at random."""

    n: int = Field(ge=1, description="number of prompts drawn, which keep their order; more include those of fewer")
    seed: int = Field(default=0, ge=0, description="seed of the draw, which is the same on every machine")


class PromptsConfig(Strict):
    """Where prompts come from (one of file, dataset and task), which of them are used, and how they are asked."""

    file: PathName | None = Field(
        default=None,
        description="prompt file: JSONL, JSON (an array of objects), text with one prompt per line, CSV or Parquet",
    )
    dataset: DatasetConfig | None = Field(default=None, description="data set with the prompts, instead of a file")
    task: PathName | None = Field(
        default=None,
        description="task of lm-evaluation-harness, or the YAML file of one, whose prompts are taken without examples, "
        "instead of a file; needs nex-merge[eval]",
    )
    split: str | None = Field(default=None, description="split of the task; null: that for training, else validation")
    column: str | None = Field(
        default=None,
        description="column (CSV, Parquet) or key (JSON, JSONL) that holds the prompt; null: 'prompt', 'messages', or "
        "those of ShareGPT, Alpaca, GSM8K and MMLU",
    )
    limit: int | None = Field(default=None, ge=1, description="use only the first N prompts; null: all")
    sample: SampleConfig | None = Field(default=None, description="use prompts drawn at random")
    system: str | None = Field(default=None, description="system prompt to prepend to every prompt")
    chat_template: bool = Field(
        default=True, description="apply the tokenizer's chat template; false: pass prompts as plain text"
    )
    thinking: bool = Field(default=True, description="value of enable_thinking in the chat template")
    options: Literal["shown", "appended"] = Field(
        default="shown",
        description="options of multiple-choice questions that the file has apart from the question (choices): shown: "
        "the prompt's text has them; appended: it doesn't, and they follow it as lines 'A. ...'",
    )

    @model_validator(mode="after")
    def _from_one_place(self) -> "PromptsConfig":
        given = [key for key in ("file", "dataset", "task") if getattr(self, key) is not None]
        if len(given) != 1:
            unset = f"; to leave one out: --set prompts.{given[0]}=null" if given else ""
            raise ValueError(f"one of file, dataset and task, got {' and '.join(given) or 'none'}{unset}")
        if self.column is not None and self.file is None:
            way = "a task has none" if self.task else "set prompts.dataset.column"
            raise ValueError(f"column with a file alone, got it with {given[0]}; {way}")
        if self.split is not None and self.task is None:
            way = "; set prompts.dataset.split" if self.dataset else ""
            raise ValueError(f"split with a task alone, got it with {given[0]}{way}")
        if self.limit is not None and self.sample is not None:
            raise ValueError("limit or sample, got both; to leave one out: --set prompts.limit=null")
        return self

    @property
    def place(self) -> tuple[str, str]:
        """(The setting that says where the prompts come from, what it says)."""
        if self.dataset is not None:
            details = ", ".join(filter(None, (self.dataset.name, self.dataset.split)))
            return "prompts.dataset", f"{self.dataset.path} ({details})" if details else self.dataset.path
        if self.task is not None:
            return "prompts.task", f"{self.task} ({self.split})" if self.split else self.task
        return "prompts.file", self.file or ""

    @property
    def described(self) -> str:
        """Where the prompts come from and which of them are used, for people."""
        if self.sample is not None:
            return f"{self.place[1]} ({self.sample.n} drawn with seed {self.sample.seed})"
        return self.place[1] + (f" (first {self.limit})" if self.limit else "")
