"""Lists the missed calls that nobody has handled, one per line: list.py TARGET"""

import sys

import api


def pages(client, request):
    """All calls of a list. A page may be short, or even empty, without being the last."""
    while True:
        page = client.ListVoiceCalls(request, timeout=10, metadata=api.metadata())
        yield from page.voice_calls
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def main(target):
    request = api.messages.ListVoiceCallsRequest(
        filter=api.filters.VoiceCallFilter(
            statuses=[api.calls.VOICE_CALL_STATUS_MISSED],
            handled=False,
        ),
        page_size=1000,
    )
    for call in pages(api.connect(target), request):
        print(call.uid, call.created_at.ToJsonString(), call.from_number)


if __name__ == "__main__":
    main(*sys.argv[1:])
