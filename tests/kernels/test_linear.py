"""Are oneDNN's products torch's to rounding, gradients too, and who takes them?"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from diffinst.kernels import linear as module
from diffinst.kernels.linear import linear, product

pytestmark = pytest.mark.skipif(not module._available(), reason="torch has no oneDNN here")


@pytest.fixture(autouse=True)
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """oneDNN is taken, whatever this machine would choose; what came from it."""
    made: list[Tensor] = []

    def watched(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        made.append(product(x, weight, bias))
        return made[-1]

    monkeypatch.setattr(module, "_mkl_holds_back", lambda: True)
    monkeypatch.setattr(module, "product", watched)
    return made


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def inputs(*shape: int, out: int, bias: bool) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(*shape, generator=generator)]
    made.append(torch.randn(out, shape[-1], generator=generator))
    return [*made, torch.randn(out, generator=generator)] if bias else made


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("shape", "out"), [((7, 5), 3), ((7, 5), 40), ((2, 3, 16), 16), ((2, 2, 2, 4), 1), ((1, 1), 1)]
)
def test_values_and_gradients(
    shape: tuple[int, ...], out: int, bias: bool, taken: list[Tensor]
) -> None:
    given = inputs(*shape, out=out, bias=bias)
    with torch.no_grad():
        close(linear(given[0], given[1], given[2] if bias else None), F.linear(*given))
    mine, theirs = ([x.clone().requires_grad_() for x in given] for _ in range(2))
    made = linear(mine[0], mine[1], mine[2] if bias else None)
    wanted = F.linear(*theirs)
    close(made, wanted)
    slope = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))
    for slopes in (slope, slope[:1, ..., :1].expand(wanted.shape)):  # a sum's have no strides
        found = torch.autograd.grad(made, mine, slopes, retain_graph=True)
        expected = torch.autograd.grad(wanted, theirs, slopes, retain_graph=True)
        for a, b in zip(found, expected, strict=True):
            close(a, b)
    assert len(taken) == 1 + 1 + 2 * 2  # without gradients, with, and two products backward


@pytest.mark.parametrize("learning", [(0,), (1,), (2,)])
def test_only_what_learns_gets_a_gradient(learning: tuple[int, ...]) -> None:
    given = inputs(6, 4, out=3, bias=True)
    for i in learning:
        given[i].requires_grad_()
    linear(*given).sum().backward()
    assert [x.grad is not None for x in given] == [i in learning for i in range(3)]


def test_the_result_may_be_changed_in_place() -> None:
    """As the decoder's ReLUs do."""
    for shape in ((6, 4), (2, 3, 4)):
        given = [x.requires_grad_() for x in inputs(*shape, out=5, bias=True)]
        linear(*given).relu_().sum().backward()
        changed = given[0].grad
        given[0].grad = None
        F.linear(*given).relu().sum().backward()
        assert changed is not None and given[0].grad is not None
        close(changed, given[0].grad)


@pytest.mark.parametrize(
    "laid_out",
    [
        lambda x: x.t().contiguous().t(),
        lambda x: x[:1].expand(6, 4),
        lambda x: x[:, ::2].repeat(1, 2),
    ],
    ids=["transposed", "expanded", "strided"],
)
def test_inputs_need_not_be_contiguous(laid_out: Callable[[Tensor], Tensor]) -> None:
    x, weight, bias = inputs(6, 4, out=3, bias=True)
    close(linear(laid_out(x), weight, bias), F.linear(laid_out(x), weight, bias))
    close(linear(x[::2, 1:3], weight[:, 1:3], bias), F.linear(x[::2, 1:3], weight[:, 1:3], bias))


def test_bf16_where_the_processor_has_it(taken: list[Tensor]) -> None:
    x, weight, bias = (v.bfloat16() for v in inputs(6, 4, out=3, bias=True))
    found = linear(x, weight, bias)
    assert len(taken) == int(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    torch.testing.assert_close(found, F.linear(x, weight, bias), rtol=0.02, atol=0.05)


def test_what_is_left_to_torch(taken: list[Tensor]) -> None:
    x, weight, bias = inputs(6, 4, out=3, bias=True)
    doubles = linear(x.double(), weight.double(), bias.double())
    assert doubles.dtype == torch.float64
    assert linear(x[:0], weight, bias).shape == (0, 3)
    close(linear(x[0], weight, bias), F.linear(x[0], weight, bias))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
    assert taken == []


def test_elsewhere_torch_stays(monkeypatch: pytest.MonkeyPatch, taken: list[Tensor]) -> None:
    monkeypatch.setattr(module, "_mkl_holds_back", lambda: False)
    x, weight, bias = inputs(6, 4, out=3, bias=True)
    assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))
    assert taken == []


def test_torch_may_be_told_to_do_without_it(taken: list[Tensor]) -> None:
    with torch.backends.mkldnn.flags(enabled=False):
        linear(*inputs(6, 4, out=3, bias=True))
    assert taken == []


@pytest.mark.parametrize(
    ("maker", "capability", "mkl", "quicker"),
    [
        ("AuthenticAMD", "AVX512", True, True),
        ("HygonGenuine", "AVX512_VNNI", True, True),
        ("AuthenticAMD", "AVX2", True, False),  # MKL uses that
        ("AuthenticAMD", "AVX512", False, False),
        ("GenuineIntel", "AVX512", True, False),
        ("", "AVX512", True, False),
    ],
)
def test_whose_processors_it_is_for(
    monkeypatch: pytest.MonkeyPatch, maker: str, capability: str, mkl: bool, quicker: bool
) -> None:
    monkeypatch.undo()  # of the fixture
    monkeypatch.setattr(module, "processor_maker", lambda: maker)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
    module._mkl_holds_back.cache_clear()
    assert module._mkl_holds_back() == quicker
    module._mkl_holds_back.cache_clear()


def test_the_maker_of_a_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "cpuinfo")
    windows = "AMD64 Family 25 Model 33 Stepping 0, AuthenticAMD"
    monkeypatch.setattr("platform.processor", lambda: windows)
    assert module.processor_maker() == "AuthenticAMD"
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t: avx2\n")
    assert module.processor_maker() == "GenuineIntel"
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nCPU implementer\t: 0x41\n")  # ARM
    assert module.processor_maker() == ""


COMPILED = """
import torch
from torch import nn
from diffinst.kernels import linear as module
from diffinst.models.linear import Linear

module._mkl_holds_back = lambda: True
seen = []

def whole(graph, inputs):
    seen.extend(str(node.target) for node in graph.graph.nodes)
    return graph.forward

layer = Linear(8, 5)
x = torch.randn(3, 8)
with torch.no_grad():
    made = torch.compile(layer, backend=whole, fullgraph=True)(x)
torch.testing.assert_close(made, nn.functional.linear(x, layer.weight, layer.bias))
told = torch.compile(lambda x: torch.compiler.is_exporting(), backend="eager")(x)
assert told or any("diffinst" in name for name in seen), seen  # old versions mix them up
made = torch.compile(layer, backend="aot_eager", fullgraph=True)(x)
made.sum().backward()
torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(5, 8))
exported = torch.export.export(layer, (x,)).graph_module.code
assert "linear" in exported and "mkldnn" not in exported and "diffinst" not in exported, exported
"""


def test_compilers_take_it_as_an_operator_and_exports_have_torchs() -> None:
    """In another process, as the check of shapes puts a function of its own around each."""
    command = [sys.executable, "-c", COMPILED]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
