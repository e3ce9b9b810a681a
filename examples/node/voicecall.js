// What the examples share: a client, and the reason of an error.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const file = (path) => fileURLToPath(new URL(`../../${path}`, import.meta.url));

const definition = protoLoader.loadSync("voicecall/v1/voice_call_service.proto", {
  includeDirs: [file("proto")],
  keepCase: true,
  longs: String,
  enums: String,
  oneofs: true,
});
const { VoiceCallService } = grpc.loadPackageDefinition(definition).voicecall.v1;

// A client that retries and balances as service_config.json says.
export function connect(address) {
  return new VoiceCallService(address, grpc.credentials.createInsecure(), {
    "grpc.service_config": readFileSync(file("examples/service_config.json"), "utf8"),
    // Finds out that the other end is gone when nothing says so.
    "grpc.keepalive_time_ms": 20_000,
    "grpc.keepalive_timeout_ms": 10_000,
  });
}

// Calls a method that has one answer.
export function ask(client, method, request) {
  return new Promise((resolve, reject) => {
    client[method](request, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

// Whether the service sent this error for one of these reasons. The name of the
// reason stands in the details, whose type the loader does not know.
export function isFor(error, reasons) {
  const [details] = error.metadata?.get("grpc-status-details-bin") ?? [];
  return reasons.some((reason) => details?.includes(`${reason}\x12`));
}
