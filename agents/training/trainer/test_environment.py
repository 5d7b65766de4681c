"""Makes a small environment for tests of the trainer, without a GPU: about 1.7 GB in place of 5.6 GB.

It installs the versions of `requirements.lock` without the CUDA libraries that torch's wheel asks for. That wheel still links
to them, so this script compiles libraries in their place whose functions say that there is no device; torch then works on the
CPU alone. Training for production uses the full list, not this.

Usage: `python3 test_environment.py DIRECTORY [--python INTERPRETER]`. A second run with the same lock does nothing. It needs
gcc, nm and readelf, and prints the variables to set, one `NAME=value` a line; the interpreter is `ARTEL_TRAINER_PYTHON`.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
UV_VERSION = "0.13.9"
# What the tests need beside the trainer.
TEST_PACKAGES = ["pytest==9.2.0"]
LEFT_OUT = re.compile(r"^(nvidia-|cuda-|triton\b)")
CUDA_LIBRARY = re.compile(r"NEEDED.*\[(lib(?:cu|nv|nccl)[^\]]*)\]")
CUDA_SYMBOL = re.compile(r"(cu|nccl|nv|CU)")

# Functions whose answer torch or transformers reads on import; every other function returns 100, cudaErrorNoDevice.
BODIES = {
    "cudaGetErrorString": 'const char *cudaGetErrorString(int e) { return "no CUDA device"; }',
    "cudaGetErrorName": 'const char *cudaGetErrorName(int e) { return "cudaErrorNoDevice"; }',
    "cudaStreamIsCapturing": "int cudaStreamIsCapturing(void *s, int *p) { *p = 0; return 0; }",
    "cudaGetDeviceCount": "int cudaGetDeviceCount(int *n) { *n = 0; return 100; }",
    "cudaGetLastError": "int cudaGetLastError(void) { return 0; }",
    "cudaPeekAtLastError": "int cudaPeekAtLastError(void) { return 0; }",
}

# Prefixes of unversioned symbols, longest first, and the library that has them.
OWNERS = [
    ("nccl", "libnccl"),
    ("nvshmem", "libnvshmem"),
    ("nvrtc", "libnvrtc"),
    ("cudnn", "libcudnn"),
    ("cublasLt", "libcublasLt"),
    ("cublas", "libcublas"),
    ("cufft", "libcufft"),
    ("cusolver", "libcusolver"),
    ("cusparseLt", "libcusparseLt"),
    ("cusparse", "libcusparse"),
    ("cuFile", "libcufile"),
    ("cupti", "libcupti"),
]

Symbols = dict[str, set[str]]


def main() -> None:
    """Parses the arguments, makes the environment if its stamp differs, prints the variables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--python", default=sys.executable, help="interpreter, 3.11 to 3.13 (default: this one)")
    arguments = parser.parse_args()
    directory = arguments.directory.resolve()
    stamp = directory / "artel-trainer.stamp"
    wanted = stamp_text(arguments.python)
    if not stamp.exists() or stamp.read_text() != wanted:
        make(directory, arguments.python)
        stamp.write_text(wanted)
    print(f"ARTEL_TRAINER_PYTHON={directory / 'bin' / 'python'}")
    print(f"LD_LIBRARY_PATH={directory / 'no-cuda'}")
    print(f"PYTHONPATH={HERE}")


def stamp_text(python: str) -> str:
    """What the environment was made of: the lock, this script and the interpreter's version."""
    digest = hashlib.sha256((HERE / "requirements.lock").read_bytes() + Path(__file__).read_bytes()).hexdigest()
    return f"{digest} {output(python, '-c', 'import sys; print(sys.version)')}"


def make(directory: Path, python: str) -> None:
    """Makes the virtual environment, installs the packages and compiles the libraries in place of those of CUDA."""
    shutil.rmtree(directory / "no-cuda", ignore_errors=True)
    call(python, "-m", "venv", "--clear", str(directory))
    inside = str(directory / "bin" / "python")
    call(inside, "-m", "pip", "install", "--quiet", f"uv=={UV_VERSION}")
    uv = str(directory / "bin" / "uv")
    requirements = directory / "requirements.txt"
    kept = [line for line in locked_versions() if not LEFT_OUT.match(line)]
    requirements.write_text("\n".join(kept) + "\n")
    call(uv, "pip", "install", "--quiet", "--no-deps", "--python", inside, "-r", str(requirements))
    call(uv, "pip", "install", "--quiet", "--python", inside, *TEST_PACKAGES)
    packages = output(inside, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    make_libraries(Path(packages) / "torch", directory / "no-cuda")


def locked_versions() -> list[str]:
    """The packages of the lock with their versions and markers, without hashes."""
    lines = (HERE / "requirements.lock").read_text().splitlines()
    return [line.removesuffix("\\").strip() for line in lines if re.match(r"[a-z0-9]", line)]


def make_libraries(torch: Path, directory: Path) -> None:
    """Writes and compiles a library in place of each one of CUDA that torch links to."""
    directory.mkdir()
    objects = [*sorted((torch / "lib").glob("*.so*")), *sorted(torch.glob("_C*.so"))]
    needed = sorted({name for path in objects for name in CUDA_LIBRARY.findall(output("readelf", "-d", str(path)))})
    if not needed:
        sys.exit(f"{torch} links to no CUDA library: nothing has to stand in for one; install the whole list")
    for library, symbols in symbols_by_library(objects, needed).items():
        compile_library(directory, library, symbols)


def symbols_by_library(objects: list[Path], needed: list[str]) -> dict[str, Symbols]:
    """For each needed library, the symbols that torch wants of it by symbol version ("" for none)."""
    versioned: Symbols = collections.defaultdict(set)
    plain: set[str] = set()
    defined: set[str] = set()
    for path in objects:
        defined |= {symbol.split("@")[0] for symbol in dynamic_symbols(path, "--defined-only")}
        for symbol in dynamic_symbols(path, "--undefined-only"):
            name, _, version = symbol.replace("@@", "@").partition("@")
            if version:
                versioned[version].add(name)
            elif CUDA_SYMBOL.match(name):
                plain.add(name)
    found: dict[str, Symbols] = {library: collections.defaultdict(set) for library in needed}
    for version, names in versioned.items():
        owner = owner_of_version(version, needed)
        if owner:
            found[owner][version] |= names
    for name in plain - defined:
        found[owner_of_symbol(name, needed)][""].add(name)
    return found


def dynamic_symbols(path: Path, kind: str) -> list[str]:
    """Names in the dynamic symbol table of `path`, with their versions."""
    return [line.split()[-1] for line in output("nm", "-D", kind, str(path)).splitlines()]


def owner_of_version(version: str, needed: list[str]) -> str | None:
    """The library that a symbol version such as `libcudart.so.13` belongs to."""
    if version == "NVSHMEM":
        return next((library for library in needed if "nvshmem" in library), None)
    return next((library for library in needed if library.split(".so")[0] == version.split(".so")[0]), None)


def owner_of_symbol(name: str, needed: list[str]) -> str:
    """The library that an unversioned symbol is put into; any of them will do for the linker."""
    for prefix, stem in OWNERS:
        if name.startswith(prefix):
            for library in needed:
                if library.startswith((stem + ".", stem + "_")):
                    return library
    return needed[0]


def compile_library(directory: Path, library: str, symbols: Symbols) -> None:
    """Compiles one library with the symbol versions that torch asks for."""
    source, versions = directory / f"{library}.c", directory / f"{library}.map"
    names = sorted(set().union(*symbols.values()))
    mark = re.sub(r"\W", "_", library)
    bodies = [BODIES.get(name, f"int {name}(void) {{ return 100; }}") for name in names]
    source.write_text("\n".join([*bodies, f"int artel_no_cuda_{mark};"]) + "\n")
    script = [f"{version} {{ global: {'; '.join(sorted(names))}; }};" for version, names in symbols.items() if version]
    versions.write_text("\n".join(script) + "\n")
    flags = [f"-Wl,--version-script={versions}"] if script else []
    base = ["gcc", "-w", "-shared", "-fPIC", "-O0", "-fno-builtin", "-o", str(directory / library)]
    call(*base, f"-Wl,-soname,{library}", *flags, str(source))


def call(*command: str) -> None:
    """Runs a command and ends this script with a message if it fails."""
    if subprocess.run(command, env=environment(), stdout=sys.stderr).returncode != 0:
        sys.exit(f"failed: {' '.join(command)}")


def output(*command: str) -> str:
    """Standard output of a command."""
    return subprocess.run(command, env=environment(), check=True, capture_output=True, text=True).stdout.strip()


def environment() -> dict[str, str]:
    """This process's variables; uv must not download an interpreter."""
    return {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}


if __name__ == "__main__":
    main()
