"""The error that a user is meant to read, and the words that such sentences are made of."""


class UserError(Exception):
    """Bad input: the message names the file, row or option, what was expected, how to mend it.

    Commands print it as `error: ...` without a traceback and exit with code 2.
    """


class OtherProcessError(Exception):
    """Another process of the same run has ended early; it has said why, if it could.

    Commands end with code 1; rank 0 says that it was another one.
    """


def counted(count: int, one: str, several: str | None = None) -> str:
    """`1 fold`, `1,200 folds`; a verb has both: `counted(n, "image is", "images are")`."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def some(names: list[str], limit: int = 5) -> str:
    """`a, b, c and 7 more`: enough of a long list to act on."""
    shown = ", ".join(str(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
