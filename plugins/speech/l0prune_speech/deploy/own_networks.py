"""Networks with a class of their own as their users know them: written, opened again, compared, put in place."""

from pathlib import Path

from l0prune import ConfigError, Export, ProofError, assembled
from l0prune.support import write_sums
from l0prune_speech.deploy.networks import form_named, forms
from l0prune_speech.families import open_network


def export_own(source: str, to: str, out: Path) -> Export:
    """Write a network of a class of its own.

    Args:
        source: A run directory, or a checkpoint.
        to: The name of a form.
        out: The folder to make.

    Raises:
        ConfigError: There is no such form of it, or a package is missing.
        ProofError: What was written does not behave as the network does; nothing is left of it.
    """
    form = form_named(to)
    form.needs()
    network = open_network(source)
    if refusal := form.refuses(network):
        others = ", ".join(name for name, each in forms().items() if not each.refuses(network))
        raise ConfigError(f"{to} cannot hold this network", where=source, got=refusal, hint=f"these can: {others}")
    with assembled(out) as place:
        place.mkdir()
        notes = form.write(network, place)
        difference = form.compare(network, place)
        if not difference <= form.tolerance:
            got, expected = f"a relative difference of {difference:.1e}", f"at most {form.tolerance}"
            raise ProofError(
                f"the {to} export does not behave as the network", where=source, got=got, expected=expected
            )
        write_sums(place)
        size = sum(path.stat().st_size for path in place.iterdir())
    return Export(
        source=source,
        format=to,
        path=str(out),
        parameters=network.parameters,
        max_relative_difference=difference,
        notes=(*network.notes, *notes, f"{size / 1e6:.1f} MB in all", f"opened again by {form.opened_by}"),
    )
