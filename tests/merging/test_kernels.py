"""The kernels against mergekit's methods, on tensors of several blocks with many equal magnitudes."""

import pytest
import torch
from mergekit import merge_methods
from mergekit.merge_methods.base import PerInputValues, TensorEntry, TensorGroup

from nex_merge.merging import kernels, ranks
from nex_merge.merging.alike import alike
from nex_merge.merging.slerp import Slerp
from nex_merge.merging.workspace import CPU, Copies, Workspace
from tests import pretend

# More than two blocks, and not a multiple of one.
SHAPE = (700, 401)
DENSITIES = ((0.37, 0.8), (1.0, 0.05), (0.5, 0.5))


def made(shape=SHAPE, dtype=torch.bfloat16, experts=2):
    """A base and experts; in half precision their deltas are coarse, so that hundreds have equal magnitudes."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(shape, generator=generator).mul(0.02)
    base[torch.rand(shape, generator=generator) < 0.02] = 0.0
    scales = [0.0, *(0.002 * (i + 1) for i in range(experts))]
    return [(base + torch.randn(shape, generator=generator) * scale).to(dtype) for scale in scales]


@pytest.fixture(scope="module")
def tensors():
    return made()


def of_mergekit(method, tensors, base, shared, by_model, seed):
    """The method, called as mergekit's graph calls it, with float32 inputs."""
    entries = tuple(TensorEntry(id=i, tensor=t.float(), is_base=base and i == 0) for i, t in enumerate(tensors))
    inputs = [entry.id for entry in entries if not entry.is_base]
    spec = merge_methods.get(method).spec
    values = {name: PerInputValues(list(zip(inputs, of, strict=True))) for name, of in by_model.items()}
    defaults = {p.name: p.default for p in spec.parameters if p.name not in values}
    torch.manual_seed(seed)
    (found,) = merge_methods.get(method)._execute_resolved(
        (TensorGroup(entries=entries),), [defaults | shared | values]
    )
    return found


def of_kernels(method, tensors, shared, by_model, seed, store=None, device=CPU):
    known = merge_methods.get(method)
    settings = {p.name: p.default for p in known.spec.parameters} | shared
    kind, consensus = known.sparsification_method, known.consensus_method
    family = kernels.TaskArithmetic(
        kind and kind.value, consensus and consensus.value, settings["normalize"], settings["rescale"],
        settings["lambda"],
    )  # fmt: skip
    experts = [
        kernels.Expert(f"expert{i}", tensor, **{name: of[i] for name, of in by_model.items()})
        for i, tensor in enumerate(tensors[1:])
    ]
    assert all(kernels.is_supported(expert, family) for expert in experts)
    out = torch.empty(tensors[0].shape, device=device)
    work = Workspace(seed, Copies(device))
    kernels.task_arithmetic(tensors[0], experts, family, store or ranks.RankCache(None), work)(out)
    return out.cpu()


def settings_of(method, densities):
    names = [p.name for p in merge_methods.get(method).spec.parameters]
    by_model = {"weight": (0.7, -0.45), "density": densities}
    if "epsilon" in names:
        # density +- epsilon must be in (0, 1) wherever the method sparsifies at all
        by_model["epsilon"] = tuple(min(0.04, d / 2) for d in densities)
    if "gamma" in names:
        by_model["gamma"] = (0.01, 0.3)
    return by_model


ARITHMETIC = [
    name for name in ("task_arithmetic", "ties", "dare_ties", "dare_linear", "breadcrumbs", "breadcrumbs_ties", "della",
                      "della_linear")
]  # fmt: skip


@pytest.fixture(params=["cpu", "pretend", "cuda"])
def device(request, monkeypatch):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    monkeypatch.setattr(pretend.strict, "divisions", True)
    return pretend.device() if request.param == "pretend" else torch.device(request.param)


SHARED = [{}, {"lambda": 0.7}, {"normalize": True, "rescale": True}, {"normalize": False, "rescale": False}]


@pytest.mark.parametrize("densities", DENSITIES)
@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("method", ARITHMETIC)
def test_the_bits_are_mergekits(tensors, method, shared, densities):
    by_model = settings_of(method, densities)
    wanted = of_mergekit(method, tensors, True, shared, by_model, seed=3)
    assert torch.equal(of_kernels(method, tensors, shared, by_model, seed=3), wanted)


@pytest.mark.parametrize("device", ["pretend", "cuda"], indirect=True)
@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize("method", ARITHMETIC)
def test_the_bits_are_mergekits_on_other_devices(tensors, method, shared, device):
    by_model = settings_of(method, DENSITIES[0])
    wanted = of_mergekit(method, tensors, True, shared, by_model, seed=3)
    assert torch.equal(of_kernels(method, tensors, shared, by_model, seed=3, device=device), wanted)


def test_every_method_of_the_arithmetic_family_is_among_them():
    from mergekit.merge_methods import registered_methods
    from mergekit.merge_methods.generalized_task_arithmetic import GeneralizedTaskArithmeticMerge

    family = {m.spec.name for m in registered_methods() if isinstance(m, GeneralizedTaskArithmeticMerge)}
    assert family == set(ARITHMETIC)


@pytest.mark.parametrize(("shape", "experts"), [((1500,), 2), ((3, 5), 1), ((40, 90), 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ARITHMETIC)
def test_any_float_dtype_and_shape_and_number_of_experts(method, dtype, shape, experts):
    """Inputs are not modified either: a float32 checkpoint is mapped, not copied."""
    tensors = made(shape, dtype, experts)
    before = [tensor.clone() for tensor in tensors]
    densities = (0.45, 0.03) if experts > 1 else (0.3, 0.3)
    by_model = {name: (of * 3)[:experts] for name, of in settings_of(method, densities).items()}
    wanted = of_mergekit(method, tensors, True, {}, by_model, seed=5)
    assert torch.equal(of_kernels(method, tensors, {}, by_model, seed=5), wanted)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


def test_edge_cases_are_left_to_mergekit():
    della = kernels.TaskArithmetic("della_magprune", None, False, True, 1.0)
    ties = kernels.TaskArithmetic("magnitude", "sum", True, False, 1.0)

    def expert(shape, density, epsilon=0.1):
        return kernels.Expert("x", torch.zeros(shape), 1.0, density, epsilon=epsilon)

    assert kernels.is_supported(expert((4, 8), 0.5), della)
    for case in (expert((4, 3, 2), 0.5), expert((4, 1), 0.5), expert((4, 8), 0.05), expert((4, 8), 0.95)):
        assert not kernels.is_supported(case, della)
    assert not kernels.is_supported(expert((4, 8), 0.0), ties)
    assert kernels.is_supported(expert((4, 3, 2), 0.5), ties)


@pytest.mark.parametrize("method", ["ties", "breadcrumbs", "della"])
def test_cached_ranks_serve_other_densities_without_sorting(tensors, tmp_path, monkeypatch, method):
    store = ranks.RankCache(tmp_path)
    of_kernels(method, tensors, {}, settings_of(method, (0.4, 0.6)), 1, store)
    assert len(list(tmp_path.iterdir())) == 2, "one file per expert, none partly written"
    sort, argsort = torch.sort, torch.argsort
    for name in ("sort", "argsort"):
        monkeypatch.setattr(torch, name, lambda *args, **kwargs: pytest.fail("sorted again"))
    by_model = settings_of(method, (0.3, 0.55))
    found = of_kernels(method, tensors, {}, by_model, 2, ranks.RankCache(tmp_path))
    monkeypatch.setattr(torch, "sort", sort)
    monkeypatch.setattr(torch, "argsort", argsort)
    assert torch.equal(found, of_mergekit(method, tensors, True, {}, by_model, 2))


def test_a_full_disk_only_costs_time(tensors, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(ranks, "DISK_RESERVE", 1 << 60)
    by_model = settings_of("ties", (0.4, 0.6))
    found = of_kernels("ties", tensors, {}, by_model, 1, ranks.RankCache(tmp_path))
    assert torch.equal(found, of_mergekit("ties", tensors, True, {}, by_model, 1))
    assert not list(tmp_path.iterdir()) and len(caplog.records) == 1, "one warning"


@pytest.mark.parametrize("weights", [(0.2, 0.5, 0.9), (1.0, -0.5, 0.25)])
@pytest.mark.parametrize("normalize", [True, False])
def test_linear(tensors, weights, normalize, device):
    wanted = of_mergekit("linear", tensors, False, {"normalize": normalize}, {"weight": weights}, 0)
    out = torch.empty(SHAPE, device=device)
    kernels.linear(tensors, weights, normalize, Workspace(0, Copies(device)), out)
    assert torch.equal(out.cpu(), wanted)


def test_a_fused_multiply_add_is_rounded_once():
    """Against `addcmul`, where products cancel, vanish beside the sum, are subnormal, and lie near a middle."""
    generator = torch.Generator().manual_seed(1)
    size = 1 << 20
    scales = torch.randint(-140, 100, (3, size), generator=generator).float().exp2_()
    total, factor, other = torch.randn(3, size, generator=generator) * scales
    factor[: size // 4] = factor[: size // 4].clamp(-1e3, 1e3)
    near = factor[: size // 4] * other[: size // 4]
    total[: size // 8] = -near[: size // 8]  # all but the rounding error cancels
    total[size // 8 : size // 4] = near[size // 8 :] * (1 << 23)
    wanted = total.addcmul(factor, other)
    found = kernels.fused_multiply_add(total, factor, other)
    finite = wanted.isfinite()
    assert finite.sum() > size / 2 and torch.equal(found[finite], wanted[finite])
    assert (wanted != total + factor * other)[finite].sum() > 1000, "rounding once is something else than twice"


def test_slerp(tensors, device):
    slerp, out, work = Slerp(), torch.empty(SHAPE, device=device), Workspace(0, Copies(device))
    far = tensors[1].flip(0)  # base and expert are nearly parallel, which is a branch of its own
    for other in (tensors[2], far):
        name = str(id(other))
        for t in (0.0, 0.3, 0.8, 1.0):
            wanted = of_mergekit("slerp", [tensors[0], other], True, {"t": t}, {}, 0)
            slerp(name, t, tensors[0], other, work, out)
            assert torch.equal(out.cpu(), wanted), t


def test_a_device_is_asked_whether_it_has_the_cpus_bits(monkeypatch, caplog):
    device, kernels = pretend.device(), {"task arithmetic", "linear", "slerp"}
    alike.cache_clear()
    assert alike(device) == kernels and not caplog.records
    alike.cache_clear()
    monkeypatch.setattr("nex_merge.merging.kernels.fused_multiply_add", lambda total, a, b: total + a * b)
    assert alike(device) == kernels - {"linear"}
    assert "pretend:0: linear is merged on the CPU instead" in caplog.text and "differ from the CPU's" in caplog.text
    alike.cache_clear()


def test_copies_stay_while_there_is_room(tensors, monkeypatch):
    device = pretend.device()
    copies = Copies(device)
    assert copies.of("a", lambda: tensors[0]) is copies.of("a", lambda: pytest.fail("copied again"))
    monkeypatch.setattr(pretend.memory, "free", pretend.memory.total // 5)
    made = []
    for _ in range(2):
        copies.of("b", lambda: made.append(1) or tensors[1])
    assert len(made) == 2 and copies.of("a", lambda: pytest.fail("copied again")).device == device
    assert copies.let_go() and not copies.let_go()
    assert Copies().of("a", lambda: tensors[0]) is tensors[0]
