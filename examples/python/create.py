"""Creates a call and prints it: create.py TARGET FROM_NUMBER"""

import sys
import uuid

from google.protobuf import json_format

import api


def main(target, from_number):
    request = api.messages.CreateVoiceCallRequest(
        voice_call=api.calls.VoiceCall(
            direction=api.calls.VOICE_CALL_DIRECTION_INBOUND,
            from_number=from_number,
        ),
        # Makes every retry safe: those of the service config, and our own.
        request_id=str(uuid.uuid4()),
    )
    client = api.connect(target)
    response = client.CreateVoiceCall(request, timeout=10, metadata=api.metadata())
    print(json_format.MessageToJson(response.voice_call, preserving_proto_field_name=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
