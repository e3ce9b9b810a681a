// Creates a call and lists the calls of a member of staff.
//
// Usage: node calls.js ADDRESS STAFF_UID

import { randomUUID } from "node:crypto";
import { ask, connect } from "./voicecall.js";

const [address, staffUid] = process.argv.slice(2);
const client = connect(address);

// The request id makes the retries safe: whatever becomes of the first attempt,
// there is one call in the end. Every write should have one.
const { voice_call: created } = await ask(client, "CreateVoiceCall", {
  voice_call: {
    direction: "VOICE_CALL_DIRECTION_INBOUND",
    status: "VOICE_CALL_STATUS_MISSED",
    from_number: "+14155550148",
    staff_uid: staffUid,
  },
  request_id: randomUUID(),
});
console.log("created", created.uid);

// On any replica the list has the call that was just created.
const request = { filter: { staff_uids: [staffUid] }, min_revision: created.revision };
do {
  const page = await ask(client, "ListVoiceCalls", request);
  for (const call of page.voice_calls) {
    console.log(call.uid, call.status);
  }
  request.page_token = page.next_page_token;
} while (request.page_token);
client.close();
