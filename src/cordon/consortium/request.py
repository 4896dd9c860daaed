"""What a site asks an operator: to be taken in, under a key that it made itself."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from cordon.consortium.signed import Paper, read_paper, write_paper
from cordon.errors import UserError
from cordon.federation.credentials import read_private, write_new_key
from cordon.federation.plan import Site, declared_site

KIND = "request"
LONGEST_CONTACT = 200
# What a site may declare: more patients than there are people is a slip, and so is such a weight.
MOST_PATIENTS, WEIGHTS = 100_000_000, (1e-6, 1e6)


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
            f"{self.site.weight:g}, contact (as the file says) {self.contact!r}",
            f"key fingerprint {self.paper.fingerprint}",
        ]


def make_request(folder: Path, name: str, declared_patients: int, weight: float, contact: str) -> Path:
    """Make the site's key and its request in ``folder``: site.key, site.key.pub, NAME.request.

    UserError where there is a key already: it is the identity that spending is kept by.
    """
    declared, key = _declared(name, declared_patients, weight, contact), folder / "site.key"
    if os.path.lexists(key):
        read_private(key)
        raise UserError(
            f"{key}: there is a key already, and what its patients spent is kept by it. Write its request "
            "anew (--again), or give another folder."
        )
    write_new_key(key, ec.generate_private_key(ec.SECP384R1()))
    return write_request(folder, declared, contact)


def make_request_again(folder: Path, name: str, declared_patients: int, weight: float, contact: str) -> Path:
    """Write the request of the key that is in ``folder`` anew; UserError where there is none."""
    if not (folder / "site.key").exists():
        raise UserError(f"{folder / 'site.key'}: no key. Make one: cordon site init, without --again.")
    return write_request(folder, _declared(name, declared_patients, weight, contact), contact)


def _declared(name: str, patients: int, weight: float, contact: str) -> Site:
    """The declaration; UserError where a part of it is out of range."""
    least, most = WEIGHTS
    if patients > MOST_PATIENTS or not least <= weight <= most:
        raise UserError(
            f"so many patients, or a weight of {weight:g}, are no declaration. Use at most {MOST_PATIENTS} "
            f"patients, and a weight from {least:g} to {most:g}."
        )
    if not (contact.strip() and contact.isprintable() and len(contact) <= LONGEST_CONTACT):
        raise UserError(
            f"a contact is one line of at most {LONGEST_CONTACT} characters. Give a name and an address."
        )
    return declared_site(name, patients, weight)


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
        if type(patients) is not int:
            raise ValueError("declared_patients is no whole number")
        declared = _declared(name, patients, weight, contact)
    except (KeyError, TypeError, ValueError, OverflowError, UserError) as error:
        raise UserError(f"{path}: not a request ({error!s:.300}). Ask the site for a new one.") from error
    return Request(replace(declared, public_key=paper.public_key), contact, paper)
