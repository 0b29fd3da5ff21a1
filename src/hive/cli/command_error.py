"""The error that ends a command."""


class CommandError(Exception):
    """A sentence for standard error, and the exit code: 1 for a failure, 2 for a wrong use."""

    def __init__(self, sentence: str, code: int = 1) -> None:
        super().__init__(sentence)
        self.code = code
