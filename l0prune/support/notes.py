"""What goes on, said by logging: a program hears it from the logger `l0prune`, at the level INFO."""

import logging

LOGGER = logging.getLogger("l0prune")


def say(text: str) -> None:
    """Say a line."""
    LOGGER.info("%s", text)
