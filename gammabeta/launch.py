"""Which of how many processes this is. Imports nothing large: the command line asks at once."""

import os

from gammabeta.errors import InputError


def launched() -> tuple[int, int]:
    """(rank, count): which of how many processes this is, by the variables that torchrun sets; the
    only one without them. Raises InputError where they make no sense."""
    if "WORLD_SIZE" not in os.environ:
        return 0, 1
    rank, count = os.environ.get("RANK", ""), os.environ["WORLD_SIZE"]
    if not (rank.isdecimal() and count.isdecimal() and int(rank) < int(count)):
        raise InputError(
            f"RANK={rank} and WORLD_SIZE={count} in the environment make no sense: unset "
            "WORLD_SIZE, or start the processes with torchrun"
        )
    return int(rank), int(count)


def check_alone(what: str) -> None:
    """Raise InputError in one of several processes: `what` is the work of one."""
    count = launched()[1]
    if count > 1:
        raise InputError(
            f"{what} in one process, and torchrun started {count}: leave out torchrun, or write "
            "gammabeta train with one seed"
        )
