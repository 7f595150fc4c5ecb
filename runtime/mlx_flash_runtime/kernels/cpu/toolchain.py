"""What a build needs: a compiler, nanobind, MLX's headers and library."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import sysconfig
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import mlx.core as mx

from ...stock.release import mlx_version

MODULE = "mlx_flash_cpu"
SOURCES = Path(__file__).parent

_FLAGS = (
    "-std=c++20",
    "-O3",
    "-DNDEBUG",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-DNB_DOMAIN=mlx",
)
# As its own build system compiles nanobind's library.
_NANOBIND_FLAGS = (
    "-std=c++20",
    "-O2",
    "-DNDEBUG",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-strict-aliasing",
)


class BuildError(Exception):
    """Why there is no kernel, in one line; `log` is the file that says more, where there is one."""

    def __init__(self, reason: str, log: Path | None = None) -> None:
        super().__init__(f"{reason} (see {log})" if log else reason)


@dataclass(frozen=True)
class Toolchain:
    """A compiler as a command, and the folder of nanobind's package."""

    compiler: tuple[str, ...]
    nanobind: Path

    @classmethod
    def find(cls) -> Toolchain:
        """That of this machine; raises BuildError, with the way out, where something is missing or
        does not fit."""
        # Found, not imported: only its sources are needed.
        spec = importlib.util.find_spec("nanobind")
        if spec is None or spec.origin is None:
            raise BuildError(f"nanobind is not installed: {_nanobind_advice()}")
        nanobind = Path(spec.origin).parent
        if _nanobind_abi(nanobind) != mlx_abi():
            raise BuildError(
                f"the installed nanobind does not fit MLX {mlx_version()}: {_nanobind_advice()}"
            )
        return cls(_compiler(), nanobind)

    @property
    def identity(self) -> str:
        """A short name of this very compiler and this nanobind."""
        path = Path(self.compiler[0]).resolve()
        stat = path.stat()
        header = (self.nanobind / "src" / "nb_internals.h").stat()
        return short_hash(
            *self.compiler, path, stat.st_size, stat.st_mtime_ns, self.nanobind, header.st_mtime_ns
        )

    def compilation(self, source: Path, target: Path) -> list[str]:
        """The command that compiles one source file."""
        of_nanobind = source.parent == self.nanobind / "src"
        flags = _NANOBIND_FLAGS if of_nanobind else (*_FLAGS, *machine_flags())
        includes = [
            mlx_folder() / "include",
            SOURCES,
            self.nanobind / "include",
            self.nanobind / "ext" / "robin_map" / "include",
            Path(sysconfig.get_path("include")),
        ]
        # As those of a system: what a compiler warns about in them is not ours.
        paths = []
        for folder in includes:
            paths += ["-isystem", str(folder)]
        return [*self.compiler, *flags, *paths, "-c", str(source), "-o", str(target)]

    def linking(self, objects: list[Path], target: Path) -> list[str]:
        """The command that makes the library. Its need for MLX's own is met by the process, so no
        folder is kept."""
        on_a_mac = platform.system() == "Darwin"
        how = ["-bundle", "-undefined", "dynamic_lookup"] if on_a_mac else ["-shared"]
        libraries = [f"-L{mlx_folder() / 'lib'}", "-lmlx", "-pthread"]
        return [*self.compiler, *how, *map(str, objects), "-o", str(target), *libraries]

    def sources(self) -> list[Path]:
        """The source files, those that take longest first."""
        own = sorted(SOURCES.glob("*.cpp"), key=lambda path: -path.stat().st_size)
        return [self.nanobind / "src" / "nb_combined.cpp", *own]


def _compiler() -> tuple[str, ...]:
    """The compiler as a command: the one in CXX, else the first of the usual ones."""
    named = _named()
    if named:
        path = shutil.which(named[0])
        if path is None:
            raise BuildError(f"CXX names {named[0]}, which is not there")
        return (path, *named[1:])
    for name in ("c++", "g++", "clang++"):
        path = shutil.which(name)
        if path is not None:
            return (path,)
    raise BuildError(f"no C++ compiler: {_COMPILER_ADVICE.get(platform.system(), 'install one')}")


def _named() -> list[str]:
    """The command in CXX; empty where there is none."""
    named = os.environ.get("CXX", "")
    try:
        return shlex.split(named)
    except ValueError as error:
        raise BuildError(f"CXX is no command: {named} ({error})") from None


# Releases of nanobind by the version of their internals.
_NANOBIND = {17: "2.10.*", 18: "2.11.*", 19: "2.12.*", 20: "2.13.*", 21: "2.15.*", 22: "3.*"}
_COMPILER_ADVICE = {
    "Linux": "install g++ or clang++ (Debian, Ubuntu: apt install g++)",
    "Darwin": "xcode-select --install",
}


def mlx_folder() -> Path:
    """The installed package, with `include` and `lib`."""
    return Path(mx.__file__).parent


@lru_cache(maxsize=1)
def key() -> str:
    """A short name of what a built library depends on, but for the compiler: MLX, Python, the
    sources, the CPU."""
    libraries = sorted((mlx_folder() / "lib").glob("libmlx.*"))
    sizes = [path.stat().st_size for path in libraries if path.suffix in (".so", ".dylib")]
    sources = sorted(SOURCES.glob("*.cpp")) + sorted(SOURCES.glob("*.h"))
    contents = [path.read_bytes() for path in sources]
    abi = sysconfig.get_config_var("SOABI")
    return short_hash(mlx_version(), *sizes, abi, *contents, _FLAGS, cpu())


def machine_flags() -> tuple[str, ...]:
    """Code for the very CPU of this machine: the library never leaves it."""
    return ("-mcpu=native",) if platform.machine() in ("arm64", "aarch64") else ("-march=native",)


def cpu() -> str:
    """The CPU's model and instructions, as the system tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {_sysctl(b'machdep.cpu.brand_string')}"
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(wanted)))


def _sysctl(name: bytes) -> str:
    """A fact about macOS by its name, or nothing."""
    text, size = ctypes.create_string_buffer(256), ctypes.c_size_t(256)
    found = ctypes.CDLL(None).sysctlbyname(name, text, ctypes.byref(size), None, 0) == 0
    return text.value.decode() if found else ""


def mlx_abi() -> int | None:
    """The version of nanobind's internals that the loaded MLX was built with: extensions of
    another one do not see its types."""
    api = ctypes.pythonapi
    api.PyInterpreterState_Get.restype = ctypes.c_void_p
    api.PyInterpreterState_GetDict.argtypes = [ctypes.c_void_p]
    # A borrowed reference, which py_object would give away.
    api.PyInterpreterState_GetDict.restype = ctypes.c_void_p
    shared = api.PyInterpreterState_GetDict(api.PyInterpreterState_Get())
    for name in map(str, ctypes.cast(shared, ctypes.py_object).value):
        if found := re.fullmatch(r"__nb_internals_(?:.*_)?v(\d+)_(?:.*_)?mlx__", name):
            return int(found[1])
    return None


def _nanobind_advice() -> str:
    abi = mlx_abi()
    release = _NANOBIND.get(abi) if abi is not None else None
    if release is None:
        return f"one with version {abi} of its internals would do"
    return f"pip install 'nanobind=={release}'"


def _nanobind_abi(folder: Path) -> int | None:
    for name in ("nb_internals.h", "nb_abi.h"):  # the second is where nanobind 2 says it
        header = folder / "src" / name
        text = header.read_text(encoding="utf-8", errors="replace") if header.exists() else ""
        if found := re.search(r"define NB_INTERNALS_VERSION (\d+)", text):
            return int(found[1])
    return None


def short_hash(*parts: object) -> str:
    """16 hexadecimal digits that stand for `parts`."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode(errors="surrogateescape")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:16]
