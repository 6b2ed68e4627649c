"""What the record of events says about a host, if it is all that anybody knows."""

import contextlib
import json
import os
import sqlite3
from typing import Any

Document = dict[str, Any]


def on_disk(dbdir: str) -> list[tuple[str, Document]]:
    """Name and document of everything on record, read from the file."""
    with contextlib.closing(sqlite3.connect(os.path.join(dbdir, "albatross.sqlite"))) as database:
        rows = database.execute("SELECT name, document FROM events ORDER BY number").fetchall()
    return [(name, json.loads(document)) for name, document in rows]


def replayed(told: list[tuple[str, Document]]) -> tuple[set[str], set[str]]:
    """The names that are wanted and those that have a process, if what is on record is all that ever happened."""
    assert len({document["id"] for _, document in told}) == len(told)
    lasting: set[str] = set()
    running: set[str] = set()
    for name, document in told:
        match document["event"]:
            case "started":
                assert name not in running, (name, told)
                running.add(name)
            case "exited":
                assert name in running, (name, told)
                running.remove(name)
            case "adopted":
                assert name in running, (name, told)
            case "created":
                assert name not in lasting, (name, told)
                lasting.add(name)
            case "replaced":
                assert name in lasting, (name, told)
            case "destroyed" | "over":
                assert name in lasting, (name, told)
                lasting.remove(name)
    return lasting, running
