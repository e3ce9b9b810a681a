"""Keeps a copy of all calls in a SQLite file, and prints each change once.

    watch.py TARGET FILE

After a restart it continues where it was. docs/consumers.md explains why it is
written this way.
"""

import json
import random
import sqlite3
import sys
import time

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import api

# The stored token is of no use any more: start again with a snapshot.
START_OVER = {
    "REVISION_COMPACTED",
    "REVISION_AHEAD",
    "FEED_RESET",
    "WATCHER_TOO_SLOW",
    "INVALID_RESUME_TOKEN",
}
# A mistake of ours, which the next attempt would repeat, as it would MESSAGE_TOO_LARGE. All
# other errors may pass, and so does TOKEN_EXPIRED: the next attempt reads the token again.
GIVE_UP = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
}
PUT = {
    api.events.VOICE_CALL_EVENT_TYPE_ENTERED,
    api.events.VOICE_CALL_EVENT_TYPE_UPDATED,
}


class Copy:
    """The calls and the resume token, which change together or not at all."""

    def __init__(self, path):
        self.db = sqlite3.connect(path, isolation_level=None)
        # Purged calls must not linger in the file.
        self.db.execute("PRAGMA secure_delete = ON")
        self.db.execute("CREATE TABLE IF NOT EXISTS calls (uid TEXT PRIMARY KEY, call TEXT)")
        self.db.execute("CREATE TABLE IF NOT EXISTS place (token TEXT)")

    def token(self):
        row = self.db.execute("SELECT token FROM place").fetchone()
        return row[0] if row else None

    def forget_token(self):
        self.db.execute("DELETE FROM place")

    def begin(self):
        if not self.db.in_transaction:
            self.db.execute("BEGIN IMMEDIATE")

    def begin_snapshot(self):
        # Until the snapshot is complete, readers of the file see the old copy.
        if not self.db.in_transaction:
            self.begin()
            self.db.execute("DELETE FROM calls")

    def put(self, call):
        text = json.dumps(json_format.MessageToDict(call, preserving_proto_field_name=True))
        self.db.execute("INSERT OR REPLACE INTO calls VALUES (?, ?)", (call.uid, text))

    def remove(self, uid):
        self.db.execute("DELETE FROM calls WHERE uid = ?", (uid,))

    def commit(self, token):
        self.begin()
        self.db.execute("DELETE FROM place")
        self.db.execute("INSERT INTO place VALUES (?)", (token,))
        self.db.execute("COMMIT")

    def rollback(self):
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")


def apply(message, copy):
    """Applies one message, and returns the events to report."""
    match message.WhichOneof("message"):
        case "snapshot_chunk":
            copy.begin_snapshot()
            for call in message.snapshot_chunk.voice_calls:
                copy.put(call)
        case "snapshot_complete":
            copy.begin_snapshot()
            copy.commit(message.snapshot_complete.resume_token)
            print(f"snapshot at {message.snapshot_complete.revision}", flush=True)
        case "event_batch":
            copy.begin()
            for event in message.event_batch.events:
                if event.type in PUT:
                    copy.put(event.change.voice_call)
                else:
                    copy.remove(event.change.uid)
            copy.commit(message.event_batch.resume_token)
            return message.event_batch.events
        case "checkpoint":
            copy.commit(message.checkpoint.resume_token)
    return []


def report(events):
    for event in events:
        name = api.events.VoiceCallEventType.Name(event.type)
        word = name.removeprefix("VOICE_CALL_EVENT_TYPE_")
        print(event.change.revision, word, event.change.uid, flush=True)


def reason(error):
    """The name of the service's reason, or None if the error did not come from the service."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason
    return None


def watch(client, copy):
    failures = 0
    while True:
        request = api.messages.WatchVoiceCallsRequest()
        if token := copy.token():
            request.resume_token = token
        else:
            request.snapshot.SetInParent()
        try:
            for message in client.WatchVoiceCalls(request, metadata=api.metadata()):
                report(apply(message, copy))
                failures = 0
        except grpc.RpcError as error:
            why = reason(error)
            print(f"{error.code().name}: {why or error.details()}", file=sys.stderr)
            if why in START_OVER:
                copy.forget_token()
            elif why == "MESSAGE_TOO_LARGE":
                raise
            elif error.code() in GIVE_UP and why != "TOKEN_EXPIRED":
                raise
        copy.rollback()
        # Consumers that lost the same server must not all come back at once.
        time.sleep(random.uniform(0, min(10, 0.1 * 2**failures)))
        failures = min(failures + 1, 10)


if __name__ == "__main__":
    target, path = sys.argv[1:]
    try:
        watch(api.connect(target), Copy(path))
    except KeyboardInterrupt:
        pass
