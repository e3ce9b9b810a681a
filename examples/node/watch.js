// Keeps a copy of all calls in a JSON file, and prints each change once.
//
//   node watch.js TARGET FILE
//
// After a restart it continues where it was. docs/consumers.md explains why it is written
// this way. A copy of more than a few thousand calls belongs in a database, as in
// ../python/watch.py: here each batch writes the whole file.

import { closeSync, existsSync, fsyncSync, openSync } from "node:fs";
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

import grpc from "@grpc/grpc-js";

import { connect, metadata, reason } from "./api.js";

// The stored token is of no use any more: start again with a snapshot.
const START_OVER = new Set([
  "REVISION_COMPACTED",
  "REVISION_AHEAD",
  "FEED_RESET",
  "WATCHER_TOO_SLOW",
  "INVALID_RESUME_TOKEN",
]);
// A mistake of ours, which the next attempt would repeat, as it would MESSAGE_TOO_LARGE. All
// other errors may pass, and so does TOKEN_EXPIRED: the next attempt reads the token again.
const GIVE_UP = new Set([
  grpc.status.INVALID_ARGUMENT,
  grpc.status.UNAUTHENTICATED,
  grpc.status.PERMISSION_DENIED,
  grpc.status.UNIMPLEMENTED,
]);
const PUT = new Set(["VOICE_CALL_EVENT_TYPE_ENTERED", "VOICE_CALL_EVENT_TYPE_UPDATED"]);

const [target, file] = process.argv.slice(2);
const client = connect(target);

// The calls and the resume token: one file, so that both change or neither does.
let copy = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : { calls: {} };

function store() {
  const next = `${file}.next`;
  const handle = openSync(next, "w");
  writeFileSync(handle, JSON.stringify(copy));
  fsyncSync(handle);
  closeSync(handle);
  renameSync(next, file);
}

// The calls of an incomplete snapshot; the old copy stays until it is complete.
let snapshot = {};

function apply({ snapshot_chunk, snapshot_complete, event_batch, checkpoint }) {
  if (snapshot_chunk) {
    for (const call of snapshot_chunk.voice_calls) snapshot[call.uid] = call;
  } else if (snapshot_complete) {
    copy = { token: snapshot_complete.resume_token, calls: snapshot };
    store();
    console.log(`snapshot at ${snapshot_complete.revision ?? 0}`);
  } else if (event_batch) {
    for (const { type, change } of event_batch.events) {
      if (PUT.has(type)) copy.calls[change.uid] = change.voice_call;
      else delete copy.calls[change.uid];
    }
    copy.token = event_batch.resume_token;
    store();
    for (const { type, change } of event_batch.events) {
      console.log(change.revision, type.replace("VOICE_CALL_EVENT_TYPE_", ""), change.uid);
    }
  } else if (checkpoint) {
    copy.token = checkpoint.resume_token;
    store();
  }
}

for (let failures = 0; ; failures = Math.min(failures + 1, 10)) {
  const start = copy.token ? { resume_token: copy.token } : { snapshot: {} };
  snapshot = {};
  try {
    for await (const message of client.WatchVoiceCalls(start, metadata())) {
      apply(message);
      failures = 0;
    }
  } catch (error) {
    const why = reason(error);
    console.error(`${grpc.status[error.code]}: ${why ?? error.details}`);
    if (START_OVER.has(why)) delete copy.token;
    else if (!(error.code in grpc.status) || why === "MESSAGE_TOO_LARGE") throw error;
    else if (GIVE_UP.has(error.code) && why !== "TOKEN_EXPIRED") throw error;
  }
  // Consumers that lost the same server must not all come back at once.
  await sleep(Math.random() * Math.min(10_000, 100 * 2 ** failures));
}
