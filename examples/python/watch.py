"""Keeps a copy of the calls that a filter matches, through anything.

Usage: watch.py ADDRESS DATABASE [STAFF_UID]

The copy is in an SQLite database, together with the point up to which it is
complete: both change in one transaction, so whatever ends this program, it goes on
where it was. Each change is printed once.
"""

import random
import sqlite3
import sys
import time

import grpc

import common
from common import events, messages

# The point is not in the log any more, or is of another log: only a new snapshot
# helps. After any UNAVAILABLE the same point will do, on any replica.
START_OVER = {
    "REVISION_COMPACTED",
    "REVISION_AHEAD",
    "FEED_RESET",
    "WATCHER_TOO_SLOW",
    "INVALID_RESUME_TOKEN",
}
PUT = {events.VOICE_CALL_EVENT_TYPE_ENTERED, events.VOICE_CALL_EVENT_TYPE_UPDATED}
MAX_DELAY = 10.0


class Copy:
    def __init__(self, path):
        self.database = sqlite3.connect(path, isolation_level=None)
        self.database.execute("CREATE TABLE IF NOT EXISTS calls (uid TEXT PRIMARY KEY, call BLOB)")
        self.database.execute("CREATE TABLE IF NOT EXISTS point (resume_token TEXT)")

    def resume_token(self):
        row = self.database.execute("SELECT resume_token FROM point").fetchone()
        return row and row[0]

    def begin(self):
        if not self.database.in_transaction:
            self.database.execute("BEGIN")

    def clear(self):
        self.database.execute("DELETE FROM calls")

    def put(self, call):
        row = (call.uid, call.SerializeToString())
        self.database.execute("INSERT OR REPLACE INTO calls VALUES (?, ?)", row)

    def remove(self, uid):
        self.database.execute("DELETE FROM calls WHERE uid = ?", (uid,))

    def commit(self, resume_token):
        self.database.execute("DELETE FROM point")
        if resume_token:
            self.database.execute("INSERT INTO point VALUES (?)", (resume_token,))
        self.database.execute("COMMIT")

    def rollback(self):
        if self.database.in_transaction:
            self.database.execute("ROLLBACK")


def apply(copy, response):
    """Applies one message of the stream; answers what there is to print."""
    copy.begin()
    kind = response.WhichOneof("message")
    if kind == "snapshot_chunk":
        # Nothing is committed before the snapshot is complete.
        for call in response.snapshot_chunk.voice_calls:
            copy.put(call)
        return []
    message = getattr(response, kind)
    changes = []
    if kind == "event_batch":
        for event in message.events:
            change = event.change
            if event.type in PUT:
                copy.put(change.voice_call)
            else:
                # EXITED, DELETED and PURGED: it is not in the view any more.
                copy.remove(change.uid)
            changes.append((change.revision, events.VoiceCallEventType.Name(event.type), change.uid))
    copy.commit(message.resume_token)
    return changes


def follow(stub, copy, filter):
    """Follows one stream to its end, which is an error."""
    request = messages.WatchVoiceCallsRequest()
    request.filter.staff_uids[:] = filter
    request.checkpoint_interval.seconds = 1
    if resume_token := copy.resume_token():
        request.resume_token = resume_token
    else:
        request.snapshot.SetInParent()
        copy.begin()
        copy.clear()
    for response in stub.WatchVoiceCalls(request):
        for change in apply(copy, response):
            print(*change, flush=True)
        yield


def main(address, path, *staff_uids):
    stub, copy = common.connect(address), Copy(path)
    delay = 0.1
    while True:
        try:
            for _ in follow(stub, copy, staff_uids):
                delay = 0.1
        except grpc.RpcError as error:
            copy.rollback()
            if common.reason(error) in START_OVER:
                copy.begin()
                copy.commit(None)
            elif error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
        # Not all clients at the same time, and not at once for ever.
        time.sleep(random.uniform(0, delay))
        delay = min(2 * delay, MAX_DELAY)


if __name__ == "__main__":
    main(*sys.argv[1:])
