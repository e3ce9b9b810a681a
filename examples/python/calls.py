"""Creates a call and lists the calls of a member of staff.

Usage: calls.py ADDRESS STAFF_UID
"""

import sys
import uuid

import grpc

import common
from common import calls, messages


def main(address, staff_uid):
    stub = common.connect(address)
    # The request id makes the retries safe: whatever becomes of the first attempt,
    # there is one call in the end. Every write should have one.
    created = stub.CreateVoiceCall(
        messages.CreateVoiceCallRequest(
            voice_call=calls.VoiceCall(
                direction=calls.VOICE_CALL_DIRECTION_INBOUND,
                status=calls.VOICE_CALL_STATUS_MISSED,
                from_number="+14155550148",
                staff_uid=staff_uid,
            ),
            request_id=str(uuid.uuid4()),
        )
    ).voice_call
    print("created", created.uid)

    # On any replica the list has the call that was just created.
    request = messages.ListVoiceCallsRequest(min_revision=created.revision)
    request.filter.staff_uids[:] = [staff_uid]
    while True:
        page = stub.ListVoiceCalls(request)
        for call in page.voice_calls:
            status = calls.VoiceCallStatus.Name(call.status)
            print(call.uid, call.created_at.ToJsonString(), status)
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token

    try:
        stub.GetVoiceCall(messages.GetVoiceCallRequest(uid="not a uid"))
    except grpc.RpcError as error:
        print("refused:", common.reason(error), error.details())


if __name__ == "__main__":
    main(*sys.argv[1:])
