"""Write what is in an image as CycloneDX JSON: ``sbom.py IMAGE OUTPUT``, by the lists in /usr/share/cordon.

Debian packages and jars come without licences: neither dpkg nor Maven's coordinates hold them.
"""

import io
import json
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL


def component(kind: str, group: str | None, name: str, version: str, *, sha256: str | None = None,
              licence: str | None = None, **qualifiers: str) -> Component:  # fmt: skip
    """A library that a package manager knows by ``kind``, group, name and version."""
    url = PackageURL(kind, group, name, version, qualifiers)
    return Component(
        type=ComponentType.LIBRARY, group=group, name=name, version=version, purl=url, bom_ref=str(url),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)] if sha256 else [],
        licenses=[LicenseFactory().make_from_string(licence)] if licence else [],
    )  # fmt: skip


def debian(text: str) -> Iterator[Component]:
    """Lines of name, version and architecture."""
    for line in text.splitlines():
        name, version, architecture = line.split()
        yield component("deb", "debian", name, version, arch=architecture, distro="debian-12")


def python(text: str) -> Iterator[Component]:
    for about in json.loads(text):
        yield component(
            "pypi", None, about["name"], about["version"], sha256=about["sha256"], licence=about["licence"]
        )


def jars(text: str) -> Iterator[Component]:
    """A lock file of tools/: hash, and path in Maven's repository."""
    for line in text.splitlines():
        sha256, path = line.split()
        *group, artifact, version, file = path.split("/")
        classifier = file.removeprefix(f"{artifact}-{version}").removesuffix(".jar").removeprefix("-")
        qualifiers = {"type": "jar"} | ({"classifier": classifier} if classifier else {})
        yield component("maven", ".".join(group), artifact, version, sha256=sha256, **qualifiers)


READERS: dict[str, Callable[[str], Iterator[Component]]] = {
    "debian_packages.txt": debian, "python_packages.json": python, "jars.lock": jars,
}  # fmt: skip


def docker(*words: str) -> bytes:
    return subprocess.run(["docker", *words], check=True, capture_output=True).stdout


def lists(image: str) -> dict[str, str]:
    """The files in the image's /usr/share/cordon; it is not started, and need not have a shell."""
    container = docker("create", image, "none").decode().strip()
    try:
        packed = docker("cp", f"{container}:/usr/share/cordon", "-")
    finally:
        docker("rm", container)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        files = [member for member in archive.getmembers() if member.isfile()]
        return {Path(file.name).name: archive.extractfile(file).read().decode() for file in files}  # type: ignore[union-attr]


def bom(about: dict[str, Any], held: dict[str, str]) -> Bom:
    """The bill of materials of an image: one image, one text, by serial number and time too."""
    labels = about["Config"]["Labels"]
    named = {key.rpartition(".")[2]: value for key, value in labels.items()}
    subject = Component(
        type=ComponentType.CONTAINER, name=named["title"], version=named["version"],
        description=named["description"], bom_ref=about["Id"],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=about["Id"].removeprefix("sha256:"))],
        licenses=[LicenseFactory().make_from_string(named["licenses"])],
    )  # fmt: skip
    parts = [part for name, text in sorted(held.items()) if name in READERS for part in READERS[name](text)]
    found = Bom(components=parts, serial_number=uuid.uuid5(uuid.NAMESPACE_OID, about["Id"]))
    found.metadata.component = subject
    found.metadata.timestamp = datetime.fromisoformat(about["Created"])
    found.register_dependency(subject, parts)
    return found


def main(image: str, output: Path) -> None:
    (about,) = json.loads(docker("image", "inspect", image))
    found = bom(about, lists(image))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(JsonV1Dot6(found).output_as_string(indent=1) + "\n")
    print(f"{output}: {len(found.components)} components")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
