"""Names that users give to arms, datasets and test sets: they become parts of paths and titles."""

import re

from dermsynth.errors import UserError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: object, where: str) -> str:
    """The name, where it is one: letters, digits, dash, dot, underscore; it begins with a letter
    or a digit.

    Raises UserError that begins with `where`, also for what YAML takes for something else than a
    text: `1`, `null`, `yes`.
    """
    if not isinstance(name, str):
        raise UserError(
            f"{where}: {name!r} is a {type(name).__name__}, not a name; put it in quotes"
        )
    if not NAME.fullmatch(name):
        raise UserError(
            f"{where}: {name!r}: expected a name of at most 64 letters, digits, dashes, dots and "
            "underscores, a letter or digit first"
        )
    return name
