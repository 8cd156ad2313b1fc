"""Real daemons in a temporary folder, and a client of the broker written with pyzmq and protobuf's own Python classes.
"""

import atexit
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time

import lmdb
import pytest
import zmq
from proto import store_pb2, wire_pb2

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("O", ROOT / "build"))
MODEL = ROOT / "models" / "blip2-opt-demo"
IMAGES = ROOT / "examples" / "images"
ANSWERS = json.loads((ROOT / "tests" / "golden" / "decode" / "demo_answers.json").read_text())
PICTURES = sorted(p for p in IMAGES.iterdir() if p.suffix in (".jpg", ".webp", ".png"))
SLOW = 4 if os.environ.get("SLOW_BUILD") else 1  # sanitizers
PATIENCE = 5  # only a test that fails waits so long
ROLES = ("broker", "encoder", "qformer", "llm")

# What a sanitizer says goes into a file of its own, for every process started here and those the command starts;
# conftest.py looks after each test.
REPORTS = pathlib.Path(tempfile.mkdtemp(prefix="bl-reports-", dir="/tmp"))
REPORTS.chmod(0o1777)  # a test runs the command as another user
atexit.register(shutil.rmtree, REPORTS, ignore_errors=True)
for _name, _more in {"ASAN": "", "UBSAN": ":print_stacktrace=1",
                     "TSAN": f":suppressions={ROOT}/tests/tsan.supp"}.items():
    os.environ[f"{_name}_OPTIONS"] = (
        f"{os.environ.get(f'{_name}_OPTIONS', '')}:log_path={REPORTS}/{_name.lower()}{_more}".lstrip(":")
    )


def sanitizer_reports():
    """The text of all reports since the last call."""
    found = []
    for path in sorted(REPORTS.iterdir()):
        found.append(path.read_text(errors="replace"))
        path.unlink()
    return "\n".join(found)


def wait_for(what, seconds=60, step=0.05):
    """The first true value of what(), or an assertion. On a machine that is busy with other work it may take long."""
    seconds *= PATIENCE * SLOW
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = what()
        if value:
            return value
        time.sleep(step)
    raise AssertionError(f"waited {seconds} s for {getattr(what, '__name__', what)}")


def on_the_cpu(args):
    """The tests compare with what the CPU computes, on machines with a GPU too, unless they say --device."""
    if not args or args[0] not in ("caption", "score", "embed"):
        return list(args)
    level = os.environ.get("BLIPLINE_TEST_CPU_ISA")
    return [args[0], "--device", "cpu", *(["--cpu-isa", level] if level and "--cpu-isa" not in args else []), *args[1:]]


def blipline(*args, check=True, timeout=300, **kwargs):
    """Run the command; its output is text."""
    done = subprocess.run(
        [str(BUILD / "blipline"), *(a if isinstance(a, bytes) else str(a) for a in on_the_cpu(args))],
        capture_output=True, text=True, timeout=timeout * SLOW, errors="replace", **kwargs,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"blipline {args} gave {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def caption(source, store, *more, **kwargs):
    sources = source if isinstance(source, (list, tuple)) else [source]
    return blipline("caption", *sources, "-o", store, "--model", MODEL, *more, **kwargs)


def export(store):
    """The rows of the JSONL export, and its bytes."""
    done = subprocess.run(
        [str(BUILD / "blipline"), "export", str(store), "--format", "jsonl"],
        capture_output=True, timeout=120 * PATIENCE * SLOW, check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.stdout


def children(pid):
    """pid -> program name of the direct children."""
    found = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
            fields = text[text.rindex(")") + 2:].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                exe = os.readlink(stat.parent / "exe")
                found[int(stat.parent.name)] = os.path.basename(exe).replace("blipline-", "")
        except (OSError, ValueError):
            continue
    return found


def many(folder, copies):
    """A folder with the example pictures under `copies` names each, as hard links or copies."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(copies):
        for p in PICTURES:
            target = folder / f"{n:03d}_{p.name}"
            try:
                os.link(p, target)
            except OSError:
                target.write_bytes(p.read_bytes())
    return folder


def answer_for(key, kind="greedy"):
    name = key if key in ANSWERS else key.split("_", 1)[1]
    return ANSWERS[name][kind]


def memory_mib(pid, what="VmRSS"):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith(what):
            return int(line.split()[1]) >> 10
    raise AssertionError(what)


def store_rows(path):
    """Records by item number, read with py-lmdb and generated classes alone."""
    env = lmdb.open(str(path), readonly=True, max_dbs=16, lock=False)
    with env.begin() as txn:
        records = {}
        for key, value in txn.cursor(env.open_db(b"items", txn, create=False)):
            record = store_pb2.Record.FromString(value)
            records[int.from_bytes(key, "big")] = record
    env.close()
    return records


class Caption:
    """`blipline caption` as a process of its own, to be disturbed."""

    def __init__(self, source, store, *more, program=BUILD / "blipline"):
        self.store = store
        self.process = subprocess.Popen(
            [
                str(program), *on_the_cpu(["caption"]), str(source), "-o", str(store), "--model", str(MODEL),
                *map(str, more),
            ],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        )

    def roles(self):
        return {name: pid for pid, name in children(self.process.pid).items()}

    def done(self):
        try:
            return len(store_rows(self.store))
        except (lmdb.Error, OSError):
            return 0

    def at_least(self, n):
        def enough():
            assert self.process.poll() is None, f"ended early: {self.process.communicate()}"
            return self.done() >= n
        wait_for(enough, 90, 0.02)
        return self

    def signal(self, role, number):
        os.kill(wait_for(lambda: self.roles().get(role), 20), number)

    def end(self, seconds=120):
        out, err = self.process.communicate(timeout=seconds * PATIENCE * SLOW)
        return self.process.returncode, out, err

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class Daemon:
    """One daemon with a configuration file, its log in a file."""

    def __init__(self, folder, role, name=None, env=None, within=(), **conf):
        self.role, self.name = role, name or role
        path = folder / f"{self.name}.conf"
        path.write_text("".join(f"{k} = {v}\n" for k, v in conf.items()))
        self.log_path = folder / f"{self.name}.log"
        self.log = open(self.log_path, "ab")
        self.process = subprocess.Popen(
            [*within, str(BUILD / f"blipline-{role}"), "-f", str(path)],
            stderr=self.log, stdout=self.log, env={**os.environ, **(env or {})},
        )

    def text(self):
        return self.log_path.read_text(errors="replace")

    def stop(self, number=signal.SIGTERM, seconds=30):
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(seconds * SLOW)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.log.close()
        return self.process.returncode


class Cluster:
    """A broker and workers by hand, without the command."""

    def __init__(self, folder, broker_env=None, **broker):
        self.folder = folder
        self.endpoint = f"ipc://{folder}/b"
        self.daemons = []
        self.broker_conf = {
            "endpoint": self.endpoint, "lease": f"{3 * SLOW}s", "heartbeat": "200ms", "log_level": "debug",
            **broker,
        }
        self.broker = self.start("broker", env=broker_env, **self.broker_conf)

    def start(self, role, name=None, env=None, within=(), **conf):
        """`within`: a command line that the daemon's is appended to."""
        if role != "broker":
            conf = {"endpoint": self.endpoint, "log_level": "debug", **conf}
            if conf.get("device") != "null":
                conf.setdefault("model", MODEL)
        daemon = Daemon(self.folder, role, name, env, within, **conf)
        self.daemons.append(daemon)
        return daemon

    def null_workers(self):
        self.start("encoder", device="null", null_shape="1,8")
        self.start("qformer", device="null", null_shape="1,8")
        self.start("llm", device="null")

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for d in self.daemons:
            if d.process.poll() is None:
                d.process.kill()
            d.process.wait()
            d.log.close()
        if exc[0]:
            for d in self.daemons:
                print(f"--- {d.name}\n{d.text()[-3000:]}")


class Refused(Exception):
    def __init__(self, refuse):
        super().__init__(refuse.text.decode(errors="replace"))
        self.reason = refuse.reason


def preloaded(name):
    """The environment of a daemon that tests/e2e/NAME.c disturbs. A sanitizer's library must come first, so not in
    such builds."""
    if SLOW > 1:
        pytest.skip("not in builds with a sanitizer")
    return {"LD_PRELOAD": str(BUILD / "tests" / "e2e" / f"lib{name}.so")}


LOGFMT_PAIR = re.compile(
    r'(\w+)=(?:"((?:[^"\\\x00-\x1f\x7f]|\\(?:["\\nrt]|x[0-9a-f]{2}))*)"|([^\s"=\\\x00-\x1f\x7f]+))(?: |$)'
)
LOGFMT_ESCAPE = re.compile(r"\\(x..|.)")


def logfmt(line):
    """The keys and values of a log line."""
    ret = {}
    at = re.match(r"(<\d>)?blipline[\w-]*: ", line).end()
    while at < len(line):
        pair = LOGFMT_PAIR.match(line, at)
        assert pair, f"not logfmt at byte {at}: {line!r}"
        key, quoted, bare = pair.groups()
        ret[key] = bare or LOGFMT_ESCAPE.sub(
            lambda m: {"n": "\n", "r": "\r", "t": "\t"}.get(m[1])
            or (chr(int(m[1][1:], 16)) if m[1][0] == "x" else m[1]),
            quoted,
        )
        at = pair.end()
    return ret


class Client:
    """What a stranger would write: pyzmq, generated classes, proto/README.md."""

    def __init__(self, endpoint, seconds=20):
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, int(seconds * 1000 * SLOW))
        self.socket.connect(endpoint)
        self.seq = 0

    def close(self):
        self.socket.close()

    def send(self, rows=(), tensors=(), declared=(), **body):
        """`declared`: Tensor messages; `tensors`: the frames of those that have any."""
        envelope = wire_pb2.Envelope(version=2, seq=self.seq, n_row_frames=1 if rows else 0, n_rows=len(rows),
                                     tensors=declared)
        for name, value in body.items():
            getattr(envelope, name).SetInParent()
            getattr(envelope, name).CopyFrom(value)
        frames = [envelope.SerializeToString()]
        if rows:
            frames.append(b"".join(delimited(r) for r in rows))
        self.socket.send_multipart(frames + list(tensors))

    def receive(self):
        frames = self.socket.recv_multipart()
        envelope = wire_pb2.Envelope.FromString(frames[0])
        if envelope.WhichOneof("body") == "refuse":
            raise Refused(envelope.refuse)
        return envelope, frames[1:]

    def ask(self, rows=(), **body):
        self.seq += 1
        self.send(rows, **body)
        while True:
            envelope, _ = self.receive()
            if envelope.seq == self.seq:
                return envelope

    def hello(self, **more):
        answer = self.ask(
            hello=wire_pb2.Hello(
                role=wire_pb2.Hello.ROLE_CLIENT, min_version=2, max_version=2, host=b"test",
                boot_nonce=random.getrandbits(63), pid=os.getpid(), **more,
            )
        )
        return answer.welcome

    def open(self, path, nodes, unit_items=4, create=True, **recipe):
        decode = wire_pb2.Decode(max_new_tokens=24, n_beams=1, n_return=1, length_penalty=1, repetition_penalty=1,
                                 temperature=1, top_p=1)
        recipe.setdefault("decode", decode)
        r = wire_pb2.Recipe(name=b"caption", **recipe)
        answer = self.ask(
            job_open=wire_pb2.JobOpen(path=os.fsencode(path), recipe=r, nodes=nodes, unit_items=unit_items,
                                      create=create, source=b"test")
        )
        self.job = answer.job_opened.job
        return answer.job_opened

    def add(self, items):
        rows = [store_pb2.Item(key=k, path=p) for k, p in items]
        return self.ask(rows, job_rows=wire_pb2.JobRows(job=self.job)).job_rows_ok

    def seal(self):
        return self.ask(job_seal=wire_pb2.JobSeal(job=self.job)).job_accepted

    def progress(self):
        return self.ask(job_query=wire_pb2.JobQuery(job=self.job)).job_progress

    def listed(self, **body):
        """Ask what JobListed answers: its rows, and the number to go on from."""
        self.seq += 1
        self.send(**body)
        while True:
            envelope, frames = self.receive()
            if envelope.seq == self.seq:
                rows = [row for frame in frames for row in undelimited(frame, store_pb2.JobEntry)]
                assert len(rows) == envelope.n_rows
                return rows, envelope.job_listed.next_job

    def jobs(self):
        """The rows of all jobs by number."""
        found, at = {}, 1
        while at:
            rows, at = self.listed(job_list=wire_pb2.JobList(from_job=at))
            found.update({row.job: row for row in rows})
        return found

    def control(self, job, action, **more):
        """The row of the job after "pause", "cancel", ...; None: it has none any more. A busy job is asked again."""
        request = wire_pb2.JobControl(job=job, action=f"ACTION_{action.upper()}", **more)

        def answer():
            try:
                return self.listed(job_control=request)[0]
            except Refused as refused:
                if refused.reason != wire_pb2.Refuse.REASON_BUSY:
                    raise
        rows = wait_for(lambda: (rows := answer()) is not None and [rows], step=0.02)[0]
        return rows[0] if rows else None

    def wait_done(self, seconds=60):
        def done():
            progress = self.progress()
            return progress if progress.state == wire_pb2.JobProgress.STATE_DONE else None
        return wait_for(done, seconds)


def programs_with(folder, role, script):
    """The programs in a folder of their own, with a shell script in the place of one daemon; the blipline that starts
    them."""
    programs = folder / "bin"
    programs.mkdir()
    shutil.copy(BUILD / "blipline", programs)
    for other in {"broker", "encoder", "qformer", "llm"} - {role}:
        (programs / f"blipline-{other}").symlink_to(BUILD / f"blipline-{other}")
    daemon = programs / f"blipline-{role}"
    daemon.write_text("#!/bin/sh\n" + script)
    daemon.chmod(0o755)
    return str(programs / "blipline")


def delimited(message):
    """A length-delimited row."""
    data = message.SerializeToString()
    n, head = len(data), b""
    while n >= 0x80:
        head += bytes([n & 0x7F | 0x80])
        n >>= 7
    return head + bytes([n]) + data


def undelimited(data, kind):
    """The rows of a frame."""
    rows = []
    while data:
        n, shift = 0, 0
        while True:
            byte, data = data[0], data[1:]
            n |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        rows.append(kind.FromString(data[:n]))
        data = data[n:]
    return rows


def null_nodes():
    stages = (wire_pb2.STAGE_ENCODE, wire_pb2.STAGE_QFORMER, wire_pb2.STAGE_LLM)
    return [
        wire_pb2.Node(
            stage=s,
            needs=(1 << i) >> 1,
            tasks=wire_pb2.TASK_PROJECT if s == wire_pb2.STAGE_QFORMER else 0,
            out_bytes=32 if i < 2 else 0,
        )
        for i, s in enumerate(stages)
    ]


def demo_nodes():
    """The graph of the demo model: 257 x 192 trunk features, 16 x 192 projected queries."""
    stages = (wire_pb2.STAGE_ENCODE, wire_pb2.STAGE_QFORMER, wire_pb2.STAGE_LLM)
    sizes = (257 * 192 * 4, 16 * 192 * 4, 0)
    return [
        wire_pb2.Node(
            stage=s,
            needs=(1 << i) >> 1,
            tasks=wire_pb2.TASK_PROJECT if s == wire_pb2.STAGE_QFORMER else 0,
            out_bytes=sizes[i],
        )
        for i, s in enumerate(stages)
    ]
