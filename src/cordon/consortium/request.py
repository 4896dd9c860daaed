"""What a site asks an operator: to be taken in, under a key that it made itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from cordon.consortium.signed import Paper, read_paper, write_paper
from cordon.errors import UserError
from cordon.federation.credentials import write_new_key
from cordon.federation.plan import Site, declared_site

KIND = "request"
LONGEST_CONTACT = 200


@dataclass(frozen=True)
class Request:
    """A site as it declares itself, and whom to ask about it; ``paper`` is what it signed."""

    site: Site
    contact: str
    paper: Paper

    @property
    def lines(self) -> list[str]:
        """The request in sentences, for whoever approves it."""
        return [
            f"site {self.site.name}, {self.site.declared_patients} declared patients, weight "
            f"{self.site.weight:g}, contact {self.contact}",
            f"key fingerprint {self.paper.fingerprint}",
        ]


def make_request(folder: Path, name: str, declared_patients: int, weight: float, contact: str) -> Path:
    """Make the site's key and its request in ``folder``: site.key, site.key.pub, NAME.request.

    UserError where there is a key already: it is the identity that spending is kept by.
    """
    declared = declared_site(name, declared_patients, weight)
    if not (contact.strip() and contact.isprintable() and len(contact) <= LONGEST_CONTACT):
        raise UserError(
            f"a contact is one line of at most {LONGEST_CONTACT} characters. Give a name and an address."
        )
    key = folder / "site.key"
    if os.path.lexists(key):
        raise UserError(
            f"{key}: there is a key already, and what its patients spent is kept by it. Use it, or give "
            "another folder."
        )
    write_new_key(key, ec.generate_private_key(ec.SECP384R1()))
    return write_request(folder, declared, contact)


def write_request(folder: Path, declared: Site, contact: str) -> Path:
    """Write NAME.request for the key in ``folder``; returns its path."""
    path = folder / f"{declared.name}.request"
    content = {
        "site": declared.name, "declared_patients": declared.declared_patients, "weight": declared.weight,
        "contact": contact,
    }  # fmt: skip
    write_paper(KIND, content, folder / "site.key", path)
    return path


def read_request(path: Path) -> Request:
    """The request in a file; UserError where it is none, or its declaration is out of range."""
    paper = read_paper(KIND, path)
    held = paper.content
    try:
        name, patients, weight = str(held["site"]), held["declared_patients"], float(held["weight"])
        contact = str(held["contact"])
        if type(patients) is not int or not (contact.isprintable() and len(contact) <= LONGEST_CONTACT):
            raise ValueError("declared_patients or contact is out of range")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a request ({error}). Ask the site for a new one.") from error
    return Request(declared_site(name, patients, weight, paper.public_key), contact, paper)
