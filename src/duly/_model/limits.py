"""The limits of one transaction (rules S9 and T4), and what it has used of them."""

from duly.errors import LimitError

__all__ = [
    "ARGUMENT_BYTES_MAX",
    "DOCUMENT_BYTES_MAX",
    "INDEX_KEY_BYTES_MAX",
    "JOBS_MAX",
    "JOB_BYTES_MAX",
    "READS_MAX",
    "WRITES_MAX",
    "Usage",
    "out_of_time",
]

JOBS_MAX = 1_000
JOB_BYTES_MAX = 16 * 1024 * 1024
ARGUMENT_BYTES_MAX = 4 * 1024 * 1024
DOCUMENT_BYTES_MAX = 1024 * 1024
WRITES_MAX = 16_000
READS_MAX = 32_000
INDEX_KEY_BYTES_MAX = 2_000
"""What PostgreSQL's B-tree holds in one entry, less what duly adds. The same on SQLite, so that a move can't fail."""


class Usage:
    """What a transaction has used, its nested mutations included. Every method raises `LimitError` past the limit.

    `calls` has no limit: it tells a mutation that makes progress from one that waits for something else.
    """

    # Defaults of the class: one is made for each transaction, and few count everything.
    reads: int = 0
    writes: int = 0
    jobs: int = 0
    job_bytes: int = 0
    calls: int = 0

    def read(self, documents: int) -> None:
        self.reads += documents
        if self.reads > READS_MAX:
            raise LimitError(
                "documents read in one transaction", self.reads, READS_MAX, "use an index, take() or paginate()"
            )

    def write(self) -> None:
        if self.writes >= WRITES_MAX:
            raise LimitError(
                "writes in one transaction", self.writes + 1, WRITES_MAX, "schedule another mutation for the rest"
            )
        self.writes += 1

    def schedule(self, size: int) -> None:
        if size > ARGUMENT_BYTES_MAX:
            raise LimitError(
                "bytes of arguments of one scheduled function",
                size,
                ARGUMENT_BYTES_MAX,
                "insert a document, pass its id",
            )
        if self.jobs >= JOBS_MAX:
            raise LimitError(
                "functions scheduled in one mutation",
                self.jobs + 1,
                JOBS_MAX,
                "schedule a mutation that schedules the rest",
            )
        if self.job_bytes + size > JOB_BYTES_MAX:
            raise LimitError(
                "bytes of arguments scheduled in one mutation",
                self.job_bytes + size,
                JOB_BYTES_MAX,
                "insert documents, pass their ids",
            )
        self.jobs += 1
        self.job_bytes += size

    def undo(self, before: "Usage") -> None:
        """A nested mutation was rolled back: what it wrote and scheduled is given back; what it read was read."""
        self.writes, self.jobs, self.job_bytes = before.writes, before.jobs, before.job_bytes

    def copy(self) -> "Usage":
        copied = Usage()
        copied.__dict__.update(self.__dict__)
        return copied


def out_of_time(what: str, took_s: float, maximum_s: float, hint: str) -> LimitError:
    """The error of what has run for longer than it may.

    Args:
        what: What ran, such as "the mutation 'orders:create_order'".
        took_s: For how long it has run.
        maximum_s: For how long it may.
        hint: What became of it, and what to do.
    """
    # It was late, whatever the clock's grain says.
    took_s = round(max(took_s, maximum_s + 0.001), 3)
    message = f"{what} may run for {_seconds(maximum_s)} and was stopped after {_seconds(took_s)}"
    return LimitError(f"seconds that {what} may run", took_s, maximum_s, hint, message)


def _seconds(seconds: float) -> str:
    text = f"{seconds:,.3f}".rstrip("0").removesuffix(".")
    return f"{text} second" if text == "1" else f"{text} seconds"
