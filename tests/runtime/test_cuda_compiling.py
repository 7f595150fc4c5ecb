"""Compiling the CUDA kernel, which needs CUDA's compiler but no GPU, and putting it where MLX
looks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest

import cuda_compiler
from mlx_flash_runtime.kernels.cuda import few_queries, gradient
from mlx_flash_runtime.kernels.cuda.attention import source_of
from mlx_flash_runtime.kernels.cuda.attention_tiles import tiles_of
from mlx_flash_runtime.kernels.cuda.compiling import cache, nvrtc
from mlx_flash_runtime.kernels.cuda.compiling.source import Array, Source
from mlx_flash_runtime.kernels.quantization import Bits
from mlx_flash_runtime.problem import MaskKind, Problem

PROBLEM = Problem(1, 8, 2, 512, 512, 64, 64, dtype="bfloat16", mask="causal")
CAPABILITIES = [(8, 0), (8, 6), (9, 0), (10, 0), (12, 0)]


@pytest.fixture(scope="session")
def compiler() -> None:
    """CUDA's compiler in this process."""
    cuda_compiler.load()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where MLX looks for kernels; not there yet."""
    path = tmp_path / "mlx" / "ptx"
    monkeypatch.setenv("MLX_PTX_CACHE_DIR", str(path))
    return path


@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_kind_compiles_for_every_architecture(
    dtype: str, capability: tuple[int, int], compiler: None, folder: Path
) -> None:
    masks: list[tuple[MaskKind, bool]] = [
        ("none", False),
        ("causal", True),
        ("bool", False),
        ("additive", True),
    ]
    for (mask, sinks), dims in zip(
        masks, [(64, 64), (80, 72), (256, 256), (192, 128)], strict=True
    ):
        problem = replace(
            PROBLEM, dtype=dtype, head_dim=dims[0], value_head_dim=dims[1], mask=mask, sinks=sinks
        )
        assert tiles_of(problem, capability) is not None
        cache.put(source_of(problem, capability))
    assert len(list(folder.glob("*.ptx"))) == 2 * len(masks)


@pytest.mark.parametrize("length", [20, 5000])
@pytest.mark.parametrize("dims", [(64, 64), (72, 80), (128, 128), (192, 128), (256, 256)], ids=str)
def test_products_of_warpgroups_run_in_the_background(
    dims: tuple[int, int],
    length: int,
    compiler: None,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    for dtype, mask in (("bfloat16", "causal"), ("float16", "additive")):
        sizes = {
            "query_length": length,
            "key_length": length,
            "head_dim": dims[0],
            "value_head_dim": dims[1],
        }
        cache.put(source_of(replace(PROBLEM, dtype=dtype, mask=mask, **sizes), (9, 0)))
    # Where registers do not suffice, or the compiler cannot tell that they are not touched, each
    # is waited for.
    assert caplog.text.count("CUDA's compiler says") == 2
    assert "serialized" not in caplog.text


@pytest.mark.parametrize("dims", [(64, 64), (128, 128), (256, 256)], ids=str)
def test_gradients_compile_and_their_products_run_in_the_background(
    dims: tuple[int, int], compiler: None, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    of_dims = {"head_dim": dims[0], "value_head_dim": dims[1], "training": True}
    sources = gradient.sources_of(replace(PROBLEM, **of_dims), (9, 0))
    for source in sources:
        cache.put(source)
    assert caplog.text.count("CUDA's compiler says") == len(sources)
    assert "serialized" not in caplog.text
    for source in gradient.sources_of(replace(PROBLEM, dtype="float32", **of_dims), (8, 6)):
        cache.put(source)


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)], ids=str)
def test_kernels_for_few_queries_compile(
    capability: tuple[int, int], compiler: None, folder: Path
) -> None:
    decode = replace(PROBLEM, query_length=1, key_length=4096, mask="none")
    drafts = replace(decode, query_length=5, head_dim=256, value_head_dim=256, mask="causal")
    for problem, bits in ((decode, None), (drafts, Bits(4, 64))):
        cache.put(few_queries.source_of(problem, capability, bits))
    # Sizes that are not compiled in.
    longer = replace(decode, batch=2, key_length=4097, query_heads=16)
    assert few_queries.source_of(longer, capability) is few_queries.source_of(decode, capability)


def test_mlx_finds_the_function_in_what_is_put_there(compiler: None, folder: Path) -> None:
    source = source_of(PROBLEM, (9, 0))
    cache.put(source)
    for name in cache.modules(source):
        function, lowered = (folder / f"{name}.txt").read_text().rstrip("\n").split("\t")
        assert function == f"mlx::core::cu::custom_kernel_{source.name}"
        cubin = (folder / f"{name}.ptx").read_bytes()
        assert cubin.startswith(b"\x7fELF")
        assert lowered.encode() in cubin
    assert sorted(path.suffix for path in folder.iterdir()) == [
        ".ptx",
        ".ptx",
        ".txt",
        ".txt",
    ]  # nothing half-written


def test_it_is_compiled_once(compiler: None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(PROBLEM, (9, 0))
    cache.put(source)
    with monkeypatch.context() as patched:
        patched.setattr(nvrtc, "compile", None)
        cache.put(source_of(PROBLEM, (9, 0)))
    first, second = cache.modules(source)
    (folder / f"{first}.ptx").unlink()
    cache.put(source)
    assert (folder / f"{first}.ptx").read_bytes() == (folder / f"{second}.ptx").read_bytes()


def test_other_content_has_another_name() -> None:
    sources = [source_of(PROBLEM, capability) for capability in CAPABILITIES]
    sources += [
        source_of(replace(PROBLEM, **change), (8, 0))
        for change in (
            {"dtype": "float16"},
            {"head_dim": 72},
            {"mask": "none"},
            {"sinks": True},
            {"query_length": 20},
        )
    ]
    assert len({source.name for source in sources}) == len(sources)
    # Sizes that are not compiled in.
    same = replace(PROBLEM, batch=2, query_length=900, key_length=1000, query_heads=2)
    assert source_of(same, (8, 0)).name == sources[0].name


def test_names_are_hashed_as_mlx_s_library_does() -> None:
    # By std::hash<std::string> of GCC's library.
    known = {
        b"": 0x553E93901E462A6E,
        b"a": 0x454DDEE488C1ED6B,
        b"12345678": 0x8C5B90A33A04DCA5,
        b"hello world, this is": 0xB824DCD96E92BC8E,
        bytes(i * 7 % 256 for i in range(3001)): 0xC933AF189691F908,
    }
    assert {text: cache.string_hash(text) for text in known} == known


def test_what_does_not_compile_is_one_line(compiler: None, folder: Path) -> None:
    broken = Source(
        "broken", (9, 0), (Array("x", "float"),), (Array("out", "float"),), "  out[0] = nothing;"
    )
    with pytest.raises(
        nvrtc.CompileError, match=r'^flash\.cu\(\d+\): error: identifier "nothing" is undefined$'
    ):
        cache.put(broken)
    assert not folder.exists()


@pytest.fixture
def why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    cache.why_not.cache_clear()
    yield
    cache.why_not.cache_clear()


@pytest.mark.usefixtures("why_not", "compiler")
def test_why_there_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.parent.parent.mkdir(exist_ok=True)
    folder.parent.write_text("a file in its way")
    assert cache.why_not((9, 0)) == (
        f"MLX's folder for kernels cannot be written (Not a directory: {folder}); "
        "MLX_PTX_CACHE_DIR names one"
    )
    cache.why_not.cache_clear()
    monkeypatch.setenv("MLX_FLASH_BUILD", "0")
    assert cache.why_not((9, 0)) == "MLX_FLASH_BUILD=0 forbids to build it"


@pytest.mark.usefixtures("why_not", "compiler")
@pytest.mark.parametrize(
    ("taken", "answer"), [(True, ""), (False, "this release of MLX does not look for it on disk")]
)
def test_the_first_kernel_is_asked_once(
    taken: bool, answer: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Source] = []
    # Which needs a GPU.
    monkeypatch.setattr(cache, "_is_taken", lambda probe: asked.append(probe) or taken)
    for _ in range(2):
        assert cache.why_not((9, 0)) == answer
        cache.why_not.cache_clear()
    assert len(asked) == 1


@pytest.mark.usefixtures("why_not")
@pytest.mark.skipif(mx.cuda.is_available(), reason="needs an MLX without CUDA")
def test_without_cuda_there_is_no_compiler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "_LIBRARIES", ("libnvrtc.so.0",))
    nvrtc._library.cache_clear()
    assert cache.why_not((9, 0)) == "MLX has not loaded CUDA's compiler (libnvrtc)"
    nvrtc._library.cache_clear()
