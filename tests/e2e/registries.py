"""Set-ups of registries: logins, tokens, certificates, redirects, mirrors, and links that fail.

All of them serve one storage directory, so that content is pushed once, to a plain docker-registry,
and read through each. What can be a real program is one (docker-registry, nginx, openssl); what has to
misbehave on demand is a server in this process.
"""

import base64
import contextlib
import ctypes
import fcntl
import hashlib
import http.client
import http.server
import json
import os
import pathlib
import re
import secrets
import select
import socket
import ssl
import struct
import subprocess
import sys
import termios
import threading
import time
import urllib.parse

import harness
from harness import free_port, run, until

# What docker-registry adds to the expiry of a token, for clocks that differ.
TOKEN_LEEWAY = 60


# ------------------------------------------------------------------------------------ certificates


class Authority:
    """A certificate authority of our own, by openssl."""

    def __init__(self, directory, name="ocifs test authority"):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True)
        self.file, self.key = self.directory / "ca.pem", self.directory / "ca.key"
        self.config = self.directory / "openssl.conf"
        (self.directory / "index").touch()
        self.config.write_text(
            f"[ca]\ndefault_ca=own\n[own]\nnew_certs_dir={self.directory}\ndatabase={self.directory}/index\n"
            f"rand_serial=yes\ndefault_md=sha256\npolicy=any\nunique_subject=no\n[any]\ncommonName=supplied\n")
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", f"/CN={name}",
            "-keyout", self.key, "-out", self.file)

    def issue(self, name, hosts=("127.0.0.1", "localhost"), *, start=None, end=None):
        """(certificate, key) of a server or a client; `start` and `end` as YYYYMMDDHHMMSSZ."""
        certificate, key = self.directory / f"{name}.cert", self.directory / f"{name}.key"
        request, extensions = self.directory / f"{name}.csr", self.directory / f"{name}.ext"
        alternatives = ",".join(("IP:" if re.fullmatch(r"[\d.]+", host) else "DNS:") + host for host in hosts)
        extensions.write_text((f"subjectAltName={alternatives}\n" if hosts else "")
                              + "extendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n")
        run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        now = time.gmtime(time.time() - 3600)
        run("openssl", "ca", "-batch", "-notext", "-config", self.config, "-cert", self.file, "-keyfile", self.key,
            "-startdate", start or time.strftime("%Y%m%d%H%M%SZ", now),
            "-enddate", end or time.strftime("%Y%m%d%H%M%SZ", (now.tm_year + 5, *now[1:])),
            "-extfile", extensions, "-in", request, "-out", certificate)
        return certificate, key

    def context(self, pair=None):
        """For a client of ours that trusts this authority; with a certificate of its own, if given."""
        context = ssl.create_default_context(cafile=self.file)
        if pair:
            context.load_cert_chain(*pair)
        return context


def any_server():
    """A context for a client of ours that takes whatever certificate it is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# ---------------------------------------------------------------------------------------- logins


def bcrypt(password):
    """A password as htpasswd -B writes it, by the C library."""
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    salt = "".join(secrets.choice(alphabet) for _ in range(21)) + "."
    return crypt(password.encode(), f"$2b$05${salt}".encode()).decode()


def write_htpasswd(path, logins):
    """As an administrator does: a new file that takes the place of the old one, at another time.
    docker-registry reads it again when its time is another one, of a resolution of its own."""
    path = pathlib.Path(path)
    before = path.stat().st_mtime if path.exists() else time.time()
    new = path.with_suffix(".new")
    new.write_text("".join(f"{user}:{bcrypt(password)}\n" for user, password in logins.items()))
    os.utime(new, (before + 2, before + 2))
    new.rename(path)


def podman_entry(user, password):
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def docker_identity_entry(token):
    """What `docker login` keeps when the token server gave it a refresh token."""
    return {**podman_entry("00000000-0000-0000-0000-000000000000", ""), "identitytoken": token}


def write_auths(path, auths):
    """Writes an auth file as podman and docker do: tab-indented, mode 0600, in one rename."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.touch(0o600)
    new.write_text(json.dumps({"auths": auths}, indent="\t"))
    new.rename(path)


class HttpServer:
    """An HTTP server in this process. `respond(handler)` of the subclass answers every request; each is
    in `requests` as (method, path with query, headers)."""

    def __init__(self, context=None):
        self.requests = []
        self.closing = threading.Event()
        self.lock = threading.Lock()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_):
                pass

            def do_GET(self):
                with server.lock:
                    server.requests.append((self.command, self.path, dict(self.headers.items())))
                with contextlib.suppress(OSError):
                    server.respond(self)

            do_HEAD = do_POST = do_GET

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request, client_address):
                pass  # clients go away, by themselves or through a link that fails

        self.server = Server(("127.0.0.1", 0), Handler)
        if context:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True,
                                                     do_handshake_on_connect=False)
        self.port = self.server.server_address[1]
        self.address = f"127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def asked(self, text=""):
        """The requests so far whose path has `text`."""
        with self.lock:
            return [request for request in self.requests if text in request[1]]

    def respond(self, handler):
        raise NotImplementedError

    @staticmethod
    def send(handler, status, body=b"", headers=None):
        handler.send_response(status)
        for key, value in (headers or {}).items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)


class TokenServer(HttpServer):
    """A token server as the distribution project specifies it: RS256, the certificate in x5c.

    `logins` and `refresh_tokens` (token -> user) may pull; others only where `anonymous` is set.
    A token is good for `lifetime` seconds, whatever `expires_in` tells the client."""

    ISSUER, SERVICE = "ocifs test tokens", "ocifs test registry"

    def __init__(self, directory, *, logins=None, refresh_tokens=None, anonymous=True, lifetime=300, expires_in=None):
        self.authority = Authority(directory, self.ISSUER)
        self.chain = [base64.b64encode(ssl.PEM_cert_to_DER_cert(self.authority.file.read_text())).decode()]
        self.logins, self.refresh_tokens = dict(logins or {}), dict(refresh_tokens or {})
        self.anonymous, self.lifetime, self.expires_in = anonymous, lifetime, expires_in or lifetime
        self.identities = []  # of those who asked, in order; "" is nobody, None was refused
        super().__init__()

    def settings(self):
        """What docker-registry has to be told."""
        return {"auth": {"token": {"realm": f"http://{self.address}/token", "service": self.SERVICE,
                                   "issuer": self.ISSUER, "rootcertbundle": str(self.authority.file)}}}

    def sign(self, claims):
        def part(data):
            return base64.urlsafe_b64encode(data).rstrip(b"=")

        head = {"typ": "JWT", "alg": "RS256", "x5c": self.chain}
        text = part(json.dumps(head).encode()) + b"." + part(json.dumps(claims).encode())
        signature = run("openssl", "dgst", "-sha256", "-sign", self.authority.key, input=text)
        return (text + b"." + part(signature)).decode()

    def identity(self, handler, form):
        """Who asks: a user, "" for nobody, None for a login that is not right."""
        if form.get("grant_type") == ["refresh_token"]:
            return self.refresh_tokens.get(form["refresh_token"][0])
        if form.get("grant_type") == ["password"]:
            user, password = form["username"][0], form["password"][0]
        elif basic := re.fullmatch(r"Basic (\S+)", handler.headers.get("Authorization", "")):
            user, _, password = base64.b64decode(basic[1]).decode().partition(":")
        else:
            return ""
        return user if self.logins.get(user) == password else None

    def respond(self, handler):
        place = urllib.parse.urlsplit(handler.path)
        query = urllib.parse.parse_qs(place.query)
        if handler.command == "POST":
            query = urllib.parse.parse_qs(
                handler.rfile.read(int(handler.headers["Content-Length"])).decode())
        user = self.identity(handler, query)
        with self.lock:
            self.identities.append(user)
        if user is None or query.get("service") != [self.SERVICE]:
            self.send(handler, 401, b'{"errors":[{"code":"UNAUTHORIZED","message":"no such login"}]}',
                      {"Content-Type": "application/json"})
            return
        access = []
        for scope in " ".join(query.get("scope", [])).split():
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            granted = [action for action in actions.split(",") if action == "pull" and (user or self.anonymous)]
            access.append({"type": kind, "name": name, "actions": granted})
        now = int(time.time())
        token = self.sign({"iss": self.ISSUER, "sub": user, "aud": self.SERVICE, "iat": now, "nbf": now - 10,
                           "exp": now + self.lifetime - TOKEN_LEEWAY, "jti": secrets.token_hex(8),
                           "access": access})
        answer = {"access_token" if handler.command == "POST" else "token": token, "expires_in": self.expires_in,
                  "issued_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))}
        self.send(handler, 200, json.dumps(answer).encode(), {"Content-Type": "application/json"})


# ----------------------------------------------------------------------------------------- in front


class Answer:
    """What a Front says instead of the registry. `stall`: the head and the body, but never its end."""

    def __init__(self, status=200, body=b"", headers=None, stall=False):
        self.status, self.body, self.headers, self.stall = status, body, headers or {}, stall


class Front(HttpServer):
    """A reverse proxy before a registry that can lie.

    `rule(method, path, headers)` -> None to hand the request on, or an Answer. `edit(path, data)` sees
    every body that comes from the registry whole and may change it, but not its size."""

    HOP = {"connection", "transfer-encoding", "keep-alive", "content-length"}

    def __init__(self, upstream, rule=None, edit=None, context=None):
        self.upstream = upstream
        self.rule = rule or (lambda method, path, headers: None)
        self.edit = edit
        super().__init__(context)

    @contextlib.contextmanager
    def asked_upstream(self, method, path, headers):
        """The registry's answer; headers that come more than once go on as often."""
        connection = http.client.HTTPConnection(self.upstream, timeout=120)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for key, value in headers.items():
                connection.putheader(key, value)
            connection.endheaders()
            yield connection.getresponse()
        finally:
            connection.close()

    def respond(self, handler):
        answer = self.rule(handler.command, handler.path, handler.headers)
        if answer is None:
            self.hand_on(handler)
        elif answer.stall:
            handler.send_response(answer.status)
            for key, value in {"Content-Length": "1000000000", **answer.headers}.items():
                handler.send_header(key, value)
            handler.end_headers()
            handler.wfile.write(answer.body)
            handler.wfile.flush()
            self.closing.wait(600)
            handler.close_connection = True
        else:
            self.send(handler, answer.status, answer.body, answer.headers)

    def hand_on(self, handler):
        try:
            with self.asked_upstream(handler.command, handler.path, handler.headers) as response:
                self.pass_on(handler, response)
        except OSError:
            # The registry is gone: so is the connection, in the middle of whatever it was.
            handler.close_connection = True
            raise

    def pass_on(self, handler, response):
        handler.send_response(response.status)
        for key, value in response.headers.items():
            if key.lower() not in self.HOP:
                handler.send_header(key, value)
        if self.edit and handler.command == "GET":
            body = self.edit(handler.path, response.read())
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
            return
        handler.send_header("Content-Length", response.headers.get("Content-Length", "0"))
        handler.end_headers()
        while piece := response.read(1 << 18):
            handler.wfile.write(piece)


class Redirects(Front):
    """A registry that leaves its blobs to object storage: those who may read one are sent there."""

    def __init__(self, upstream, storage):
        self.storage = storage
        super().__init__(upstream, self.redirect)

    def redirect(self, method, path, headers):
        match = re.fullmatch(r"/v2/(.+)/blobs/sha256:([0-9a-f]{64})", path.partition("?")[0])
        if not match or method != "GET":
            return None
        with self.asked_upstream("HEAD", path, headers) as response:
            if response.status != 200:
                return None  # whatever the registry says to that
        place = f"http://{self.storage}/docker/registry/v2/blobs/sha256/{match[2][:2]}/{match[2]}/data"
        return Answer(307, headers={"Location": f"{place}?X-Signature={secrets.token_hex(16)}"})


class Nginx:
    """nginx with the given `server` blocks, in a directory of its own."""

    def __init__(self, directory, make_servers, context=None):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True)
        self.access_log = self.directory / "access.log"
        self.process = None
        for _ in range(10):
            self.port = free_port()
            paths = "".join(f"{kind}_temp_path {self.directory}/{kind};\n"
                            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
            (self.directory / "nginx.conf").write_text(
                f"daemon off; user root; worker_processes 1; pid {self.directory}/pid;\n"
                f"error_log {self.directory}/error.log;\nevents {{ worker_connections 256; }}\n"
                f"http {{\n{paths}"
                "log_format all '$request_method $request_uri $status auth=\"$http_authorization\" range=\"$http_range\"';\n"
                f"access_log {self.access_log} all;\n{make_servers(f'127.0.0.1:{self.port}')}\n}}\n")
            with open(self.directory / "start.log", "ab") as log:
                process = subprocess.Popen(["nginx", "-p", self.directory, "-c", self.directory / "nginx.conf"],
                                           stdout=log, stderr=log, stdin=subprocess.DEVNULL)

            def listens():
                if process.poll() is not None:
                    return True
                try:
                    socket.create_connection(("127.0.0.1", self.port)).close()
                    return True
                except OSError:
                    return False

            until(listens, "nginx listens")
            if process.poll() is None:
                self.process = process
                return
        raise AssertionError(f"nginx does not start:\n{(self.directory / 'start.log').read_text()}")

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def lines(self):
        return self.access_log.read_text().splitlines()

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.process = None


def object_storage(directory, root):
    """nginx that serves files below `root` to those who come without a login, as S3 does: a request
    that is signed twice is refused."""
    return Nginx(directory, lambda listen: (
        f"server {{ listen {listen}; root {root}; default_type binary/octet-stream;\n"
        f'if ($http_authorization) {{ return 400; }}\nif ($arg_X-Signature = "") {{ return 403; }}\n}}'))


def client_certificate_wall(directory, upstream, authority, pair):
    """nginx that hands requests on to a registry for clients with a certificate of `authority` only."""
    return Nginx(directory, lambda listen: (
        f"server {{ listen {listen} ssl; ssl_certificate {pair[0]}; ssl_certificate_key {pair[1]};\n"
        f"ssl_client_certificate {authority.file}; ssl_verify_client on;\n"
        f"location / {{ proxy_pass http://{upstream}; proxy_set_header Host $http_host; proxy_buffering off;\n"
        "proxy_set_header X-Forwarded-Proto $scheme; }\n}"))


# -------------------------------------------------------------------------------------------- links


class Link:
    """The network between a client and a server: a TCP proxy whose faults are switched while it runs.

    cut_every   a connection ends after so many bytes towards the client; None: it does not
    reset       it ends with a reset, not in order
    rate        bytes a second towards the client, of all connections together; None: as it comes
    stall_at    the first connection that has passed so many bytes towards the client stands still for ever
    blackhole() nothing passes any more and new connections are not answered, until heal()
    refuse()    new connections are refused and present ones reset, until heal()
    down, connections   what has passed towards the client, and through how many connections
    """

    PIECE = 1 << 16

    def __init__(self, target, *, cut_every=None, reset=False, rate=None, host="127.0.0.1"):
        target_host, _, target_port = target.rpartition(":")
        self.target = (target_host, int(target_port))
        self.host = host  # where it listens
        self.cut_every, self.reset, self.rate = cut_every, reset, rate
        self.stall_at = None
        self.down = self.connections = 0
        self.lock = threading.Lock()
        self.passes = threading.Event()
        self.passes.set()
        self.closing = threading.Event()
        self.open_sockets = set()
        self.fillers = []
        self.next_free = 0.0
        self.listener = None
        self.port = None
        self.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    @property
    def address(self):
        return f"{self.host}:{self.port}"

    def listen(self):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((self.host, self.port or 0))
        self.listener.listen(128)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]

    def blackhole(self):
        """The kernel answers no SYN of a listener whose queue is full."""
        with self.lock:
            self.passes.clear()
            self.listener.listen(0)
            while True:
                filler = socket.socket()
                filler.setblocking(False)
                self.fillers.append(filler)
                with contextlib.suppress(BlockingIOError):
                    filler.connect((self.host, self.port))
                if not select.select([], [filler], [], 0.2)[1]:
                    return

    def refuse(self):
        with self.lock:
            self.close_listener()
            for end in list(self.open_sockets):
                self.end(end, reset=True)

    def close_listener(self):
        """Also under a thread that waits for it."""
        if self.listener:
            self.listener.shutdown(socket.SHUT_RD)
            self.listener.close()
            self.listener = None

    def heal(self):
        with self.lock:
            for filler in self.fillers:
                filler.close()
            self.fillers = []
            if self.listener is None:
                self.listen()
            self.listener.listen(128)
            self.passes.set()

    def stop(self):
        self.closing.set()
        self.passes.set()
        with self.lock:
            self.close_listener()
            for end in [*self.open_sockets, *self.fillers]:
                self.end(end)

    def accept(self):
        while not self.closing.is_set():
            client = None
            with self.lock:
                if self.listener and self.passes.is_set():
                    with contextlib.suppress(BlockingIOError):
                        client, _ = self.listener.accept()
            if client is None:
                listener = self.listener
                if listener and self.passes.is_set():
                    with contextlib.suppress(OSError, ValueError):
                        select.select([listener], [], [], 0.02)
                else:
                    self.closing.wait(0.02)
                continue
            client.setblocking(True)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                server = socket.create_connection(self.target, timeout=20)
            except OSError:
                self.end(client, reset=True)
                continue
            server.settimeout(None)
            with self.lock:
                self.connections += 1
                self.open_sockets |= {client, server}
            for source, sink, towards_client in ((server, client, True), (client, server, False)):
                threading.Thread(target=self.pass_on, args=(source, sink, towards_client), daemon=True).start()

    def pace(self, size):
        if not self.rate:
            return
        with self.lock:
            start = max(self.next_free, time.monotonic())
            self.next_free = start + size / self.rate
            wait = self.next_free - time.monotonic()
        self.closing.wait(max(wait, 0))

    def wait_until_arrived(self, sink):
        """A reset throws away what the other side's kernel has not got yet."""
        deadline = time.monotonic() + 30
        while (int.from_bytes(fcntl.ioctl(sink, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
               and time.monotonic() < deadline):
            self.closing.wait(0.001)

    def pass_on(self, source, sink, towards_client):
        passed = 0
        orderly = False
        with contextlib.suppress(OSError, ValueError):
            while True:
                size = min(self.PIECE, self.rate // 20 or 1) if self.rate else self.PIECE
                if towards_client and self.cut_every:
                    size = min(size, self.cut_every - passed)
                data = source.recv(size)
                self.passes.wait()
                if not data:
                    orderly = True
                    break
                if towards_client:
                    self.pace(len(data))
                sink.sendall(data)
                passed += len(data)
                if towards_client:
                    with self.lock:
                        self.down += len(data)
                        stands_still = self.stall_at is not None and passed >= self.stall_at
                        if stands_still:
                            self.stall_at = None
                    if stands_still:
                        self.closing.wait()
                    if self.cut_every and passed >= self.cut_every:
                        self.wait_until_arrived(sink)
                        break
        if orderly:
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)
        if not orderly or towards_client:
            # With the answers ends what they answer.
            with self.lock:
                self.end(sink, reset=self.reset and not orderly)
                self.end(source)

    def end(self, end, reset=False):
        self.open_sockets.discard(end)
        with contextlib.suppress(OSError):
            if reset:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                end.shutdown(socket.SHUT_RDWR)
        # A thread may wait in recv(): closing alone would not wake it.
        with contextlib.suppress(OSError):
            if reset:
                end.shutdown(socket.SHUT_RD)
        end.close()


class Wire:
    """A network namespace, and the one wire between it and us: what runs there reaches nothing but
    `host`, our end. Everything is gone when the process that holds the namespace is.

    swallow()      packets to it vanish; those from it still arrive
    unplug()       the wire has no signal
    no_route()     the namespace knows no way to us
    heal()         all is well again
    """

    def __init__(self):
        self.holder = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo; exec sleep infinity"],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.holder.stdout.read(1)
        self.command = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net"]
        network = f"10.{secrets.randbelow(200) + 20}.{secrets.randbelow(250)}"
        self.host, self.client = f"{network}.1", f"{network}.2"
        self.device = f"ocifs{secrets.token_hex(4)}"
        run("ip", "link", "add", self.device, "type", "veth", "peer", "name", "wire", "netns", str(self.holder.pid))
        run("ip", "addr", "add", f"{self.host}/30", "dev", self.device)
        run("ip", "link", "set", self.device, "up")
        for words in ("link set lo up", f"addr add {self.client}/30 dev wire", "link set wire up"):
            run(*self.command, "ip", *words.split())
        self.broken = []

    def swallow(self):
        run("ip", "route", "add", "blackhole", f"{self.client}/32")
        self.broken.append(["ip", "route", "del", "blackhole", f"{self.client}/32"])

    def unplug(self):
        run("ip", "link", "set", self.device, "down")
        self.broken.append(["ip", "link", "set", self.device, "up"])

    def no_route(self):
        run(*self.command, "ip", "route", "add", "unreachable", f"{self.host}/32")
        self.broken.append([*self.command, "ip", "route", "del", "unreachable", f"{self.host}/32"])

    def heal(self):
        while self.broken:
            run(*self.broken.pop())

    def stop(self):
        for command in self.broken:
            subprocess.run(command, capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self.device], capture_output=True, check=False)
        self.holder.kill()
        self.holder.wait()
        self.holder.stdout.close()


# -------------------------------------------------------------------------------------- test cases


class TestCase(harness.TestCase):
    """Starts set-ups; each is stopped when its test ends."""

    def setUp(self):
        super().setUp()
        self.started = 0

    def place(self, name):
        self.started += 1
        return self.directory / f"{name}-{self.started}"

    def stopped_at_end(self, server):
        self.addCleanup(server.stop)
        return server

    def authority(self, name="authority"):
        return Authority(self.place(name))

    def tls_registry(self, pair, trusted, **more):
        """docker-registry that speaks TLS with a certificate and its key."""
        tls = {"http": {"tls": {"certificate": str(pair[0]), "key": str(pair[1])}}}
        return self.registry(settings=tls, context=trusted, **more)

    def password_registry(self, logins, **more):
        """docker-registry with htpasswd; its file is `htpasswd` of the registry."""
        path = self.place("htpasswd")
        write_htpasswd(path, logins)
        registry = self.registry(settings={"auth": {"htpasswd": {"realm": "ocifs test", "path": str(path)}}}, **more)
        registry.htpasswd = path
        return registry

    def token_server(self, **more):
        return self.stopped_at_end(TokenServer(self.place("tokens"), **more))

    def until_kept(self, cache, blobs):
        """docker-registry answers first and keeps afterwards: one link for each blob, and a manifest's."""
        repositories = cache.data / "docker" / "registry" / "v2" / "repositories"
        harness.until(lambda: len(list(repositories.rglob("_layers/sha256/*/link"))) >= blobs
                      and any(repositories.rglob("_manifests/revisions/sha256/*/link")),
                      "the cache keeps what it hands out")

    def pull_through_mirror(self, upstream):
        """docker-registry that fetches from another what it lacks."""
        return self.registry(settings={"proxy": {"remoteurl": f"http://{upstream}"}})

    def front(self, upstream, *rules, **more):
        return self.stopped_at_end(Front(upstream, *rules, **more))

    def link(self, target, **more):
        return self.stopped_at_end(Link(target, **more))

    def wire(self):
        return self.stopped_at_end(Wire())

    def log_in(self, name, address, user, password):
        """`skopeo login`, which writes the file of podman, for the mount `name`."""
        path = self.directory / name / "containers" / "auth.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        run("skopeo", "login", "--tls-verify=false", "--authfile", path, "--username", user, "--password-stdin",
            address, input=password.encode())
        return path


def digest_of_file(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def toml(section, **values):
    """A table of ocifs.toml, or its top level."""
    def text(value):
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(map(text, value)) + "]"
        return json.dumps(value if isinstance(value, (bool, int)) else str(value))

    lines = [section] if section else []
    lines += [f"{key} = {text(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def registry_table(address, **values):
    return toml(f'[registry."{address}"]', **values)
