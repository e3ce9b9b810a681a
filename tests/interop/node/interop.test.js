// The official Node client, with the proto files loaded at run time.
//
// Usage: VOICECALL_ENDPOINT=HOST:PORT node --test interop.test.js

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import test, { after } from "node:test";

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import protobuf from "protobufjs";

const options = { keepCase: true, longs: String, enums: String, includeDirs: [] };
options.includeDirs.push(fileURLToPath(new URL("../../../proto", import.meta.url)));
const { voicecall } = grpc.loadPackageDefinition(
  loadSync("voicecall/v1/voice_call_service.proto", options),
);
const client = new voicecall.v1.VoiceCallService(
  process.env.VOICECALL_ENDPOINT,
  grpc.credentials.createInsecure(),
);
after(() => client.close());

// What errors carry, in as much as is looked at here.
const rpc = protobuf.parse(`
  syntax = "proto3"; package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
  message BadRequest { message FieldViolation { string field = 1; string description = 2; }
    repeated FieldViolation field_violations = 1; }
`, { keepCase: true }).root;

function call(method, request) {
  return new Promise((resolve, reject) =>
    client[method](request, { deadline: Date.now() + 10_000 }, (error, answer) =>
      error ? reject(error) : resolve(answer),
    ),
  );
}

async function refused(method, request, code, reason) {
  const error = await call(method, request).then(
    () => assert.fail(`${method} was not refused`),
    (error) => error,
  );
  assert.equal(error.code, grpc.status[code]);
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  const status = rpc.lookupType("google.rpc.Status").decode(bytes);
  const of = (name) => {
    const detail = status.details.find((one) => one.type_url.endsWith(`/google.rpc.${name}`));
    return detail && rpc.lookupType(`google.rpc.${name}`).decode(detail.value);
  };
  assert.equal(of("ErrorInfo").domain, "voicecall.v1");
  assert.equal(of("ErrorInfo").reason, reason);
  return (of("BadRequest")?.field_violations ?? []).map((violation) => violation.field);
}

const inbound = { direction: "VOICE_CALL_DIRECTION_INBOUND" };

test("a call is created, read, corrected and listed", async () => {
  const staff_uid = randomUUID();
  const request = { voice_call: { ...inbound, staff_uid, duration: 120 }, request_id: randomUUID() };
  const { voice_call: created } = await call("CreateVoiceCall", request);
  assert.equal(created.status, "VOICE_CALL_STATUS_INCOMING_CALL");
  assert.deepEqual((await call("CreateVoiceCall", request)).voice_call, created);
  const { voice_call: read } = await call("GetVoiceCall", {
    uid: created.uid,
    min_revision: created.revision,
  });
  assert.deepEqual(read, created);
  const { voice_call: updated } = await call("UpdateVoiceCall", {
    voice_call: { uid: created.uid, status: "VOICE_CALL_STATUS_MISSED" },
    expected_revision: created.revision,
  });
  assert.equal(updated.status, "VOICE_CALL_STATUS_MISSED");
  assert.ok(BigInt(updated.revision) > BigInt(created.revision));
  const { voice_calls: listed } = await call("ListVoiceCalls", {
    filter: { staff_uids: [staff_uid], handled: false },
  });
  assert.deepEqual(listed, [updated]);
});

test("absent fields stay absent", async () => {
  const { voice_call } = await call("CreateVoiceCall", { voice_call: { ...inbound, staff_uid: "" } });
  for (const field of ["duration", "staff_uid", "call_summary", "handled_at", "deleted_at"]) {
    assert.equal(voice_call[field] ?? undefined, undefined, field);
  }
});

test("an error names its reason and every field at fault", async () => {
  const voice_call = { uid: "nonsense", duration: -1 };
  const paths = await refused(
    "CreateVoiceCall",
    { voice_call },
    "INVALID_ARGUMENT",
    "INVALID_FIELD",
  );
  assert.deepEqual(paths.sort(), [
    "voice_call.direction",
    "voice_call.duration",
    "voice_call.uid",
  ]);
  await refused("GetVoiceCall", { uid: randomUUID() }, "NOT_FOUND", "CALL_NOT_FOUND");
});
