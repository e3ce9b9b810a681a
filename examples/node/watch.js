// Keeps a copy of the calls that a filter matches, through anything.
//
// Usage: node watch.js ADDRESS FILE [STAFF_UID]
//
// The copy is in a file, together with the point up to which it is complete: both
// change at once, because the file is replaced as a whole. So whatever ends this
// program, it goes on where it was. Each change is printed once.

import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import grpc from "@grpc/grpc-js";
import { connect, isFor } from "./voicecall.js";

// The point is not in the log any more, or is of another log: only a new snapshot
// helps. After any UNAVAILABLE the same point will do, on any replica.
const START_OVER = [
  "REVISION_COMPACTED",
  "REVISION_AHEAD",
  "FEED_RESET",
  "WATCHER_TOO_SLOW",
  "INVALID_RESUME_TOKEN",
];
const PUT = ["VOICE_CALL_EVENT_TYPE_ENTERED", "VOICE_CALL_EVENT_TYPE_UPDATED"];
const MAX_DELAY = 10_000;

const [address, path, ...staffUids] = process.argv.slice(2);

function load() {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
    return { resumeToken: null, calls: {} };
  }
}

function save(copy) {
  writeFileSync(`${path}.new`, JSON.stringify(copy));
  renameSync(`${path}.new`, path);
}

// Applies one message of the stream to a copy that is not saved yet.
function apply(copy, response) {
  const message = response[response.message];
  for (const call of message.voice_calls ?? []) copy.calls[call.uid] = call;
  for (const { type, change } of message.events ?? []) {
    if (PUT.includes(type)) copy.calls[change.uid] = change.voice_call;
    // EXITED, DELETED and PURGED: it is not in the view any more.
    else delete copy.calls[change.uid];
  }
  // A snapshot is nothing before it is complete.
  if (response.message === "snapshot_chunk") return;
  copy.resumeToken = message.resume_token;
  save(copy);
  for (const { type, change } of message.events ?? []) {
    console.log(change.revision, type, change.uid);
  }
}

const client = connect(address);
let delay = 100;
for (;;) {
  let copy = load();
  if (!copy.resumeToken) copy = { resumeToken: null, calls: {} };
  const start = copy.resumeToken ? { resume_token: copy.resumeToken } : { snapshot: {} };
  try {
    const stream = client.WatchVoiceCalls({
      filter: { staff_uids: staffUids },
      checkpoint_interval: { seconds: 1 },
      ...start,
    });
    for await (const response of stream) {
      apply(copy, response);
      delay = 100;
    }
  } catch (error) {
    if (isFor(error, START_OVER)) save({ ...load(), resumeToken: null });
    else if (error.code !== grpc.status.UNAVAILABLE) throw error;
  }
  // Not all clients at the same time, and not at once for ever.
  await sleep(Math.random() * delay);
  delay = Math.min(2 * delay, MAX_DELAY);
}
