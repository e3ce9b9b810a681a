// Creates a call and prints it: node create.js TARGET FROM_NUMBER

import { randomUUID } from "node:crypto";

import { call, connect } from "./api.js";

const [target, from_number] = process.argv.slice(2);
const client = connect(target);
const { voice_call } = await call(client, "CreateVoiceCall", {
  voice_call: { direction: "VOICE_CALL_DIRECTION_INBOUND", from_number },
  // Makes every retry safe: those of the service config, and our own.
  request_id: randomUUID(),
});
console.log(JSON.stringify(voice_call, null, 2));
client.close();
