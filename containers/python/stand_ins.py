"""Make stand-ins for the CUDA libraries that PyTorch is linked to, where they are not installed.

``stand_ins.py TORCH``, PyTorch's folder. Its wheel for Linux on x86-64 is built with CUDA, and the loader
wants each library that it is linked to, though nothing but code on a GPU calls them. A stand-in has its
name and the functions, with their symbol versions, that PyTorch would call; each says that there is no
CUDA here, and aborts. PyTorch itself is left as it came, so its numbers are the same with and without them.
Where there is a GPU, it is hidden from every Python of this environment: stand-ins compute nothing.
"""

import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

NEEDED = re.compile(r"\(NEEDED\).*\[(.+)\]")
VERSIONS_OF = re.compile(r"File: (\S+)")
VERSION = re.compile(r"Name: (\S+)")
# number, value, size, type, binding, visibility, section, name
SYMBOL = re.compile(r"\s*\d+: [0-9a-f]+ +\S+ (\S+) +(\S+) +\S+ +(\S+) (\S+)")
SOURCE = """\
#include <stdio.h>
#include <stdlib.h>
static void absent(const char *name) {
    fprintf(stderr, "%s: this Cordon has no CUDA. "
                    "For a GPU: TORCH=cuda make setup, or the image tagged -cuda.\\n", name);
    abort();
}
"""
# Python reads it when it starts.
HIDES_GPUS = 'import os; os.environ["CUDA_VISIBLE_DEVICES"] = ""\n'


def readelf(option: str, path: Path) -> str:
    command = ["readelf", "--wide", option, str(path)]
    return subprocess.run(command, check=True, text=True, capture_output=True).stdout


def loaded(roots: list[Path], places: dict[str, Path]) -> tuple[list[Path], set[str]]:
    """The files that are loaded with ``roots``, of those in ``places``, and the names of what is missing."""
    found, absent = [*roots], set()
    for path in found:
        for name in NEEDED.findall(readelf("--dynamic", path)):
            if name not in places:
                absent.add(name)
            elif places[name] not in found:
                found.append(places[name])
    return found, absent


def symbols(path: Path) -> Iterator[tuple[str, str, bool, bool]]:
    """Name, version or "", whether it is a function, and whether it is missing, of each dynamic symbol."""
    for kind, binding, section, name in SYMBOL.findall(readelf("--dyn-syms", path)):
        name, _, version = name.replace("@@", "@").partition("@")
        yield name, version, kind != "OBJECT", (section, binding) == ("UND", "GLOBAL")


def provider(path: Path) -> dict[str, str]:
    """The library from which a file wants each symbol version."""
    found: dict[str, str] = {}
    library = ""
    for line in readelf("--version-info", path).splitlines():
        if match := VERSIONS_OF.search(line):
            library = match[1]
        elif library and (match := VERSION.search(line)):
            found[match[1]] = library
    return found


def owner(name: str, libraries: set[str]) -> str | None:
    """The library that a function without a version belongs to, by its prefix: ncclSend is libnccl.so.2's."""
    fitting = [library for library in libraries if name.lower().startswith(prefix(library))]
    return max(fitting, key=lambda library: len(prefix(library)), default=None)


def prefix(library: str) -> str:
    return re.split(r"[._]", library.removeprefix("lib"))[0].lower()


def stand_in(library: str, wanted: dict[str, dict[str, bool]], folder: Path) -> None:
    """Compile ``library`` with the symbols ``wanted``: by version, by name, whether it is a function."""
    code, versions = [SOURCE], []
    for version, names in sorted(wanted.items()):
        for name, function in sorted(names.items()):
            code.append(f'void {name}(void) {{ absent("{name}"); }}' if function else f"long {name}[64];")
        if version:
            versions.append(f"{version} {{ global: {'; '.join(sorted(names))}; }};")
    source, script = folder / f"{library}.c", folder / f"{library}.map"
    source.write_text("\n".join(code))
    script.write_text("\n".join(versions))
    named = [f"-Wl,-soname,{library}", *([f"-Wl,--version-script={script}"] if versions else [])]
    compiler = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-w"]
    command = [*compiler, "-o", str(folder / library), str(source), *named]
    subprocess.run(command, check=True)
    source.unlink()
    script.unlink()


def main(torch: Path) -> None:
    places = {path.name: path for path in torch.parent.rglob("*.so*")}
    system = subprocess.run(["ldconfig", "-p"], check=True, text=True, capture_output=True).stdout
    present = {line.split()[0] for line in system.splitlines()[1:] if line.strip()}
    roots = [*torch.glob("_C.*.so"), torch / "lib" / "libtorch_global_deps.so"]
    files, absent = loaded(roots, places)
    absent -= present
    wanted: dict[str, dict[str, dict[str, bool]]] = {name: defaultdict(dict) for name in absent}
    for path in files:
        libraries = provider(path)
        for name, version, function, missing in symbols(path):
            if missing and (library := libraries.get(version) if version else owner(name, absent)) in absent:
                wanted[library][version][name] = function
    for library, versions in sorted(wanted.items()):
        stand_in(library, versions, torch / "lib")
        print(f"{library}: {sum(map(len, versions.values()))} symbols")
    (torch.parent / "no_cuda_here.pth").write_text(HIDES_GPUS)
    made = ["stand_ins.txt", "no_cuda_here.pth", *(f"torch/lib/{library}" for library in sorted(wanted))]
    (torch.parent / "stand_ins.txt").write_text("\n".join(made) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
