"""Every RPC, by every kind of caller, of every kind of call, over TLS, by the official client.

Usage: test_authorisation.py PROGRAM DATABASE_URL

Which calls a caller sees is computed here, by the rule in docs/security.md. What each RPC then does
stands in the rows: an RPC of the service's descriptor without a row fails the test.
"""

import hashlib
import json
import sys
import tempfile
import unittest
import uuid

import grpc
from cryptography import x509
from google.protobuf import message_factory
from grpc_status import rpc_status

import test_credentials
from test_credentials import AUDIENCE, ISSUER, MISSING, Authority, Key, SecureApi, Server
from test_credentials import bearer, pem
from test_interop import SERVICE, facts, inbound

READ, WRITE, PURGE = "calls:read", "calls:write", "calls:purge"
ALL = [READ, WRITE, PURGE]
NOT_FOUND = ("NOT_FOUND", "CALL_NOT_FOUND")
PURGED = ("NOT_FOUND", "CALL_PURGED")
UID_PURGED = ("ALREADY_EXISTS", "CALL_PURGED")
OUT_OF_SCOPE = ("PERMISSION_DENIED", "OUT_OF_SCOPE")
SCOPE_MISSING = ("PERMISSION_DENIED", "SCOPE_MISSING")
ALREADY_HANDLED = ("FAILED_PRECONDITION", "ALREADY_HANDLED")
OK = "OK"

# The calls, as narrowed callers see them: those are of staff "ann" and of client "carl".
OWN = {"staff_uid": "ann", "client_uid": "carl"}
OTHERS = {"staff_uid": "bob", "handled_by_staff_uid": "bob", "client_uid": "dora"}
CALLS = {
    "own": OWN,
    "own by handling": {"staff_uid": "bob", "handled_by_staff_uid": "ann", "client_uid": "carl"},
    "another's": OTHERS,
    "another client's": {"staff_uid": "ann", "client_uid": "dora"},
    "another member's": {"staff_uid": "bob", "client_uid": "carl"},
    "unassigned": {"client_uid": "carl"},
    "unassigned, of nobody": {},
    "handled, nobody knows by whom": {"handled_at": {"seconds": 1}, "client_uid": "carl"},
    "absent": None,
    "purged": None,
}
CALLERS = {
    "read only": ([READ], {}),
    "write only": ([WRITE], {}),
    "purge only": ([PURGE], {}),
    "staff": (ALL, {"staff_uid": "ann"}),
    "staff with unassigned": (ALL, {"staff_uid": "ann", "unassigned": True}),
    "client": (ALL, {"client_uid": "carl"}),
    "both": (ALL, {"staff_uid": "ann", "client_uid": "carl"}),
    "both with unassigned": (ALL, {"staff_uid": "ann", "unassigned": True, "client_uid": "carl"}),
    "full": (ALL, {}),
}


def covers(narrowing, call):
    """Whether a caller with this narrowing sees a call with these fields."""
    staff, client = narrowing.get("staff_uid"), narrowing.get("client_uid")
    if staff is not None:
        people = [call.get("staff_uid"), call.get("handled_by_staff_uid")]
        nobody = people == [None, None] and "handled_at" not in call
        if staff not in people and not (nobody and narrowing.get("unassigned")):
            return False
    return client is None or client == call.get("client_uid")


class Caller:
    def __init__(self, name, scopes, narrowing, metadata):
        self.name, self.scopes, self.narrowing = name, scopes, narrowing
        self.metadata = metadata


class Case:
    """A caller and a call."""

    def __init__(self, caller, kind, uid):
        self.caller, self.kind, self.uid = caller, kind, uid
        self.call = CALLS[kind]
        self.narrowed = bool(caller.narrowing)
        self.sees = self.call is not None and covers(caller.narrowing, self.call)

    def refusal(self):
        """Why there is nothing to read or to write; None if there is."""
        if self.sees:
            return None
        return PURGED if self.kind == "purged" and not self.narrowed else NOT_FOUND

    def seen(self):
        return [self.uid] if self.sees else []

    def only(self):
        return {"uids": [self.uid], "show_deleted": True}


ROWS = []


def row(rpc, scope, name="", changes=False, deleted=False):
    """A request, the outcome that is expected, and what is looked at in the response; `changes`:
    it needs calls of its own, which are `deleted` before."""

    def add(function):
        ROWS.append((rpc, scope, name, changes, deleted, function))
        return function

    return add


def call_of(response):
    return [response.voice_call.uid] if response.HasField("voice_call") else []


def uids(calls):
    return [call.uid for call in calls]


def done(_):
    return OK


@row("GetVoiceCall", READ)
def get(case):
    return {"uid": case.uid}, case.refusal() or case.seen(), call_of


@row("BatchGetVoiceCalls", READ)
def batch_get(case):
    missing = [] if case.sees else [case.uid]
    look = lambda response: (uids(response.voice_calls), list(response.missing_uids))
    return {"uids": [case.uid]}, (case.seen(), missing), look


@row("ListVoiceCalls", READ)
def list_calls(case):
    return {"filter": case.only()}, case.seen(), lambda response: uids(response.voice_calls)


@row("GetVoiceCallStats", READ)
def stats(case):
    request = {"filter": case.only(), "group_by": ["VOICE_CALL_STATS_GROUP_STAFF"]}
    count = len(case.seen())
    look = lambda response: (response.total_count, len(response.rows))
    return request, (count, count), look


def event_of(event):
    """The type of an event, and the fields that tell something."""
    name = event.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[event.type].name
    fields = sorted(field.name for field, _ in event.change.ListFields())
    return name.rsplit("_", 1)[1], event.change.uid, fields


CREATED = sorted(["revision", "uid", "changed_at", "kind", "voice_call", "actor"])
ERASED = sorted(["revision", "uid", "changed_at", "kind"])


def history_of(case):
    if case.kind == "purged":
        by_whom = [] if case.narrowed else ["actor", "transaction_end"]
        return [("PURGED", case.uid, sorted(ERASED + by_whom))]
    return [("ENTERED", case.uid, CREATED)] if case.sees else []


@row("ListVoiceCallChanges", READ)
def changes(case):
    def look(response):
        found = [event_of(event) for event in response.events]
        # The calls are made in batches, and only the last of each batch ends a transaction.
        return [
            (kind, uid, [field for field in fields if field != "transaction_end"])
            if kind == "ENTERED"
            else (kind, uid, fields)
            for kind, uid, fields in found
        ]

    return {"filter": case.only()}, history_of(case), look


@row("WatchVoiceCalls", READ)
def watch(case):
    def look(stream):
        found = []
        for message in stream:
            if message.HasField("snapshot_complete"):
                return found
            found += uids(message.snapshot_chunk.voice_calls)

    return {"filter": case.only(), "snapshot": {}}, case.seen(), look


@row("ExportVoiceCalls", READ)
def export(case):
    look = lambda stream: [uid for chunk in stream for uid in uids(chunk.voice_calls)]
    return {"filter": case.only()}, case.seen(), look


@row("CreateVoiceCall", WRITE, "such a call", changes=True)
def create(case):
    call = case.call if case.call is not None else OWN
    expected = OK if covers(case.caller.narrowing, call) else OUT_OF_SCOPE
    return {"voice_call": inbound(**call)}, expected, done


@row("CreateVoiceCall", WRITE, "only validated", changes=True)
def validate_create(case):
    request, expected, look = create(case)
    return request | {"validate_only": True}, expected, look


def with_uid(case, taken):
    """What comes of creating a call with the uid of this one, which may be taken."""
    if case.narrowed:
        return OUT_OF_SCOPE
    if case.kind == "purged":
        return UID_PURGED
    return OK if case.kind == "absent" else taken


@row("CreateVoiceCall", WRITE, "with its uid", changes=True)
def create_with_uid(case):
    taken = ("ALREADY_EXISTS", "CALL_ALREADY_EXISTS")
    return {"voice_call": inbound(uid=case.uid, **OWN)}, with_uid(case, taken), done


@row("BatchCreateVoiceCalls", WRITE, "such a call", changes=True)
def batch_create(case):
    request, expected, look = create(case)
    return {"voice_calls": [inbound(**OWN), request["voice_call"]]}, expected, look


@row("BatchCreateVoiceCalls", WRITE, "with its uid", changes=True)
def batch_create_with_uid(case):
    request, expected, look = create_with_uid(case)
    return {"voice_calls": [inbound(**OWN), request["voice_call"]]}, expected, look


@row("UpdateVoiceCall", WRITE, "a field", changes=True)
def update(case):
    request = {"voice_call": {"uid": case.uid, "duration": 7}}
    return request, case.refusal() or case.seen(), call_of


@row("UpdateVoiceCall", WRITE, "only validated", changes=True)
def validate_update(case):
    request, expected, look = update(case)
    return request | {"validate_only": True}, expected, look


@row("UpdateVoiceCall", WRITE, "another revision", changes=True)
def update_revision(case):
    request, _, look = update(case)
    request |= {"expected_revision": 1_000_000_000}
    return request, case.refusal() or ("ABORTED", "REVISION_MISMATCH"), look


@row("UpdateVoiceCall", WRITE, "given away", changes=True)
def give_away(case):
    request = {"voice_call": {"uid": case.uid, **OTHERS}}
    outcome = OUT_OF_SCOPE if case.narrowed else case.seen()
    return request, case.refusal() or outcome, call_of


@row("UpdateVoiceCall", WRITE, "given away, only validated", changes=True)
def validate_giving_away(case):
    request, expected, look = give_away(case)
    return request | {"validate_only": True}, expected, look


@row("UpdateVoiceCall", WRITE, "taken", changes=True)
def take(case):
    request = {"voice_call": {"uid": case.uid, **OWN}}
    return request, case.refusal() or case.seen(), call_of


@row("UpdateVoiceCall", WRITE, "or created", changes=True)
def update_or_create(case):
    request = {"voice_call": inbound(uid=case.uid, **OWN), "allow_missing": True}
    return request, case.seen() or with_uid(case, OK), lambda it: call_of(it) if case.sees else OK


@row("HandleVoiceCall", WRITE, "by oneself", changes=True)
def handle(case):
    request = {"uid": case.uid, "handled_by_staff_uid": "ann"}
    by_others = case.call is not None and case.call.get("handled_by_staff_uid") == "bob"
    return request, case.refusal() or (ALREADY_HANDLED if by_others else case.seen()), call_of


@row("HandleVoiceCall", WRITE, "for another", changes=True)
def handle_for_another(case):
    request = {"uid": case.uid, "handled_by_staff_uid": "bob"}
    if "staff_uid" in case.caller.narrowing:
        return request, OUT_OF_SCOPE, call_of
    by_others = case.call is not None and case.call.get("handled_by_staff_uid") == "ann"
    return request, case.refusal() or (ALREADY_HANDLED if by_others else case.seen()), call_of


@row("DeleteVoiceCall", WRITE, changes=True)
def delete(case):
    return {"uid": case.uid}, case.refusal() or case.seen(), call_of


@row("DeleteVoiceCall", WRITE, "if there", changes=True)
def delete_if_there(case):
    return {"uid": case.uid, "allow_missing": True}, case.seen(), call_of


@row("UndeleteVoiceCall", WRITE, changes=True)
def undelete(case):
    return {"uid": case.uid}, case.refusal() or ("ALREADY_EXISTS", "CALL_NOT_DELETED"), call_of


@row("UndeleteVoiceCall", WRITE, "deleted", changes=True, deleted=True)
def undelete_deleted(case):
    return {"uid": case.uid}, case.refusal() or case.seen(), call_of


@row("GetVoiceCall", READ, "deleted", changes=True, deleted=True)
def get_deleted(case):
    return get(case)


@row("UpdateVoiceCall", WRITE, "deleted", changes=True, deleted=True)
def update_deleted(case):
    request, _, look = update(case)
    return request, case.refusal() or ("FAILED_PRECONDITION", "CALL_DELETED"), look


@row("PurgeVoiceCall", PURGE, changes=True)
def purge(case):
    return {"uid": case.uid}, OUT_OF_SCOPE if case.narrowed else case.refusal() or OK, done


@row("ImportVoiceCalls", WRITE, changes=True)
def import_calls(case):
    policy = "IMPORT_CONFLICT_POLICY_REPLACE"
    record = {"sequence": 1, "voice_call": inbound(uid=case.uid, **OWN)}
    messages = [{"settings": {"conflict_policy": policy}}, {"record": record}]
    result = "error" if case.kind == "purged" else "success"
    look = lambda stream: [message.WhichOneof("result") for message in stream]
    return messages, OUT_OF_SCOPE if case.narrowed else [result], look


class Authorisation(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.TemporaryDirectory()
        authority = Authority("one")
        cls.key = Key("ES256", "one")
        certificate, key = authority.issue(x509.DNSName("localhost"))
        tokens = {name: "vct_" + uuid.uuid4().hex + uuid.uuid4().hex for name in CALLERS}
        files = {
            "cert.pem": certificate,
            "key.pem": key,
            "jwks.json": json.dumps({"keys": [cls.key.public()]}).encode(),
            "policy.toml": cls.policy(tokens).encode(),
        }
        for name, content in files.items():
            with open(f"{cls.dir.name}/{name}", "wb") as file:
                file.write(content)
        cls.server = Server(
            TLS_CERT=f"{cls.dir.name}/cert.pem",
            TLS_KEY=f"{cls.dir.name}/key.pem",
            AUTH_JWKS=f"{cls.dir.name}/jwks.json",
            AUTH_ISSUER=ISSUER,
            AUTH_AUDIENCE=AUDIENCE,
            AUTH_POLICY=f"{cls.dir.name}/policy.toml",
        )
        endpoint = f"localhost:{cls.server.port}"
        cls.api = SecureApi(endpoint, pem(authority.certificate), None, None)
        cls.api.use(grpc.access_token_call_credentials(tokens["full"]))
        cls.callers = [Caller("nobody", None, {}, None)]
        for name, (scopes, narrowing) in CALLERS.items():
            metadata = bearer(tokens[name])
            cls.callers.append(Caller(f"{name}, by policy", scopes, narrowing, metadata))
            if narrowing:
                metadata = bearer(cls.token(name, **narrowing))
                cls.callers.append(Caller(f"{name}, by JWT", scopes, narrowing, metadata))
        cls.full = cls.caller("full, by policy")

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()
        cls.dir.cleanup()

    @classmethod
    def policy(cls, tokens):
        entries = []
        for name, (scopes, narrowing) in CALLERS.items():
            digest = hashlib.sha256(tokens[name].encode()).hexdigest()
            fields = {"name": name, "scopes": scopes, "token_sha256": digest} | narrowing
            # Strings, arrays and booleans of JSON are those of TOML.
            lines = [f"{key} = {json.dumps(value)}\n" for key, value in fields.items()]
            expiry = "expires_at = 2100-01-01T00:00:00Z\n"
            entries.append("[[principal]]\n" + "".join(lines) + expiry)
        return "".join(entries)

    @classmethod
    def token(cls, subject, **claims):
        return cls.key.token(sub=subject, scope=" ".join(ALL), **claims)

    @classmethod
    def caller(cls, name):
        return next(caller for caller in cls.callers if caller.name == name)

    def send(self, caller, rpc, request):
        """The response, or the stream of responses."""
        method = self.api.service.methods_by_name[rpc]
        make = message_factory.GetMessageClass(method.input_type)
        parse = message_factory.GetMessageClass(method.output_type).FromString
        sends, receives = method.client_streaming, method.server_streaming
        kind = f"{'stream' if sends else 'unary'}_{'stream' if receives else 'unary'}"
        invoke = getattr(self.api.channel, kind)(
            f"/{SERVICE}/{rpc}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=parse,
        )
        if sends:
            message = iter([make(**fields) for fields in request])
        else:
            message = make(**request)
        return invoke(message, timeout=20, metadata=caller.metadata)

    def write(self, rpc, **request):
        return self.send(self.full, rpc, request)

    def head(self):
        return self.write("ListVoiceCalls", page_size=1).revision

    def make(self, deleted=False):
        """The uid of a new call of each kind."""
        there = {kind: fields for kind, fields in CALLS.items() if fields is not None}
        calls = [inbound(**fields) for fields in [*there.values(), OWN]]
        made = uids(self.write("BatchCreateVoiceCalls", voice_calls=calls).voice_calls)
        purged = made.pop()
        self.write("PurgeVoiceCall", uid=purged)
        if deleted:
            for uid in made:
                self.write("DeleteVoiceCall", uid=uid)
        return dict(zip(there, made)) | {"absent": str(uuid.uuid4()), "purged": purged}

    def outcome(self, case, rpc, request, look):
        """What came of a request, and of a refusal all that could tell why it was refused."""
        try:
            response = self.send(case.caller, rpc, request)
            found = look(response)
            if hasattr(response, "cancel"):
                response.cancel()
            return found, None
        except grpc.RpcError as error:
            details = [detail.SerializeToString() for detail in rpc_status.from_call(error).details]
            told = (
                error.details().replace(case.uid, "UID"),
                [detail.replace(case.uid.encode(), b"UID") for detail in details],
                sorted(key for key, _ in error.trailing_metadata() or []),
            )
            return facts(error)[:2], told

    def expected(self, caller, scope, expected):
        if caller.scopes is None:
            return MISSING
        return expected if scope in caller.scopes else SCOPE_MISSING

    def test_every_rpc_has_a_row(self):
        rpcs = {method.name for method in self.api.service.methods}
        self.assertEqual(rpcs, {row[0] for row in ROWS})

    def test_the_matrix(self):
        shared, cells = self.make(), 0
        for rpc, scope, name, changes, deleted, make_request in ROWS:
            for caller in self.callers:
                kinds = CALLS if caller.scopes and scope in caller.scopes else ["own", "absent"]
                made = self.make(deleted) if changes else shared
                head, refusals = self.head(), {}
                for kind in kinds:
                    case = Case(caller, kind, made[kind])
                    request, expected, look = make_request(case)
                    with self.subTest(rpc=rpc, row=name, caller=caller.name, call=kind):
                        outcome, told = self.outcome(case, rpc, request, look)
                        self.assertEqual(outcome, self.expected(caller, scope, expected))
                        if told is not None and changes:
                            self.assertEqual(self.head(), head, "a refusal changes nothing")
                        if outcome == NOT_FOUND:
                            refusals[kind] = told
                    cells += 1
                    if told is None and changes:
                        head = self.head()
                with self.subTest(rpc=rpc, row=name, caller=caller.name):
                    told = refusals.get("absent")
                    self.assertEqual(refusals, dict.fromkeys(refusals, told))
        print(f"{cells} cells of {len(ROWS)} rows and {len(self.callers)} callers")

    def test_streams(self):
        """Who sees what of each change, in the history and in a watch."""
        start = self.head()
        there = uids(self.write("BatchCreateVoiceCalls", voice_calls=[inbound(**OWN)] * 2).voice_calls)
        one, two = there
        others = self.write("CreateVoiceCall", voice_call=inbound(**OTHERS)).voice_call.uid
        nobody = self.write("CreateVoiceCall", voice_call=inbound()).voice_call.uid
        self.write("UpdateVoiceCall", voice_call={"uid": one, "duration": 1})
        self.write("UpdateVoiceCall", voice_call={"uid": one, **OTHERS})
        self.write("UpdateVoiceCall", voice_call={"uid": one, "duration": 2})
        self.write("UpdateVoiceCall", voice_call={"uid": one, **OWN})
        self.write("HandleVoiceCall", uid=nobody, handled_by_staff_uid="ann")
        self.write("DeleteVoiceCall", uid=two)
        self.write("UndeleteVoiceCall", uid=two)
        # It leaves and is deleted at the same time.
        record = inbound(uid=two, deleted_at={"seconds": 1_700_000_000}, **OTHERS)
        replace = {"settings": {"conflict_policy": "IMPORT_CONFLICT_POLICY_REPLACE"}}
        list(self.send(self.full, "ImportVoiceCalls", [replace, {"record": {"voice_call": record}}]))
        self.write("DeleteVoiceCall", uid=others)
        head = self.head()
        states, log = {}, []
        for event in self.watch(self.full, start, head, show_deleted=True):
            change = event.change
            log.append((change, states.get(change.uid), change.voice_call))
            states[change.uid] = change.voice_call
        self.assertEqual(len(log), head - start)
        for caller in self.callers:
            if not caller.scopes or READ not in caller.scopes:
                continue
            for show_deleted in (False, True):
                expected = self.projected(caller, log, show_deleted)
                with self.subTest(caller=caller.name, show_deleted=show_deleted):
                    found = self.watch(caller, start, head, show_deleted)
                    found = [self.told_of(event) for event in found]
                    self.assertEqual(found, expected)
                    request = {"after_revision": start, "filter": {"show_deleted": show_deleted}}
                    page = self.send(caller, "ListVoiceCallChanges", request)
                    found = [self.told_of(event) for event in page.events]
                    expected = [[field for field in event if field != "previous"] for event in expected]
                    self.assertEqual(found, expected)

    def watch(self, caller, start, head, show_deleted):
        request = {
            "after_revision": start,
            "include_previous": True,
            "checkpoint_interval": {"nanos": 100_000_000},
            "filter": {"show_deleted": show_deleted},
        }
        stream, events = self.send(caller, "WatchVoiceCalls", request), []
        for message in stream:
            if message.HasField("checkpoint") and message.checkpoint.revision >= head:
                stream.cancel()
                return events
            events += message.event_batch.events

    @staticmethod
    def told_of(event):
        """The type of an event, its revision, and what is told beside them."""
        kind, _, fields = event_of(event)
        return [kind, event.change.revision, *fields]

    @staticmethod
    def projected(caller, log, show_deleted):
        """The same of the events that a caller gets, by the rule."""

        def fields(call):
            names = ["staff_uid", "handled_by_staff_uid", "client_uid", "handled_at"]
            return {name: getattr(call, name) for name in names if call.HasField(name)}

        events = []
        for change, before, after in log:
            sees = [
                call is not None and covers(caller.narrowing, fields(call)) for call in (before, after)
            ]
            was, will = (
                it and (show_deleted or not call.HasField("deleted_at"))
                for it, call in zip(sees, (before, after))
            )
            told = {"revision", "uid", "changed_at"}
            if sees[1]:
                told |= {"kind", "voice_call", "actor"}
                told |= {"transaction_end"} & {field.name for field, _ in change.ListFields()}
                told |= {"previous", "changed_fields"} if sees[0] else set()
            if will:
                kind = "UPDATED" if was else "ENTERED"
            elif was:
                kind = "DELETED" if sees[1] and after.HasField("deleted_at") else "EXITED"
            else:
                continue
            events.append([kind, change.revision, *sorted(told)])
        return events

    def test_request_ids_are_ones_own(self):
        ann = self.caller("staff, by policy")
        for other in ("staff, by JWT", "client, by policy", "full, by policy"):
            request_id = str(uuid.uuid4())
            request = {"voice_call": inbound(**OWN, duration=1), "request_id": request_id}
            first = self.send(ann, "CreateVoiceCall", request).voice_call
            again = self.send(ann, "CreateVoiceCall", request).voice_call
            self.assertEqual(first, again)
            # The same ID of somebody else is another one, whatever it is for.
            others = self.send(self.caller(other), "CreateVoiceCall", request).voice_call
            self.assertNotEqual(others.uid, first.uid)
            request_id = str(uuid.uuid4())
            update = {"voice_call": {"uid": first.uid, "duration": 2}, "request_id": request_id}
            updated = self.send(ann, "UpdateVoiceCall", update).voice_call
            delete = {"uid": first.uid, "request_id": request_id}
            self.send(self.caller(other), "DeleteVoiceCall", delete)
            # A repeat says what the first response said.
            self.assertEqual(self.send(ann, "UpdateVoiceCall", update).voice_call, updated)
            self.write("PurgeVoiceCall", uid=first.uid)
            for rpc, request in [("UpdateVoiceCall", update), ("CreateVoiceCall", request)]:
                with self.assertRaises(grpc.RpcError) as raised:
                    self.send(ann, rpc, request)
                expected = (*NOT_FOUND, {"uid": first.uid}, [])
                self.assertEqual(facts(raised.exception), expected)

    def test_claims_of_another_type_narrow_nobody_less(self):
        for claims in [
            {"staff_uid": 1},
            {"staff_uid": True},
            {"staff_uid": ""},
            {"staff_uid": ["ann"]},
            {"staff_uid": {"ann": True}},
            {"staff_uid": "a" * 65},
            {"staff_uid": "a\0b"},
            {"client_uid": 1},
            {"client_uid": ""},
            {"client_uid": ["carl"]},
            {"client_uid": "a\nb"},
            {"staff_uid": "ann", "client_uid": 1},
            {"staff_uid": "ann", "unassigned": "false"},
            {"staff_uid": "ann", "unassigned": 1},
        ]:
            caller = Caller("odd", ALL, {}, bearer(self.token("odd", **claims)))
            with self.subTest(claims=claims):
                with self.assertRaises(grpc.RpcError) as raised:
                    self.send(caller, "ListVoiceCalls", {})
                expected = ("UNAUTHENTICATED", "CREDENTIALS_INVALID")
                self.assertEqual(facts(raised.exception)[:2], expected)


if __name__ == "__main__":
    test_credentials.PROGRAM, test_credentials.DATABASE_URL = sys.argv[1:]
    unittest.main(argv=sys.argv[:1])
