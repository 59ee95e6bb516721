"""A device without hardware: tensors of the CPU's that say they are on `pretend`, and refuse others as a GPU does.

It computes what the CPU computes. What it tells is whether tensors that meet are on one device, how often the CPU waits
for a result (`waits`) and, if `strict` asks for it, where a GPU would divide by a number of the CPU's, which it does by
multiplying with its reciprocal, in other bits.
"""

from types import SimpleNamespace

import torch
from torch.utils import backend_registration
from torch.utils._pytree import tree_flatten, tree_map

COPIES = ("aten::copy_", "aten::_to_copy", "aten::_copy_from")
waits: list[str] = []
strict = SimpleNamespace(divisions=False)  # whether bits matter
memory = SimpleNamespace(free=1 << 30, total=1 << 30)


class Pretend(torch.Tensor):
    raw: torch.Tensor  # what it holds

    @staticmethod
    def __new__(cls, raw: torch.Tensor):
        made = torch.Tensor._make_wrapper_subclass(
            cls, raw.size(), strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype,
            device=torch.device("pretend", 0),
        )  # fmt: skip
        made.raw = raw
        return made

    def tolist(self):
        waits.append("tolist")
        return self.raw.tolist()

    def __repr__(self):
        return f"pretend {self.raw}"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        name, kwargs = func._schema.name, dict(kwargs or {})
        tensors = [item for item in tree_flatten((args, kwargs))[0] if isinstance(item, torch.Tensor)]
        if name not in COPIES:
            _check(name, args, tensors)
        if name in ("aten::_local_scalar_dense", "aten::nonzero"):
            waits.append(name)
        to = kwargs.get("device")
        if to is not None:
            kwargs["device"] = "cpu"
        ours = {id(one.raw): one for one in tensors if isinstance(one, Pretend)}
        found = func(*tree_map(_raw, args), **tree_map(_raw, kwargs))
        if name == "aten::copy_":
            return args[0]
        if to is not None and torch.device(to).type == "cpu":
            waits.append(name)
            return found
        return tree_map(lambda x: ours.get(id(x), Pretend(x)) if isinstance(x, torch.Tensor) else x, found)


def _check(name, args, tensors):
    other = [one for one in tensors if not isinstance(one, Pretend)]
    if len(other) < len(tensors) and any(one.dim() for one in other):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device")
    if strict.divisions and name.startswith("aten::div") and not isinstance(args[1], Pretend):
        raise RuntimeError(f"{name}: a GPU multiplies by the reciprocal of a number of the CPU's")


def _raw(item):
    return item.raw if isinstance(item, Pretend) else item


class _Hook(backend_registration._DummyPrivateUse1Hook):
    def is_available(self):
        return False  # to whoever asks what this machine has


class _Module(backend_registration._DummyBackendModule):
    def is_available(self):
        return False

    def mem_get_info(self, device):
        return memory.free, memory.total


def device() -> torch.device:
    """The device, made at the first call; a process keeps it."""
    if torch._C._get_privateuse1_backend_name() != "pretend":
        backend_registration._setup_privateuseone_for_python_backend("pretend", _Module(), _Hook())
        torch.library.impl("aten::empty.memory_format", "privateuseone")(_empty)
        torch.library.impl("aten::empty_strided", "privateuseone")(_empty_strided)
        torch.library.impl("aten::_copy_from", "privateuseone")(_copy_from)
        for name in ("arange", "arange.start", "arange.start_step"):  # others make them empty and change their size
            torch.library.impl(f"aten::{name}", "privateuseone")(_arange)
    return torch.device("pretend", 0)


def _empty(size, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
    return Pretend(torch.empty(size, dtype=dtype))


def _empty_strided(size, stride, dtype=None, layout=None, device=None, pin_memory=None):
    return Pretend(torch.empty_strided(size, stride, dtype=dtype))


def _arange(*args, dtype=None, layout=None, device=None, pin_memory=None):
    return Pretend(torch.arange(*args, dtype=dtype))


def _copy_from(source, target, non_blocking=False):
    _raw(target).copy_(_raw(source))
    return target
