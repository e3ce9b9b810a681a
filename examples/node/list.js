// Lists the missed calls that nobody has handled, one per line: node list.js TARGET

import { call, connect } from "./api.js";

const client = connect(process.argv[2]);

// All calls of a list. A page may be short, or even empty, without being the last.
async function* list(request) {
  let page_token = "";
  do {
    const page = await call(client, "ListVoiceCalls", { ...request, page_token });
    yield* page.voice_calls;
    page_token = page.next_page_token;
  } while (page_token);
}

const filter = { statuses: ["VOICE_CALL_STATUS_MISSED"], handled: false };
for await (const { uid, created_at, from_number } of list({ filter, page_size: 1000 })) {
  console.log(uid, new Date(created_at.seconds * 1000).toISOString(), from_number ?? "");
}
client.close();
