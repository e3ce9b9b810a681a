"""Shared by the examples: the API as modules generated from proto/, and a client."""

import os
import pathlib
import sys

import grpc

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "proto"))

# A larger program generates these when it is built, with
#   python -m grpc_tools.protoc -I proto --python_out=. --grpc_python_out=. ...
calls = grpc.protos("voicecall/v1/voice_call.proto")
events = grpc.protos("voicecall/v1/voice_call_event.proto")
filters = grpc.protos("voicecall/v1/voice_call_filter.proto")
messages, services = grpc.protos_and_services("voicecall/v1/voice_call_service.proto")


def connect(target):
    """A client of the replicas at `target`, such as `localhost:50051`, a DNS name
    with an address for each of them, or `ipv4:10.0.0.1:50051,10.0.0.2:50051`."""
    options = [
        ("grpc.service_config", (ROOT / "examples/service_config.json").read_text()),
        # Detects a connection that broke silently.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # Finds a replica that has come back soon.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 10_000),
    ]
    if path := os.environ.get("VOICECALL_CA_CERT"):
        credentials = grpc.ssl_channel_credentials(pathlib.Path(path).read_bytes())
        channel = grpc.secure_channel(target, credentials, options=options)
    else:
        channel = grpc.insecure_channel(target, options=options)
    return services.VoiceCallServiceStub(channel)


def metadata():
    """What a request carries to say who is calling: the token in the file that
    VOICECALL_TOKEN_FILE names. Read for each request, so that a new one counts at once."""
    if path := os.environ.get("VOICECALL_TOKEN_FILE"):
        return [("authorization", f"Bearer {pathlib.Path(path).read_text().strip()}")]
    return []
