"""Every kind of credential, good and bad, against every RPC over TLS, by the official client.

Usage: test_credentials.py PROGRAM DATABASE_URL

It makes certificates, keys and tokens of its own, and starts the server with them.
"""

import base64
import datetime
import hashlib
import hmac
import http.server
import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.x509.oid import NameOID
from google.protobuf import message_factory

from test_interop import SERVICE, Api, facts

PROGRAM = DATABASE_URL = ""
ISSUER, AUDIENCE = "https://login.example.com", "voicecall"
HASHES = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}
MISSING = ("UNAUTHENTICATED", "CREDENTIALS_MISSING")
INVALID = ("UNAUTHENTICATED", "CREDENTIALS_INVALID")
EXPIRED = ("UNAUTHENTICATED", "TOKEN_EXPIRED")
NO_CONNECTION = ("UNAVAILABLE", None)
READS = {
    "GetVoiceCall", "BatchGetVoiceCalls", "ListVoiceCalls", "GetVoiceCallStats",
    "ListVoiceCallChanges", "WatchVoiceCalls", "ExportVoiceCalls",
}  # fmt: skip


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value):
    return base64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))


class Key:
    """A key pair for one algorithm, as a member of a key set and as a signer."""

    def __init__(self, algorithm, key_id, named=True):
        self.algorithm, self.id = algorithm, key_id
        if algorithm[0] in "RP":
            self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        elif algorithm == "EdDSA":
            self.private = ed25519.Ed25519PrivateKey.generate()
        else:
            curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1()}
            self.private = ec.generate_private_key(curves[algorithm])
        self.named = named

    def public(self):
        if self.algorithm[0] in "RP":
            numbers = self.private.public_key().public_numbers()
            key = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
        elif self.algorithm == "EdDSA":
            raw = self.private.public_key().public_bytes_raw()
            key = {"kty": "OKP", "crv": "Ed25519", "x": base64url(raw)}
        else:
            numbers = self.private.public_key().public_numbers()
            size = {"ES256": 32, "ES384": 48}[self.algorithm]
            name = {"ES256": "P-256", "ES384": "P-384"}[self.algorithm]
            x, y = (base64url(it.to_bytes(size, "big")) for it in (numbers.x, numbers.y))
            key = {"kty": "EC", "crv": name, "x": x, "y": y}
        key |= {"kid": self.id, "use": "sig"}
        return key | ({"alg": self.algorithm} if self.named else {})

    def sign(self, message, algorithm=None):
        algorithm = algorithm or self.algorithm
        if algorithm == "EdDSA":
            return self.private.sign(message)
        digest = HASHES[algorithm[2:]]()
        if algorithm.startswith("RS"):
            return self.private.sign(message, padding.PKCS1v15(), digest)
        if algorithm.startswith("PS"):
            pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
            return self.private.sign(message, pss, digest)
        r, s = utils.decode_dss_signature(self.private.sign(message, ec.ECDSA(digest)))
        size = (self.private.curve.key_size + 7) // 8
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    def token(self, header=None, sign=None, **changes):
        """A good token but for the changes; a claim that is None is left out."""
        claims = {
            "iss": ISSUER, "aud": AUDIENCE, "sub": "amy", "exp": int(time.time()) + 300,
            "scope": "calls:read calls:write calls:purge",
        } | changes  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        header = {"alg": self.algorithm, "typ": "JWT", "kid": self.id} | (header or {})
        header = {name: value for name, value in header.items() if value is not None}
        message = ".".join(base64url(json.dumps(it).encode()) for it in (header, claims))
        return f"{message}.{base64url((sign or self.sign)(message.encode()))}"


class Authority:
    """An authority of certificates."""

    def __init__(self, name):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self.sign(self.name, self.key, [], ca=True)

    def sign(self, subject, key, names, ca=False, days=1):
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, *names, common_name=None, days=1):
        """A certificate and its key, in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
        certificate = self.sign(x509.Name(subject), key, list(names), days=days)
        return pem(certificate), key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


class Server:
    """A server process, and what it has logged."""

    def __init__(self, environment=None, **settings):
        environment = os.environ | (environment or {}) | {"DATABASE_URL": DATABASE_URL}
        settings |= {"LISTEN": "127.0.0.1:0"}
        environment |= {f"VOICECALL_{name}": str(value) for name, value in settings.items()}
        command = [PROGRAM, "serve"]
        self.process = subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        self.lines, self.port = [], None
        self.told = threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()
        self.port = re.search(r"listening on \S+:(\d+)", self.wait_for("listening on"))[1]

    def read(self):
        for line in self.process.stderr:
            with self.told:
                self.lines.append(line)
                self.told.notify_all()
        with self.told:
            self.lines.append("ended")
            self.told.notify_all()

    def wait_for(self, text, seen=0):
        """The first line with the text, after the lines that were seen."""

        def found():
            lines = self.lines[seen:]
            return next((line for line in lines if text in line or line == "ended"), None)

        with self.told:
            assert self.told.wait_for(found, 60), f"{text}: {self.lines}"
            assert found() != "ended", self.lines
            return found()

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


def bearer(token):
    return [("authorization", f"Bearer {token}")]


class Credentials(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.TemporaryDirectory()
        cls.authority, cls.other_authority = Authority("one"), Authority("other")
        localhost = x509.DNSName("localhost")
        names = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]
        cls.keys = {name: Key(name, name.lower()) for name in names}
        cls.keys["RS256"].named = False
        cls.stranger = Key("ES256", "es256")
        cls.policy_token, cls.expired_token = "vct_" + "a" * 43, "vct_" + "b" * 43
        certificate, key = cls.authority.issue(localhost)
        cls.write("cert.pem", certificate)
        cls.write("key.pem", key)
        cls.write("ca.pem", pem(cls.authority.certificate))
        cls.write_keys(cls.keys.values())
        cls.write("policy.toml", cls.policy().encode())
        cls.server = Server(
            LOG="trace",
            TLS_CERT=cls.path("cert.pem"),
            TLS_KEY=cls.path("key.pem"),
            TLS_CLIENT_CA=cls.path("ca.pem"),
            TLS_CLIENT_AUTH="optional",
            AUTH_JWKS=cls.path("jwks.json"),
            AUTH_ISSUER=ISSUER,
            AUTH_AUDIENCE=AUDIENCE,
            AUTH_POLICY=cls.path("policy.toml"),
        )
        cls.secrets = set()
        token = cls.keys["ES256"].token()
        cls.api = cls.connect()
        cls.api.use(grpc.access_token_call_credentials(token))
        cls.rpcs = cls.api.service.methods

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()
        cls.dir.cleanup()

    @classmethod
    def path(cls, name):
        return os.path.join(cls.dir.name, name)

    @classmethod
    def write(cls, name, content):
        with open(cls.path(name), "wb") as file:
            file.write(content)

    @classmethod
    def write_keys(cls, keys):
        cls.write("jwks.json", json.dumps({"keys": [key.public() for key in keys]}).encode())

    @classmethod
    def policy(cls):
        def entry(name, credential, scopes):
            scopes = json.dumps(scopes)
            return f'[[principal]]\nname = "{name}"\nscopes = {scopes}\n{credential}\n'

        def digest(token):
            return f'token_sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"'

        all_scopes = ["calls:read", "calls:write", "calls:purge"]
        return "".join(
            [
                entry("all", f"{digest(cls.policy_token)}\nexpires_at = 2100-01-01T00:00:00Z",
                      all_scopes),
                entry("late", f"{digest(cls.expired_token)}\nexpires_at = 2020-01-01T00:00:00Z",
                      all_scopes),
                entry("uri", 'certificate_uri = "spiffe://example.com/ns/*/sa/billing"', all_scopes),
                entry("dns", 'certificate_dns_name = "*.clients.example.com"', all_scopes),
                entry("cn", 'certificate_common_name = "billing"', ["calls:read"]),
            ]
        )  # fmt: skip

    @classmethod
    def connect(cls, certificate=None, roots=None):
        roots = roots or pem(cls.authority.certificate)
        chain, key = certificate or (None, None)
        return SecureApi(f"localhost:{cls.server.port}", roots, key, chain)

    def outcome(self, api, rpc, metadata):
        """Code and reason of a request without fields."""
        request = message_factory.GetMessageClass(rpc.input_type)()
        path = f"/{SERVICE}/{rpc.name}"
        sends, receives = rpc.client_streaming, rpc.server_streaming
        kind = f"{'stream' if sends else 'unary'}_{'stream' if receives else 'unary'}"
        invoke = getattr(api.channel, kind)(
            path, request_serializer=lambda it: it.SerializeToString(), response_deserializer=bytes
        )
        try:
            response = invoke(iter([]) if sends else request, timeout=20, metadata=metadata)
            if receives:
                next(response, None)
                response.cancel()
            return "OK", None
        except grpc.RpcError as error:
            try:
                return facts(error)[:2]
            except AttributeError:  # Without details, it is not the server's.
                return error.code().name, None

    def check(self, case, expected, metadata=None, api=None):
        """The outcome of every RPC; `expected` is a set of scopes, or a refusal."""
        for name, value in metadata or []:
            self.secrets.update(part for part in value.split() if len(part) > 20)
            self.secrets.update(part for part in value.split(".") if len(part) > 20)
        for rpc in self.rpcs:
            with self.subTest(case=case, rpc=rpc.name):
                outcome = self.outcome(api or self.api, rpc, metadata)
                if isinstance(expected, tuple):
                    self.assertEqual(outcome, expected)
                    continue
                scope = self.scope(rpc.name)
                if scope in expected:
                    allowed = {"OK", "INVALID_ARGUMENT"}
                    self.assertIn(outcome[0], allowed, outcome)
                else:
                    self.assertEqual(outcome, ("PERMISSION_DENIED", "SCOPE_MISSING"))

    @staticmethod
    def scope(rpc):
        if rpc in READS:
            return "calls:read"
        return "calls:purge" if rpc == "PurgeVoiceCall" else "calls:write"

    ALL = {"calls:read", "calls:write", "calls:purge"}

    def test_good_tokens(self):
        for name, key in self.keys.items():
            self.check(name, self.ALL, bearer(key.token()))
        key = self.keys["ES256"]
        for case, token in {
            "aud in an array": key.token(aud=["other", AUDIENCE]),
            "no kid, one key of the algorithm": key.token(header={"kid": None}),
            "nbf": key.token(nbf=int(time.time()) - 5),
            "within the leeway": key.token(exp=int(time.time()) - 10),
            "permissions": key.token(scope=None, permissions=sorted(self.ALL)),
            "scp": key.token(scope=None, scp=" ".join(self.ALL)),
        }.items():
            self.check(case, self.ALL, bearer(token))
        self.check("read", {"calls:read"}, bearer(key.token(scope="calls:read other")))
        self.check("write", {"calls:write"}, bearer(key.token(scope="calls:write")))
        self.check("purge", {"calls:purge"}, bearer(key.token(scope="calls:purge")))
        self.check("nothing", set(), bearer(key.token(scope=None)))
        self.check("scheme in capitals", self.ALL, [("authorization", f"BEARER {key.token()}")])
        self.check("policy", self.ALL, bearer(self.policy_token))

    def test_bad_tokens(self):
        key, now = self.keys["ES256"], int(time.time())
        good = key.token()
        body = good.rsplit(".", 1)[0]
        public = self.keys["RS256"].private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        hs256 = self.keys["RS256"].token(
            header={"alg": "HS256"}, sign=lambda it: hmac.digest(public, it, "sha256")
        )
        p256_es384 = key.token(
            header={"alg": "ES384"}, sign=lambda it: key.sign(it, "ES384")
        )
        for case, metadata, expected in [
            ("none", None, MISSING),
            ("empty", [("authorization", "")], INVALID),
            ("no token", [("authorization", "Bearer ")], INVALID),
            ("two headers", bearer(good) + bearer(good), INVALID),
            ("two headers, one bad", bearer(good) + bearer("bad"), INVALID),
            ("basic", [("authorization", "Basic YTpi")], INVALID),
            ("no scheme", [("authorization", good)], INVALID),
            ("no base64", bearer("!" + good[1:]), INVALID),
            ("two parts", bearer(body), INVALID),
            ("four parts", bearer(good + ".a"), INVALID),
            ("no signature", bearer(body + "."), INVALID),
            ("another signature", bearer(f"{body}.{key.token(sub='bob').rsplit('.', 1)[1]}"), INVALID),
            ("another key", bearer(self.stranger.token()), INVALID),
            ("none", bearer(key.token(header={"alg": "none"}, sign=lambda _: b"")), INVALID),
            ("HS256 by the public key", bearer(hs256), INVALID),
            ("ES384 by a P-256 key", bearer(p256_es384), INVALID),
            ("PS256 by an RS256 key", bearer(self.keys["RS256"].token(
                header={"alg": "PS256"}, sign=lambda it: self.keys["RS256"].sign(it, "PS256"))),
             INVALID),
            ("RS384 by an RS256 key", bearer(self.keys["RS256"].token(
                header={"alg": "RS384"}, sign=lambda it: self.keys["RS256"].sign(it, "RS384"))),
             INVALID),
            ("unknown kid", bearer(key.token(header={"kid": "other"})), INVALID),
            ("kid of another key", bearer(key.token(header={"kid": "es384"})), INVALID),
            ("crit", bearer(key.token(header={"crit": ["b64"], "b64": False})), INVALID),
            ("expired", bearer(key.token(exp=now - 31)), EXPIRED),
            ("not yet valid", bearer(key.token(nbf=now + 60)), INVALID),
            ("no exp", bearer(key.token(exp=None)), INVALID),
            ("exp is a string", bearer(key.token(exp=str(now + 60))), INVALID),
            ("no iss", bearer(key.token(iss=None)), INVALID),
            ("another iss", bearer(key.token(iss="https://evil.example.com")), INVALID),
            ("iss in an array", bearer(key.token(iss=[ISSUER])), INVALID),
            ("no aud", bearer(key.token(aud=None)), INVALID),
            ("another aud", bearer(key.token(aud="other")), INVALID),
            ("aud is a number", bearer(key.token(aud=1)), INVALID),
            ("no sub", bearer(key.token(sub=None)), INVALID),
            ("sub is a number", bearer(key.token(sub=1)), INVALID),
            ("nbf is a string", bearer(key.token(nbf="1")), INVALID),
            ("staff_uid is a number", bearer(key.token(staff_uid=1)), INVALID),
            ("empty client_uid", bearer(key.token(client_uid="")), INVALID),
            ("unassigned is a string", bearer(key.token(staff_uid="a", unassigned="true")), INVALID),
            ("unassigned of nobody", bearer(key.token(unassigned=True)), INVALID),
            ("over 8 KiB", bearer(key.token(more="a" * 7000)), INVALID),
            ("a token of nobody", bearer("vct_" + "c" * 43), INVALID),
            ("short", bearer("vct_a"), INVALID),
            ("expired in the policy", bearer(self.expired_token), EXPIRED),
        ]:
            self.check(case, expected, metadata)

    def test_certificates(self):
        uri, dns = x509.UniformResourceIdentifier, x509.DNSName
        one, other = self.authority, self.other_authority
        good = one.issue(uri("spiffe://example.com/ns/a/sa/billing"))
        for case, certificate, expected in [
            ("URI", good, self.ALL),
            ("DNS name", one.issue(dns("a.clients.example.com")), self.ALL),
            ("common name", one.issue(common_name="billing"), {"calls:read"}),
            ("no entry", one.issue(uri("spiffe://example.com/ns/a/sa/other")), INVALID),
            ("a star ends at a slash", one.issue(uri("spiffe://example.com/ns/a/b/sa/billing")), INVALID),
            ("no name", one.issue(), INVALID),
            ("another authority", other.issue(uri("spiffe://example.com/ns/a/sa/billing")), NO_CONNECTION),
            ("expired", one.issue(uri("spiffe://example.com/ns/a/sa/billing"), days=-1), NO_CONNECTION),
        ]:  # fmt: skip
            self.check(case, expected, api=self.connect(certificate))
        with_certificate = self.connect(good)
        bad = bearer(self.keys["ES256"].token(exp=1))
        self.check("a bad token beside a good certificate", EXPIRED, bad, with_certificate)

    def test_other_services(self):
        health, reflection = "/grpc.health.v1.Health/Check", "ServerReflectionInfo"
        api = self.connect()
        self.assertEqual(api.raw(health, b"", 10), b"\x08\x01")
        path = f"/grpc.reflection.v1.ServerReflection/{reflection}"
        invoke = api.channel.stream_stream(path, lambda it: it, bytes)
        with self.assertRaises(grpc.RpcError) as raised:
            next(invoke(iter([b"\x3a\x00"]), timeout=10))
        self.assertEqual(facts(raised.exception)[:2], MISSING)

    def test_the_wrong_protocol(self):
        with grpc.insecure_channel(f"localhost:{self.server.port}") as channel:
            with self.assertRaises(grpc.RpcError) as raised:
                channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10)
        self.assertEqual(raised.exception.code().name, "UNAVAILABLE")
        self.server.wait_for("a client does not speak TLS")

    def test_files_that_cannot_be_used_change_nothing(self):
        good = self.path("jwks.json")
        with open(good, "rb") as file:
            content = file.read()
        token = self.keys["ES256"].token()
        for bad in [b"", b"{", b'{"keys":[]}', content[: len(content) // 2]]:
            seen = len(self.server.lines)
            self.write("jwks.json", bad)
            # It is told once it has been seen twice.
            self.server.wait_for("key set changed and cannot be used", seen)
            self.list(token)
        self.write("jwks.json", content)
        self.list(token)

    def list(self, token):
        self.api.call("ListVoiceCalls", options={"metadata": bearer(token)})

    def test_key_set_of_a_url(self):
        provider = Provider(self.path("cert.pem"), self.path("key.pem"))
        self.addCleanup(provider.stop)
        server = Server(
            environment={"SSL_CERT_FILE": self.path("ca.pem")},
            AUTH_JWKS=f"https://localhost:{provider.server_port}/keys",
            AUTH_ISSUER=ISSUER,
            AUTH_AUDIENCE=AUDIENCE,
        )
        self.addCleanup(server.stop)
        api = self.connect()
        api.channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")
        health = "/grpc.health.v1.Health/Check"
        old, new, other = (Key("ES256", name) for name in ("old", "new", "other"))
        # While the keys cannot be fetched nobody can be told apart.
        server.wait_for("cannot fetch the keys")
        self.assertEqual(api.raw(health, b"", 10), b"\x08\x02")
        self.check("no keys yet", ("UNAVAILABLE", "AUTHENTICATION_UNAVAILABLE"),
                   bearer(old.token()), api)  # fmt: skip
        provider.publish(old)
        server.wait_for("fetched the keys")
        deadline = time.monotonic() + 20
        while api.raw(health, b"", 10) != b"\x08\x01":
            self.assertLess(time.monotonic(), deadline)
        self.check("the first key", self.ALL, bearer(old.token()), api)
        # A key that is not known yet is fetched for the request that names it.
        provider.publish(old, new)
        fetched = provider.requests
        self.check("a new key", self.ALL, bearer(new.token()), api)
        self.assertEqual(provider.requests, fetched + 1)
        # But that is done once a minute only.
        self.check("an unknown key", INVALID, bearer(other.token()), api)
        self.assertEqual(provider.requests, fetched + 1)

    def test_zz_nothing_of_a_credential_is_in_the_log(self):
        log = "".join(self.server.lines)
        for secret in self.secrets | {self.policy_token, self.expired_token}:
            self.assertNotIn(secret, log)


class Provider(http.server.ThreadingHTTPServer):
    """An identity provider that publishes its keys by https, once it has any."""

    def __init__(self, certificate, key):
        super().__init__(("localhost", 0), Provider.Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.keys, self.requests = None, 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def publish(self, *keys):
        self.keys = json.dumps({"keys": [key.public() for key in keys]}).encode()

    def stop(self):
        self.shutdown()
        self.server_close()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.requests += 1
            keys = self.server.keys or b""
            self.send_response(200 if keys else 503)
            self.send_header("Content-Length", str(len(keys)))
            self.end_headers()
            self.wfile.write(keys)

        def log_message(self, *_):
            pass


class SecureApi(Api):
    """The API over TLS; `use` reads its descriptors."""

    def __init__(self, endpoint, roots, key, chain):
        self.endpoint = endpoint
        self.tls = grpc.ssl_channel_credentials(roots, key, chain)
        self.channel = grpc.secure_channel(endpoint, self.tls)

    def use(self, credentials):
        """Reads the descriptors with these credentials."""
        plain, channel = self.channel, grpc.composite_channel_credentials(self.tls, credentials)
        self.channel = grpc.secure_channel(self.endpoint, channel)
        self.read_descriptors()
        # What follows has credentials of its own.
        self.channel = plain


if __name__ == "__main__":
    PROGRAM, DATABASE_URL = sys.argv[1:]
    unittest.main(argv=sys.argv[:1])
