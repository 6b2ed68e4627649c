"""Events for one who asked for them: what is recorded since a time, then what happens, page by page.

1. the answer is a document that says from when on events are kept for this path;
2. every event is a success ``Text`` with one JSON document, in the order of the record; one more stands between what
   was recorded when it asked and what happens since;
3. it goes on until the other side goes or says something, or the earliest end in its chain.

A reader that is slow delays nobody: its place in the record waits for it, and what was pushed out of the record
meanwhile is told as a number.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from albatross_pki.errors import Refused
from albatross_pki.host.conversation import Conversation
from albatross_pki.host.events_kinds import LastLines, caught_up, seen
from albatross_pki.host.events_log import EventLog, Listener
from albatross_pki.names import Name
from albatross_pki.replies import Text


async def stream_events(
    log: EventLog,
    asked: Name,
    since: datetime | None,
    not_after: datetime | None,
    conversation: Conversation,
    *,
    arguments: bool = True,
) -> None:
    """Follow the events that ``asked`` means; raises ``Refused`` for want of a place, or when the chain has expired.

    Without ``arguments`` what unikernels printed last is left out: some print what they were started with.
    """
    more = asyncio.Event()
    more.set()
    listener = log.listen(asked, since, more.set)
    seconds = None if not_after is None else max(0.0, (not_after - datetime.now(UTC)).total_seconds())
    try:
        await conversation.answer(Text(log.first_document(asked)))
        async with asyncio.timeout(seconds):
            await conversation.follow(_texts(log, listener, more, arguments))
    except TimeoutError as error:
        raise Refused(["a certificate of the chain has expired"]) from error
    finally:
        log.leave(listener)


async def _texts(log: EventLog, listener: Listener, more: asyncio.Event, arguments: bool) -> AsyncIterator[Text]:
    told_history = False
    while True:
        await more.wait()
        more.clear()
        while documents := log.take(listener):
            for document in documents:
                if arguments or json.loads(document)["event"] != LastLines.word:
                    yield Text(document)
            await asyncio.sleep(0)  # a long history is not told in one go
        if not told_history:
            told_history = True
            yield Text(caught_up(seen(listener.asked, listener.asked)))
