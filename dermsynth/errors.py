"""The one error that a user is meant to read."""


class UserError(Exception):
    """Bad input: the message names the file, row or option, what was expected, how to mend it.

    Commands print it as `error: ...` without a traceback and exit with code 2.
    """


def some(names: list[str], limit: int = 5) -> str:
    """`a, b, c and 7 more`: enough of a long list to act on."""
    shown = ", ".join(str(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
