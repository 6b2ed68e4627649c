"""The moments at which a crash would hurt most, by name.

Whoever writes something that must survive calls ``reach`` just before and just after. Here it does nothing; the
crash tests put a function in its place that kills the process at the point that they are about, one after the other.
"""

POINTS: tuple[str, ...] = (
    "image.before-link",
    "image.after-link",
    "image.before-unlink",
    "process.before-record",
    "process.before-spawn",
    "process.after-spawn",
    "process.after-record",
    "state.before-commit",
    "state.after-commit",
    "block.before-link",
    "block.after-link",
    "block.before-rename",
    "block.after-rename",
    "block.before-unlink",
    "block.after-unlink",
    "end.before-signal",
    "end.after-exit",
)


def reach(point: str) -> None:
    """Called at ``point``, which is one of ``POINTS``."""
