"""SHA-256 of a checkpoint: the identity of a variant, whether it is merged, exported or read back."""

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from nex_merge import interrupts
from nex_merge.threads import cores, use_one_core


def tensor_digest(name: str, tensor: torch.Tensor) -> str:
    """sha256 over a tensor's name, dtype, shape and bytes."""
    content = hashlib.sha256(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    content.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return content.hexdigest()


def digest(tensors: Mapping[str, str]) -> str:
    """sha256 of a checkpoint from the digests of its tensors by name; independent of their order."""
    return hashlib.sha256("\n".join(tensors[name] for name in sorted(tensors)).encode()).hexdigest()


def digest_later(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> Callable[[], str]:
    """Begin to hash tensors of an accelerator as they are in `dtype`, on all cores, while it does something else.

    What is returned waits for the digest, see `digest`. Until then the tensors must stay as they are.
    """
    device = next(iter(tensors.values())).device
    written = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None

    def hashed(name: str) -> str:
        interrupts.check()
        return tensor_digest(name, _on_the_cpu(tensors[name], dtype, written))

    pool = ThreadPoolExecutor(cores(), "hashing", use_one_core)
    found = {name: pool.submit(hashed, name) for name in tensors}
    pool.shutdown(wait=False)
    return lambda: digest({name: future.result() for name, future in found.items()})


def _on_the_cpu(tensor: torch.Tensor, dtype: torch.dtype, written: Any) -> torch.Tensor:
    """A copy on the CPU. A GPU's goes into pinned memory, by a stream of its own, so that no other has to wait."""
    if written is None:
        return tensor.detach().to(dtype).cpu()
    stream = torch.cuda.Stream(tensor.device)
    with torch.inference_mode(), torch.cuda.stream(stream):
        stream.wait_event(written)
        copy = torch.empty(tensor.shape, dtype=dtype, pin_memory=True)
        copy.copy_(tensor.detach().to(dtype), non_blocking=True)
    stream.synchronize()
    return copy
