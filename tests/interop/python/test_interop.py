"""The official Python client, which knows the API through reflection alone.

Usage: test_interop.py HOST:PORT
"""

import sys
import unittest
import uuid

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status

SERVICE = "voicecall.v1.VoiceCallService"
ENDPOINT = ""
MEBIBYTE = 1024 * 1024


class Api:
    """Calls methods by name, with requests as keyword arguments."""

    def __init__(self, endpoint):
        self.channel = grpc.insecure_channel(endpoint)
        self.read_descriptors()

    def read_descriptors(self):
        self.reflection = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = descriptor_pool.DescriptorPool(self.reflection)
        self.service = self.pool.FindServiceByName(SERVICE)

    def message(self, name, **fields):
        descriptor = self.pool.FindMessageTypeByName(name)
        return message_factory.GetMessageClass(descriptor)(**fields)

    def call(self, method, timeout=10, options=None, **fields):
        request, parse = self.types(method)
        return self.raw(
            f"/{SERVICE}/{method}",
            request(**fields).SerializeToString(),
            timeout,
            parse,
            **(options or {}),
        )

    def types(self, method):
        """The class of a method's requests, and what parses its responses."""
        descriptor = self.service.methods_by_name[method]
        request = message_factory.GetMessageClass(descriptor.input_type)
        return request, message_factory.GetMessageClass(descriptor.output_type).FromString

    def raw(self, path, request, timeout=10, parse=bytes, **options):
        invoke = self.channel.unary_unary(
            path, request_serializer=bytes, response_deserializer=parse
        )
        return invoke(request, timeout=timeout, **options)


def facts(error):
    """What an error says to programs: code, reason, metadata, paths at fault."""
    status = rpc_status.from_call(error)
    reason, metadata, paths = None, {}, []
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        bad_request = error_details_pb2.BadRequest()
        if detail.Unpack(info):
            assert info.domain == "voicecall.v1", info.domain
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad_request):
            paths = [violation.field for violation in bad_request.field_violations]
    return error.code().name, reason, metadata, paths


def reference():
    time = {"seconds": 1626789600}
    uid = "d290f1ee-6c54-4b01-90e6-d701748f0851"
    return {
        "uid": uid,
        "created_at": time,
        "duration": 120,
        "status": "VOICE_CALL_STATUS_ANSWERED_BY_STAFF",
        "direction": "VOICE_CALL_DIRECTION_INBOUND",
        "staff_uid": uid,
        "client_uid": uid,
        "from_number": "183466347342",
        "to_number": "183466347342",
        "recording_url": "https://example.com/recording.mp3",
        "call_summary": "Client called to ask about their account balance",
        "external_app_url": "https://example.com/call-details",
        "handled_by_staff_uid": uid,
        "handled_at": time,
    }


def inbound(**fields):
    return {"direction": "VOICE_CALL_DIRECTION_INBOUND", **fields}


class Interop(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.api = Api(ENDPOINT)

    def refused(self, method, code, reason, paths=(), **fields):
        with self.assertRaises(grpc.RpcError) as raised:
            self.api.call(method, **fields)
        got_code, got_reason, metadata, got_paths = facts(raised.exception)
        self.assertEqual((got_code, got_reason), (code, reason))
        self.assertEqual(got_paths, list(paths))
        return metadata

    def create(self, **fields):
        return self.api.call("CreateVoiceCall", voice_call=inbound(**fields)).voice_call

    def test_the_reference_example_comes_back_value_for_value(self):
        created = self.api.call("CreateVoiceCall", voice_call=reference()).voice_call
        read = self.api.call("GetVoiceCall", uid=reference()["uid"].upper()).voice_call
        self.assertEqual(read, created)
        read.ClearField("updated_at")
        read.ClearField("revision")
        self.assertEqual(read, self.api.message("voicecall.v1.VoiceCall", **reference()))

    def test_a_repeat_answers_the_same_and_a_reused_request_id_is_refused(self):
        request_id = str(uuid.uuid4())
        first = self.api.call("CreateVoiceCall", voice_call=inbound(), request_id=request_id)
        again = self.api.call("CreateVoiceCall", voice_call=inbound(), request_id=request_id)
        self.assertEqual(first, again)
        self.refused(
            "CreateVoiceCall",
            "INVALID_ARGUMENT",
            "REQUEST_ID_REUSED",
            voice_call=inbound(duration=1),
            request_id=request_id,
        )

    def test_all_violations_come_at_once_by_path(self):
        self.refused(
            "CreateVoiceCall",
            "INVALID_ARGUMENT",
            "INVALID_FIELD",
            [
                "voice_call.direction",
                "voice_call.from_number",
                "voice_call.recording_url",
                "voice_call.duration",
            ],
            voice_call={
                "duration": -1,
                "from_number": "a\0b",
                "recording_url": "recording.mp3",
            },
        )

    def test_an_update_by_mask_clears_what_is_unset(self):
        call = self.create(staff_uid="a", call_summary="b")
        updated = self.api.call(
            "UpdateVoiceCall",
            voice_call={"uid": call.uid, "duration": 7},
            update_mask={"paths": ["duration", "call_summary"]},
            expected_revision=call.revision,
        ).voice_call
        self.assertEqual((updated.duration, updated.staff_uid), (7, "a"))
        self.assertFalse(updated.HasField("call_summary"))
        metadata = self.refused(
            "UpdateVoiceCall",
            "ABORTED",
            "REVISION_MISMATCH",
            voice_call={"uid": call.uid, "duration": 8},
            expected_revision=call.revision,
        )
        self.assertEqual(metadata["current_revision"], str(updated.revision))

    def test_a_call_is_handled_deleted_and_undeleted(self):
        uid = self.create().uid
        self.api.call("HandleVoiceCall", uid=uid, handled_by_staff_uid="a")
        self.refused(
            "HandleVoiceCall",
            "FAILED_PRECONDITION",
            "ALREADY_HANDLED",
            uid=uid,
            handled_by_staff_uid="b",
        )
        deleted = self.api.call("DeleteVoiceCall", uid=uid).voice_call
        self.assertTrue(deleted.HasField("deleted_at"))
        self.refused("DeleteVoiceCall", "FAILED_PRECONDITION", "CALL_DELETED", uid=uid)
        restored = self.api.call("UndeleteVoiceCall", uid=uid).voice_call
        self.assertFalse(restored.HasField("deleted_at"))
        self.refused("UndeleteVoiceCall", "ALREADY_EXISTS", "CALL_NOT_DELETED", uid=uid)

    def test_batches_and_pages_cover_each_call_once(self):
        staff = uuid.uuid4().hex
        created = self.api.call(
            "BatchCreateVoiceCalls", voice_calls=[inbound(staff_uid=staff)] * 25
        ).voice_calls
        wanted = [call.uid for call in created]
        missing = str(uuid.uuid4())
        got = self.api.call("BatchGetVoiceCalls", uids=wanted + [missing])
        self.assertEqual([call.uid for call in got.voice_calls], wanted)
        self.assertEqual(list(got.missing_uids), [missing])

        seen, token = [], ""
        while True:
            page = self.api.call(
                "ListVoiceCalls",
                filter={"staff_uids": [staff]},
                page_size=10,
                page_token=token,
            )
            seen += [call.uid for call in page.voice_calls]
            self.assertGreaterEqual(page.revision, created[-1].revision)
            token = page.next_page_token
            if not token:
                break
            flipped = ("B" if token[5] == "A" else "A").join((token[:5], token[6:]))
            self.refused(
                "ListVoiceCalls",
                "INVALID_ARGUMENT",
                "INVALID_PAGE_TOKEN",
                filter={"staff_uids": [staff]},
                page_token=flipped,
            )
        self.assertEqual(sorted(seen), sorted(wanted))

    def test_a_deadline_that_passes_leaves_the_connection_alive(self):
        with self.assertRaises(grpc.RpcError) as raised:
            self.api.call("ListVoiceCalls", timeout=0.000001)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.create()

    def test_bytes_that_are_no_message_leave_the_connection_alive(self):
        for path, request, expected in [
            ("CreateVoiceCall", b"\xff\xff\xff", ("INVALID_ARGUMENT", "MALFORMED_MESSAGE")),
            ("NoSuchMethod", b"", ("UNIMPLEMENTED", "UNKNOWN_METHOD")),
            ("GetVoiceCall", bytes(5 * MEBIBYTE), ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")),
        ]:
            with self.assertRaises(grpc.RpcError) as raised:
                self.api.raw(f"/{SERVICE}/{path}", request)
            self.assertEqual(facts(raised.exception)[:2], expected)
        self.create()

    def test_compressed_requests_are_accepted(self):
        summary = "Asked for a new appointment. " * 50
        call = self.api.call(
            "CreateVoiceCall",
            options={"compression": grpc.Compression.Gzip},
            voice_call=inbound(call_summary=summary),
        ).voice_call
        self.assertEqual(call.call_summary, summary)

    def test_too_much_metadata_is_refused_with_a_reason(self):
        for size, expected in [
            (20 * 1024, ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")),
            (60 * 1024, ("RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE")),
        ]:
            with self.assertRaises(grpc.RpcError) as raised:
                metadata = [("x-long", "a" * size)]
                self.api.call("ListVoiceCalls", options={"metadata": metadata})
            self.assertEqual(facts(raised.exception)[:2], expected)

    def test_fan_outs_that_are_cancelled_leave_a_watch_on_the_connection_alive(self):
        request, parse = self.api.types("WatchVoiceCalls")
        watch = self.api.channel.unary_stream(
            f"/{SERVICE}/WatchVoiceCalls",
            request_serializer=bytes,
            response_deserializer=parse,
        )
        staff = uuid.uuid4().hex
        wanted = request(filter={"staff_uids": [staff]}, live={})
        messages = watch(wanted.SerializeToString(), timeout=60)
        self.assertTrue(next(messages).HasField("checkpoint"))
        request, _ = self.api.types("GetVoiceCall")
        look_up = request(uid=str(uuid.uuid4())).SerializeToString()
        invoke = self.api.channel.unary_unary(
            f"/{SERVICE}/GetVoiceCall", request_serializer=bytes
        )
        for _ in range(30):
            calls = [invoke.future(look_up, timeout=10) for _ in range(50)]
            for call in calls:
                call.cancel()
        created = self.create(staff_uid=staff)
        message = next(message for message in messages if message.HasField("event_batch"))
        self.assertEqual(message.event_batch.events[0].change.uid, created.uid)

    def test_a_missing_call_is_named(self):
        uid = str(uuid.uuid4())
        metadata = self.refused("GetVoiceCall", "NOT_FOUND", "CALL_NOT_FOUND", uid=uid)
        self.assertEqual(metadata, {"uid": uid})

    def test_health_is_serving(self):
        check = self.api.pool.FindMethodByName("grpc.health.v1.Health.Check")
        for service in ["", SERVICE, "liveness"]:
            request = message_factory.GetMessageClass(check.input_type)(service=service)
            answer = self.api.raw(
                "/grpc.health.v1.Health/Check",
                request.SerializeToString(),
                parse=message_factory.GetMessageClass(check.output_type).FromString,
            )
            self.assertEqual(answer.status, 1)

    def test_reflection_knows_what_errors_carry(self):
        self.assertIn(SERVICE, self.api.reflection.get_services())
        for name in [
            "google.rpc.ErrorInfo",
            "google.rpc.BadRequest",
            "google.rpc.RetryInfo",
            "google.protobuf.Timestamp",
            "google.protobuf.FieldMask",
        ]:
            self.assertEqual(self.api.pool.FindMessageTypeByName(name).full_name, name)


if __name__ == "__main__":
    ENDPOINT = sys.argv.pop(1)
    unittest.main(verbosity=2)
