"""The engine that `runtime.engine` names."""

from nex_merge.engines.contracts import Engine
from nex_merge.engines.transformers import FamilyEngine
from nex_merge.engines.vllm_engine import VllmEngine
from nex_merge.setup.config import RuntimeConfig
from nex_merge.setup.families import Family


def engine_for(family: Family, runtime: RuntimeConfig) -> Engine:
    """A family's engine. Raises InputError for whatever is wrong with the family or the device, or if vLLM is missing.

    A function of values that can be pickled, as workers in other processes make their own.
    """
    return (VllmEngine if runtime.engine == "vllm" else FamilyEngine)(family, runtime)
