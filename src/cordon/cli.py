"""`cordon`: what people do with Cordon by hand, beside the commands that the pipeline runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import ROUND_CEILING, ROUND_FLOOR
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cordon import __version__
from cordon.attestation.cli import attest
from cordon.auditing.cli import audit, certificate
from cordon.console.commands import EXISTING, KEY, OUTPUT, Facts, facts
from cordon.console.help_groups import Tour, completion
from cordon.console.progress import shown
from cordon.consortium.cli import consortium, site
from cordon.consortium.plan_cli import plan
from cordon.consortium.run_cli import run_aggregator
from cordon.doctor.cli import doctor
from cordon.errors import UserError
from cordon.federation.aggregator.cli import aggregator
from cordon.model.architectures import ARCHITECTURES
from cordon.privacy.guarantee import Guarantee, three_digits
from cordon.privacy.several_sites import told
from cordon.transport.cli import relay

if TYPE_CHECKING:
    from cordon.ledger.hash_chain import Chain
    from cordon.ledger.spending import Account, Cohort, RoundSpending

SPENT_COLUMNS = ("run", "round", "state", "mechanism", "noise", "rate", "steps", "epsilon RDP", "epsilon PLD")
ledger_file = click.argument("ledger_file", metavar="LEDGER", type=EXISTING)
key_option = click.option(
    "--key",
    type=KEY,
    metavar="KEY",
    help="The ledger's public key: 64 hexadecimal digits or a file.  [default: the key beside it]",
)


STATIONS = {
    "To begin and to join": ("consortium", "site", "plan"),
    "Before a run": ("doctor", "attest", "pretrain"),
    "During one": ("aggregator", "relay"),
    "After one, and for whoever receives its model": ("ledger", "audit", "certificate"),
    "In your shell": ("completion",),
}


@click.group(cls=Tour, stations=STATIONS)
@click.version_option(__version__, prog_name="cordon")
def main() -> None:
    """Federated, differentially private variant scoring.

    The pipeline itself is started with Nextflow (nextflow run . --help tells its parameters). These are the
    commands beside it. Each has its own --help, and prints one JSON object with --json. Exit statuses: 0
    done, 2 wrong input, 3 over budget, 4 to 7 the federation, 8 not released, 75 left in time.
    """


main.add_command(completion)
main.add_command(attest)


@main.command(short_help="Train a public model, without noise, to start from.")
@click.argument("variants", nargs=-1, required=True, type=EXISTING)
@click.option("--model", type=click.Choice(ARCHITECTURES), default="mlp", show_default=True, help="Its kind.")
@click.option("--output", type=OUTPUT, required=True, help="Model (safetensors) to write.")
def pretrain(variants: tuple[str, ...], model: str, output: str) -> Facts:
    """Train without noise on labelled VARIANTS of public samples, for runs to start from.

    Give tables of public controls alone, such as Genome in a Bottle: nothing here protects anybody.
    """
    from cordon.training.pretrain import pretrain as fitted

    made = fitted([Path(path) for path in variants], model, steps=shown)
    made.save(Path(output))
    told = "{output}: {model} of {tables} public tables, hash {model_hash}"
    return facts(told, output=output, model=model, tables=len(variants), model_hash=made.hash)


main.add_command(consortium)
main.add_command(site)
main.add_command(plan)
aggregator.add_command(run_aggregator)
main.add_command(aggregator)
main.add_command(audit)
main.add_command(certificate)
main.add_command(doctor)
main.add_command(relay)


@main.group(short_help="Read what was spent, by run and round, and verify it.")
def ledger() -> None:
    """Read the ledgers of what was spent, a site's or the aggregator's.

    LEDGER is the ledger itself, or what `export` wrote.
    """


@ledger.command(short_help="Show what was spent, and what is left.")
@ledger_file
@key_option
@click.option("--epsilon", type=float, help="The budget.  [default: the one that the ledger records]")
@click.option("--delta", type=float, help="Of each epsilon.  [default: the one that the ledger records]")
def show(ledger_file: str, key: str | None, epsilon: float | None, delta: float | None) -> Facts:
    """Show what was spent, by run and round, and what is left of the budget.

    In a site's own ledger also by cohort: how many patients took part in the same rounds, under whichever
    name of a site in the folder, and what that cost each of them.
    """
    from cordon.ledger.cohorts import Beside
    from cordon.ledger.database import is_database
    from cordon.ledger.spending import accounts, by_cohort

    chain, _ = _read(Path(ledger_file), key)
    held = accounts(chain.rows, epsilon=epsilon, delta=delta, steps=shown)
    told = "{ledger}: {rows} rows, all verified; the last has hash {head}"
    found = facts(told, ledger=ledger_file, rows=len(chain), head=chain.head)
    tables = [line for account in held for line in ("", *_table(account))]
    found += Facts({"accounts": [account.to_dict() for account in held]}, tables)
    path, cohorts = Path(ledger_file), []
    if is_database(path):
        cohorts = by_cohort(chain, Beside(path).chains(), epsilon=epsilon, delta=delta)
    return found + Facts({"cohorts": [cohort.to_dict() for cohort in cohorts]}, map(_cohort, cohorts))


@ledger.command(verdict="verified", short_help="Verify every row's hash and signature.")
@ledger_file
@key_option
@click.option("--head", help="Hash of a row, noted earlier, that the ledger must still hold.")
def verify(ledger_file: str, key: str | None, head: str | None) -> Facts:
    """Verify every row's hash and signature: exit status 0, or 2 and the first bad row."""
    from cordon.ledger.hash_chain import hexadecimal

    chain, has_head = _read(Path(ledger_file), key)
    if head is not None and not chain.holds(head):
        raise UserError(
            f"{ledger_file}: holds no row of hash {head}. It is an old copy or another ledger: restore "
            "the one that held it."
        )
    if head is not None:
        end = "the row noted earlier is there"
    elif has_head:
        end = "head record: no row is missing at the end, unless both were put back from an old copy"
    else:
        end = "head record: none here, so rows may be missing at the end; compare a noted hash (--head)"
    found = {"ledger": ledger_file, "rows": len(chain), "head": chain.head}
    found |= {"public_key": hexadecimal(chain.key), "head_record": has_head}
    rows = f"{ledger_file}: {len(chain)} rows, all verified"
    return Facts(found, [rows, f"last hash: {chain.head}", f"public key: {found['public_key']}", end])


@ledger.command(short_help="Take back an aggregator whose ledger went back.")
@ledger_file
@click.option("--aggregator", required=True, metavar="KEY", help="The public key of the aggregator's ledger.")
@click.option("--reason", required=True, help="Why; it stands in the site's ledger.")
def follow_anew(ledger_file: str, aggregator: str, reason: str) -> Facts:
    """Let a site take part again at an aggregator whose ledger went back to an older copy.

    A site follows each aggregator's ledger forwards alone. Where the operator had to restore an older one and
    the consortium agreed to that, this says so in the site's own LEDGER. What the site spent stays spent.
    """
    from cordon.ledger.site import follow_anew as take_back

    take_back(Path(ledger_file), aggregator, reason)
    told = "{ledger}: the ledger of {aggregator} is followed from wherever it is now"
    return facts(told, ledger=ledger_file, aggregator=aggregator, reason=reason)


@ledger.command(short_help="Write the rows as JSON lines.")
@ledger_file
@key_option
@click.option("--output", type=OUTPUT, help="File to write.  [default: standard output]")
def export(ledger_file: str, key: str | None, output: str | None) -> Facts:
    """Write the rows as JSON lines, with the hashes and signatures that `verify` needs."""
    from cordon.files import written_beside

    chain, _ = _read(Path(ledger_file), key)
    if output is None:
        lines = [line.decode() for line in chain.lines]
        return Facts({"ledger": ledger_file, "rows": len(chain), "lines": lines}, lines)
    with written_beside(output) as temporary:
        temporary.write_bytes(b"".join(line + b"\n" for line in chain.lines))
    return facts("{output}: {rows} rows", output=output, ledger=ledger_file, rows=len(chain))


def _read(path: Path, key: str | None) -> tuple[Chain, bool]:
    from cordon.ledger.hash_chain import public_key, read_private_key
    from cordon.ledger.log import key_path, read_log

    if key is not None:
        return read_log(path, public_key(key))
    if not key_path(path).exists():
        raise UserError(
            f"{path}: its key is not beside it. Give --key: the public key, which `cordon ledger verify` "
            "prints where the ledger is kept."
        )
    return read_log(path, read_private_key(key_path(path)).public_key())


def _cohort(cohort: Cohort) -> str:
    means = Guarantee(cohort.unit, cohort.delta, cohort.mechanism)
    spent = means.by_both(cohort.epsilon_rdp, cohort.epsilon_pld)
    left = "" if cohort.left is None else (
        f"; left by {cohort.accountant.upper()}: {three_digits(cohort.left, ROUND_FLOOR)}"
    )  # fmt: skip
    where = f"{cohort.rounds} rounds of runs {', '.join(cohort.runs)} in {', '.join(cohort.ledgers)}"
    return f"cohort of {cohort.patients} patients, in {where}: each spent {spent}, in its lifetime{left}"


def _table(account: Account) -> Iterator[str]:
    last = account.rounds[-1]
    means = Guarantee(account.unit, account.delta, last.mechanism)
    yield f"{account.holder}. Each epsilon composes all events up to its round, over all runs ({means}):"
    table = [SPENT_COLUMNS, *(_cells(item) for item in account.rounds)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        words = [
            cell.ljust(width) if name in ("run", "state", "mechanism") else cell.rjust(width)
            for name, cell, width in zip(SPENT_COLUMNS, cells, widths, strict=True)
        ]
        yield "  " + "  ".join(words).rstrip()
    for epsilon, accountant in ((last.epsilon_rdp, "RDP"), (last.epsilon_pld, "PLD")):
        if epsilon is not None:
            yield f"spent: {means.statement(epsilon)}, by {accountant}"
    if account.at_more_sites:
        yield f"at several sites: {told(account.at_more_sites)}"
    if account.left is None:
        yield "budget: not recorded here; give --epsilon to see what is left of it"
        return
    rounds = ""
    if account.further_rounds is not None:
        rounds = f"; {account.further_rounds} more rounds like the last one fit"
    left = three_digits(account.left, ROUND_FLOOR)
    of = f"of the budget of epsilon {account.budget:g} ({means})"
    yield f"left by {account.accountant.upper()}: {left} {of}{rounds}"


def _cells(item: RoundSpending) -> tuple[str, ...]:
    def each(value: Callable[[Any], str]) -> str:
        return ", ".join(value(event) for event in item.events) or "-"

    return (
        item.run, str(item.round), item.state, each(lambda event: event.mechanism),
        each(lambda event: f"{event.noise_multiplier:.4g}"), each(lambda event: f"{event.sampling_rate:.4g}"),
        each(lambda event: f"{event.steps} x {event.sites} sites" if event.sites > 1 else str(event.steps)),
        three_digits(item.epsilon_rdp, ROUND_CEILING),
        "-" if item.epsilon_pld is None else three_digits(item.epsilon_pld, ROUND_CEILING),
    )  # fmt: skip


if __name__ == "__main__":
    main()
