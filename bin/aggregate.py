#!/usr/bin/env python3
"""Run the aggregator of one federated run: SuperLink, audit, averaging."""

import json
from importlib.util import find_spec
from pathlib import Path

import click

from cordon.console.commands import EXISTING, EXISTING_FOLDER, FOLDER, OUTPUT, Facts, GivenPath, command
from cordon.console.progress import telling
from cordon.errors import UserError
from cordon.transport.address import ADDRESS


@command()
@click.option("--plan", "plan_file", required=True, type=EXISTING, help="The run's public plan (JSON).")
@click.option(
    "--credentials",
    required=True,
    type=EXISTING_FOLDER,
    help="server.crt and server.key (without them the gate makes its own), enrolment.json (without it: those "
    "who are enrolled).",
)
@click.option("--address", type=ADDRESS, required=True, metavar="HOST:PORT", help="Where to listen.")
@click.option(
    "--name", "names", multiple=True, help="Name or address that sites use, if not the host; repeatable."
)
@click.option("--min_sites", default=2, show_default=True, type=click.IntRange(1), help="Quorum of a round.")
@click.option("--join_deadline", default=600.0, show_default=True, help="Seconds to wait for the sites.")
@click.option("--round_deadline", default=600.0, show_default=True, help="Seconds to wait for a round.")
@click.option(
    "--ban_after",
    default=3,
    show_default=True,
    type=click.IntRange(1),
    help="Ban a site after so many runs with an offence.",
)
@click.option("--state", required=True, type=FOLDER, help="Outlives runs: the ledger.")
@click.option(
    "--evidence", default="", help="Attests the TLS key: guest, guest:VCEK or emulator:FOLDER (a test)."
)
@click.option(
    "--transport_dir",
    type=GivenPath(file_okay=False, path_type=Path),
    help="Serve sites that connect through this shared folder, too.",
)
@click.option("--pretrained", type=EXISTING, help="Public model that the plan starts from.")
@click.option(
    "--public_variants",
    multiple=True,
    type=EXISTING,
    help="Held-out public variants: keep the start where it scores them better; repeatable.",
)
@click.option("--progress", "progress_file", type=OUTPUT, help="Progress lines also go here.")
@click.option("--output", required=True, type=OUTPUT, help="The model (safetensors).")
@click.option("--record", required=True, type=OUTPUT, help="What happened (federation.json).")
def main(plan_file: str, credentials: str, address: str, names: tuple[str, ...], min_sites: int,
         join_deadline: float, round_deadline: float, ban_after: int, state: str, evidence: str,
         transport_dir: Path | None, pretrained: str | None, public_variants: tuple[str, ...],
         progress_file: str | None, output: str, record: str) -> Facts:  # fmt: skip
    """Wait for the enrolled sites, train the model with them and write it."""
    from cordon.federation.aggregator.attendance import RoundLimits
    from cordon.federation.aggregator.record import Record
    from cordon.federation.aggregator.run import RunSetup
    from cordon.federation.aggregator.service import Endpoint, serve
    from cordon.federation.plan import read_enrolment, read_plan
    from cordon.model.released import Model
    from cordon.privacy.guarantee import LIFETIME, RUN, Guarantee
    from cordon.training.pretrain import PublicStart, public_rows, read_public
    from cordon.variants.features import FEATURES
    from cordon.variants.pileup_images import WITH_IMAGES

    enrolment = Path(credentials) / "enrolment.json"
    sites = read_enrolment(enrolment) if enrolment.exists() else []
    plan = read_plan(Path(plan_file)).started()
    # Tables are read with pyarrow, and what looks at images is PyTorch's: a measured image may lack both.
    takes = ("pyarrow", "torch") if plan.model in WITH_IMAGES else ("pyarrow",)
    if public_variants and (missing := [name for name in takes if find_spec(name) is None]):
        raise UserError(
            f"--public_variants are read and scored by a {plan.model} with {' and '.join(takes)}, and "
            f"{' and '.join(missing)} is not installed here. Leave them out, or run the aggregator where "
            "it is."
        )
    rows = public_rows([Path(path) for path in public_variants], plan.model) if public_variants else None
    start = PublicStart(read_public(Path(pretrained)), rows) if pretrained else None
    host, _, port = address.rpartition(":")
    endpoint = Endpoint(host, int(port), Path(credentials), names, evidence, transport_dir)
    limits = RoundLimits(min_sites, join_deadline, round_deadline, ban_after)
    setup = RunSetup(plan, sites, FEATURES, limits, start)

    def save(model: Model, happened: Record) -> None:
        model.save(Path(output))
        Path(record).write_text(json.dumps(happened.to_dict(), indent=2) + "\n")

    with telling(progress_file) as tell:
        model, _ = serve(setup, endpoint, state=Path(state), workdir=Path("flower"), say=tell.say, save=save)
        tell.say(f"model {model.hash[:12]} after {model.privacy['rounds']} rounds")
    said = model.privacy
    told = f"{output}: model {model.hash}, " + "; ".join(
        Guarantee(said["unit"], said["delta"], said[f"{of}mechanism"], scope).by_both(
            said[f"{of}epsilon_rdp"], said[f"{of}epsilon_pld"])
        for scope, of in ((LIFETIME, ""), (RUN, "run_"))
    )  # fmt: skip
    return Facts({"model": output, "record": record, "model_hash": model.hash, **said}, [told])


if __name__ == "__main__":
    main()
