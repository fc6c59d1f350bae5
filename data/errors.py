"""The one exception for what the user can mend: a file, a folder or a setting."""


class InputError(ValueError):
    """Something that was given is not as expected; the message is one line that names both sides."""

    def __init__(self, message: str):
        # Library errors span several lines; a command prints this one as `error: <message>`.
        lines = (line.strip() for line in str(message).splitlines())
        super().__init__(" ".join(line for line in lines if line))


class GridError(InputError):
    """Two volumes that must lie on one grid do not."""
