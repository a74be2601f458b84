"""Numbers of things in words."""


def counted(count: float, one: str) -> str:
    """A number with its noun: `1 epoch`, `2,000 epochs`."""
    return f"{count:,} {one}{'s' * (count != 1)}"
