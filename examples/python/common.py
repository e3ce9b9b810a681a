"""What the examples share: the API, a channel to it, and the reason of an error."""

import sys
from pathlib import Path

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

ROOT = Path(__file__).resolve().parents[2]
PROTO = "voicecall/v1/voice_call_service.proto"

# The classes are made of the proto files when this is imported.
sys.path.append(str(ROOT / "proto"))
messages, services = grpc.protos_and_services(PROTO)
calls = grpc.protos("voicecall/v1/voice_call.proto")
events = grpc.protos("voicecall/v1/voice_call_event.proto")


def connect(address):
    """A stub that retries, balances and checks health as service_config.json says."""
    options = [
        ("grpc.service_config", (ROOT / "examples/service_config.json").read_text()),
        # Finds out that the other end is gone when nothing says so.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]
    channel = grpc.insecure_channel(address, options)
    return services.VoiceCallServiceStub(channel)


def reason(error):
    """The ErrorReason of an error; None if the service did not send it."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason
    return None
