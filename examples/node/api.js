// Shared by the examples: the API loaded from proto/, a client, and the reasons of
// errors.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import protobuf from "protobufjs";

const path = (name) => fileURLToPath(new URL(`../../${name}`, import.meta.url));

// 64-bit numbers as strings: a JavaScript number cannot hold them all.
const { voicecall } = grpc.loadPackageDefinition(
  loadSync("voicecall/v1/voice_call_service.proto", {
    keepCase: true,
    longs: String,
    enums: String,
    arrays: true,
    includeDirs: [path("proto")],
  }),
);

// A client of the replicas at `target`, such as `localhost:50051`, a DNS name with
// an address for each of them, or `ipv4:10.0.0.1:50051,10.0.0.2:50051`.
export function connect(target) {
  const authority = process.env.VOICECALL_CA_CERT;
  const credentials = authority
    ? grpc.credentials.createSsl(readFileSync(authority))
    : grpc.credentials.createInsecure();
  return new voicecall.v1.VoiceCallService(target, credentials, {
    "grpc.service_config": readFileSync(path("examples/service_config.json"), "utf8"),
    // Detects a connection that broke silently.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    // Finds a replica that has come back soon.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 10_000,
  });
}

// What a request carries to say who is calling: the token in the file that
// VOICECALL_TOKEN_FILE names. Read for each request, so that a new one counts at once.
export function metadata() {
  const metadata = new grpc.Metadata();
  const file = process.env.VOICECALL_TOKEN_FILE;
  if (file) metadata.set("authorization", `Bearer ${readFileSync(file, "utf8").trim()}`);
  return metadata;
}

// Calls a unary method.
export function call(client, method, request) {
  return new Promise((resolve, reject) =>
    client[method](request, metadata(), (error, response) =>
      error ? reject(error) : resolve(response),
    ),
  );
}

// The part of google/rpc/*.proto that is needed here.
const rpc = protobuf.parse(
  `syntax = "proto3"; package google.rpc;
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; }`,
  { keepCase: true },
).root;

// The name of the service's reason, or undefined if the error did not come from the
// service.
export function reason(error) {
  const [bytes] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (!bytes) return undefined;
  const { details } = rpc.lookupType("google.rpc.Status").decode(bytes);
  const info = details.find((one) => one.type_url.endsWith("/google.rpc.ErrorInfo"));
  return info && rpc.lookupType("google.rpc.ErrorInfo").decode(info.value).reason;
}
