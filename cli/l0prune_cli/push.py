"""`l0prune push`."""

from pathlib import Path
from typing import Annotated

import typer

from l0prune_cli import options

_NONE = "none"


def command(
    source: Annotated[str, typer.Argument(help="A run directory, or an exported folder or file.")],
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the Hugging Face hub; it is made if need be.")],
    run: Annotated[
        Path | None,
        typer.Option(help="The run that an export was made of.", show_default="for an export in exports/, its run"),
    ] = None,
    license_: Annotated[
        str, typer.Option("--license", help="Of the network: apache-2.0, mit, ...", show_default=_NONE)
    ] = "",
    language: Annotated[list[str] | None, typer.Option(help="A code: en; may be repeated.", show_default=_NONE)] = None,
    base_model: Annotated[
        str, typer.Option(help="OWNER/NAME of the dense network.", show_default="what the plugin knows")
    ] = "",
    dataset: Annotated[
        list[str] | None, typer.Option(help="A data set on the hub; may be repeated.", show_default=_NONE)
    ] = None,
    pipeline_tag: Annotated[
        str, typer.Option(help="automatic-speech-recognition, ...", show_default="what the plugin knows")
    ] = "",
    private: Annotated[bool, typer.Option("--private", help="Make a private repository.")] = False,
    revision: Annotated[str | None, typer.Option(help="A branch.", show_default="main")] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.", show_default="the run's name")] = None,
    print_card: Annotated[bool, typer.Option("--print-card", help="Print the model card and stop.")] = False,
    as_json: options.JsonFlag = False,
) -> None:
    """Put a run or an export on the Hugging Face hub, with a model card."""
    from l0prune.adapters.hub import card_of, push_to_hub
    from l0prune.plugin import CardFacts
    from l0prune_cli.tables import print_result

    facts = CardFacts(
        license=license_,
        language=tuple(language or ()),
        base_model=base_model,
        datasets=tuple(dataset or ()),
        pipeline_tag=pipeline_tag,
    )
    if print_card:
        card = card_of(source, repo, run=run, facts=facts)
        print_result({"card": card}, card.rstrip("\n"), as_json=as_json)
        return
    pushed = push_to_hub(source, repo, run=run, facts=facts, private=private, revision=revision, message=message)
    shown = "\n".join([f"{pushed.url}: {len(pushed.files)} files", *(f"  {note}" for note in pushed.notes)])
    print_result(pushed.to_json(), shown, as_json=as_json)
