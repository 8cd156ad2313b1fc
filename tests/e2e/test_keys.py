"""Connections by tcp: who has the right key may do what its role allows, and nobody else may do anything."""

import os
import re
import signal
import stat

import lmdb
import pytest
import zmq
from harness import IMAGES, PICTURES, SLOW, Client, Cluster, Refused, blipline, caption, export, null_nodes, wait_for
from proto import store_pb2, wire_pb2



def key_of(path):
    return [line for line in path.read_text().splitlines() if not line.startswith("# ")][-1].split()[-1].encode()


class Keys:
    """A broker's folder: its own pair, the allow-list, and pairs of others."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        for role in ("workers", "clients", "admins"):
            (folder / "authorized" / role).mkdir(parents=True)
        self.make("broker")

    def make(self, name, role=None):
        blipline("keygen", "-o", self.folder / name)
        if role:
            self.admit(name, role)
        return self.folder / name

    def admit(self, name, role):
        (self.folder / "authorized" / role / f"{name}.pub").write_bytes((self.folder / f"{name}.pub").read_bytes())

    def of(self, name):
        return dict(secret_key_file=self.folder / name, server_key_file=self.folder / "broker.pub")


class KeyClient(Client):
    """A client of pyzmq with a pair of keys."""

    def __init__(self, endpoint, keys=None, name=None, server=b"", seconds=5, context=None):
        self.socket = (context or zmq.Context.instance()).socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, int(seconds * 1000 * SLOW))
        if keys:
            self.socket.curve_secretkey = key_of(keys.folder / name)
            self.socket.curve_publickey = key_of(keys.folder / f"{name}.pub")
            self.socket.curve_serverkey = server or key_of(keys.folder / "broker.pub")
        self.socket.connect(endpoint)
        self.seq = 0


class KeyCluster(Cluster):
    def __init__(self, folder, keys, **broker):
        self.keys = keys
        broker = {"secret_key_file": keys.folder / "broker", "authorized_keys": keys.folder / "authorized", **broker}
        super().__init__(folder, **{"endpoint": f"ipc://{folder}/b, tcp://127.0.0.1:0", **broker})
        self.tcp = wait_for(lambda: re.search(r"tcp://127.0.0.1:\d+", self.broker.text()), 10)[0]

    def client(self, name, **more):
        client = KeyClient(self.tcp, self.keys, name, **more)
        client.hello()
        return client

    def worker(self, role, name, key, **more):
        return self.start(role, name, endpoint=self.tcp, **self.keys.of(key), **more)

    def counters(self):
        client = Client(self.endpoint)
        client.hello()
        client.open(self.folder / "counters", null_nodes())
        counters = client.progress().broker
        client.close()
        return counters


@pytest.fixture
def keys(folder):
    return Keys(folder / "keys")


def refused(client, seconds=1):
    """True if the broker does not answer its Hello."""
    client.socket.setsockopt(zmq.RCVTIMEO, int(seconds * 1000 * SLOW))
    try:
        client.hello()
        return False
    except zmq.Again:
        return True
    finally:
        client.close()


def refuses(client):
    try:
        client.hello()
    except Refused:
        return True
    return False


def test_keygen_writes_a_pair_that_nobody_else_reads(folder):
    os.umask(0)
    try:
        blipline("keygen", "-o", folder / "alice")
    finally:
        os.umask(0o022)
    assert stat.S_IMODE((folder / "alice").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "alice.pub").stat().st_mode) == 0o644
    assert zmq.curve_public(key_of(folder / "alice")) == key_of(folder / "alice.pub")
    assert (folder / "alice").read_text().splitlines()[1].startswith("secret ")
    again = blipline("keygen", "-o", folder / "alice", check=False)
    assert again.returncode == 1 and "never overwritten" in again.stderr
    (folder / "alice").unlink()
    again = blipline("keygen", "-o", folder / "alice", check=False)
    assert again.returncode == 1 and not (folder / "alice").exists()
    (folder / "link").symlink_to(folder / "elsewhere")
    assert (
        blipline("keygen", "-o", folder / "link", check=False).returncode == 1 and not (folder / "elsewhere").exists()
    )
    for name in ("two words", ".hidden", "x" * 64, "ä"):
        assert blipline("keygen", "-o", folder / name, check=False).returncode == 2
    env = {**os.environ, "HOME": str(folder)}
    assert ".config/blipline/" in blipline("keygen", env=env).stdout
    assert stat.S_IMODE((folder / ".config" / "blipline").stat().st_mode) == 0o700


def test_a_job_over_tcp_with_keys_gives_the_bytes_of_caption(folder, keys):
    keys.make("host1", "workers")
    keys.make("root", "admins")
    caption(IMAGES, folder / "local.lmdb")
    with KeyCluster(folder, keys) as cluster:
        for role in ("encoder", "qformer", "llm"):
            cluster.worker(role, role, "host1", device="cpu")
        wait_for(lambda: cluster.broker.text().count("event=worker_hello") == 3, 60)
        assert cluster.broker.text().count("key=host1") == 3
        # the job of `caption`, by a client of pyzmq: recipe and graph are those of its store
        client = cluster.client("root", seconds=20)
        with lmdb.open(str(folder / "local.lmdb"), readonly=True, max_dbs=16, lock=False) as env, env.begin() as txn:
            meta = store_pb2.JobMeta.FromString(txn.get(b"job", db=env.open_db(b"meta", txn, create=False)))
        graph = wire_pb2.JobOpen.FromString(meta.nodes)
        opening = wire_pb2.JobOpen(
            path=os.fsencode(folder / "remote.lmdb"), recipe=wire_pb2.Recipe.FromString(meta.recipe),
            nodes=graph.nodes, unit_items=4, create=True, source=b"test",
        )
        client.job = client.ask(job_open=opening).job_opened.job
        client.add([(p.name.encode(), os.fsencode(p)) for p in PICTURES])
        client.seal()
        client.wait_done()
        client.close()
        assert cluster.broker.stop() == 0
    assert export(folder / "remote.lmdb") == export(folder / "local.lmdb")


def test_roles_do_what_they_may(folder, keys):
    for name, role in (("host1", "workers"), ("alice", "clients"), ("root", "admins")):
        keys.make(name, role)
    with KeyCluster(folder, keys) as cluster:
        root = cluster.client("root")
        root.open(folder / "s", null_nodes())
        alice = cluster.client("alice")
        with pytest.raises(Refused, match="only an admin may name a path"):
            alice.open(folder / "t", null_nodes())
        alice.job = root.job
        with pytest.raises(Refused, match="not open here"):
            alice.progress()
        with pytest.raises(Refused, match="may not send shutdown"):
            alice.ask(shutdown=wire_pb2.Shutdown())
        for job in ("job_rows", "job_seal", "job_stop"):
            with pytest.raises(Refused):
                alice.ask(**{job: getattr(wire_pb2, "".join(w.title() for w in job.split("_")))(job=root.job)})
        host = KeyClient(cluster.tcp, keys, "host1")
        with pytest.raises(Refused, match="host1 is that of a worker"):
            host.hello()
        worker = cluster.worker("llm", "w", "alice", device="null")
        assert worker.process.wait(30 * SLOW) != 0
        assert "alice is that of a client" in worker.text(), worker.text()
        assert root.progress().n_items == 0
        for client in (root, alice, host):
            client.close()
        assert cluster.broker.stop() == 0


def submit(client, token):
    """Open a job by submission; the number of the job."""
    decode = wire_pb2.Decode(max_new_tokens=24, n_beams=1, n_return=1, length_penalty=1, repetition_penalty=1,
                             temperature=1, top_p=1)
    opening = wire_pb2.JobOpen(submission=wire_pb2.Submission(token=token), nodes=null_nodes(), unit_items=4,
                               recipe=wire_pb2.Recipe(name=b"caption", decode=decode))
    client.job = client.ask(job_open=opening).job_opened.job
    return client.job


def test_a_job_belongs_to_the_key_that_submitted_it(folder, keys):
    for name, role in (("alice", "clients"), ("bob", "clients"), ("root", "admins")):
        keys.make(name, role)
    token = b"0123456789abcdef"
    with KeyCluster(folder, keys, state_dir=folder / "state") as cluster:
        alice, bob, root = cluster.client("alice"), cluster.client("bob"), cluster.client("root")
        job = submit(alice, token)
        alice.add([(b"k", b"/p")])
        assert submit(bob, token) != job  # a token is that of its owner
        bob.job = job
        for what in (dict(job_open=wire_pb2.JobOpen(job=job)), dict(job_query=wire_pb2.JobQuery(job=job)),
                     dict(job_stop=wire_pb2.JobStop(job=job)), dict(job_seal=wire_pb2.JobSeal(job=job)),
                     dict(job_find=wire_pb2.JobFind(job=job, sources=True)),
                     dict(store_read=wire_pb2.StoreRead(job=job, what=wire_pb2.StoreRead.WHAT_SUMMARY)),
                     dict(job_control=wire_pb2.JobControl(job=job, action=wire_pb2.JobControl.ACTION_CANCEL))):
            with pytest.raises(Refused) as refused_:
                bob.ask(**what)
            assert refused_.value.reason == wire_pb2.Refuse.REASON_UNKNOWN_JOB, what
        with pytest.raises(Refused):
            bob.add([(b"evil", b"/p")])
        bob.ask(job_close=wire_pb2.JobClose(job=job))  # as one that is not there: nothing to close
        assert set(alice.jobs()) == {job} and set(bob.jobs()) == {job + 1} and set(root.jobs()) == {job, job + 1}
        assert alice.jobs()[job].owner == b"alice"
        again = cluster.client("alice")
        assert submit(again, token) == job
        assert again.control(job, "priority", priority=300).priority == 300
        assert root.control(job, "pause").wanted == 1
        assert submit(again, token) == job  # goes on
        assert root.ask(job_open=wire_pb2.JobOpen(job=job)).job_opened.n_items == 1
        for client in (alice, bob, root, again):
            client.close()
        assert cluster.broker.stop() == 0


def test_workers_do_not_crowd_out_clients(folder):
    with Cluster(folder, max_workers=1, max_clients=2) as cluster:
        cluster.start("llm", "w0", device="null")
        wait_for(lambda: "event=worker_hello" in cluster.broker.text(), 20)
        late = cluster.start("llm", "w1", device="null")
        wait_for(lambda: "1 workers are connected" in late.text(), 20)
        clients = [Client(cluster.endpoint) for _ in range(3)]
        clients[0].hello()
        clients[1].hello()
        clients[1].hello()  # once more is not one more
        with pytest.raises(Refused, match="2 clients are connected"):
            clients[2].hello()
        clients[0].send(bye=wire_pb2.Bye())
        wait_for(lambda: not refuses(clients[2]), 10)
        assert cluster.daemons[1].stop() == 0
        wait_for(lambda: "event=connected" in late.text(), 20)
        for client in clients:
            client.close()
        assert cluster.broker.stop() == 0


def test_who_has_no_right_key_gets_nothing(folder, keys):
    for name, role in (("mallory", None), ("root", "admins")):
        keys.make(name, role)
    with KeyCluster(folder, keys, log_level="info") as cluster:
        root = cluster.client("root")
        assert refused(KeyClient(cluster.tcp, keys, "mallory"))
        assert refused(KeyClient(cluster.tcp, keys, "root", server=key_of(keys.folder / "mallory.pub")))
        assert refused(KeyClient(cluster.tcp))
        plain = KeyClient(cluster.tcp)
        plain.socket.disconnect(cluster.tcp)
        plain.socket.plain_username, plain.socket.plain_password = b"root", b"x"
        plain.socket.connect(cluster.tcp)
        assert refused(plain)
        done = wait_for(lambda: "event=key_denied" in cluster.broker.text() and cluster.broker.text(), 15)
        assert "address=127.0.0.1" in done and key_of(keys.folder / "mallory.pub").decode() in done
        assert key_of(keys.folder / "mallory").decode() not in done
        counters = cluster.counters()
        assert counters.keys_accepted == 1 and counters.keys_denied >= 1
        assert counters.handshakes_bad >= 3, counters
        worker = cluster.worker("llm", "w", "mallory", device="null")
        wait_for(lambda: "does not accept this key" in worker.text(), 10)
        assert worker.stop() == 0
        root.open(folder / "s", null_nodes())
        root.close()
        assert cluster.broker.stop() == 0


def test_sighup_admits_and_cuts_off(folder, keys):
    for name, role in (("root", "admins"), ("gone", "admins"), ("late", None)):
        keys.make(name, role)
    with KeyCluster(folder, keys) as cluster:
        root, gone = cluster.client("root"), cluster.client("gone")
        root.open(folder / "s", null_nodes())
        monitor = gone.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        assert refused(KeyClient(cluster.tcp, keys, "late"))
        keys.admit("late", "admins")
        (keys.folder / "authorized" / "admins" / "gone.pub").unlink()
        (keys.folder / "authorized" / "clients" / "broken.pub").write_text("not a key\n")
        (keys.folder / "authorized" / "clients" / "secret.pub").write_bytes((keys.folder / "root").read_bytes())
        cluster.broker.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "event=reloaded keys=2 cut_off=1" in cluster.broker.text(), 10)
        assert "broken.pub: not a key file" in cluster.broker.text()
        assert "secret.pub: this is a secret key" in cluster.broker.text()
        assert monitor.poll(5000 * SLOW), "the session of the removed key goes on"
        gone.socket.disable_monitor()
        monitor.close()
        assert refused(gone)
        late = cluster.client("late")
        late.open(folder / "s", null_nodes())
        assert root.progress().n_items == 0
        os.rename(keys.folder / "authorized", keys.folder / "away")  # then the old list stays in force
        cluster.broker.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "event=reload_failed" in cluster.broker.text(), 10)
        cluster.client("late").close()
        root.close()
        late.close()
        assert cluster.broker.stop() == 0


def test_keys_that_others_could_read_are_refused(folder, keys):
    tcp = {"endpoint": "tcp://127.0.0.1:0", "authorized_keys": keys.folder / "authorized"}
    (keys.folder / "link").symlink_to(keys.folder / "broker")
    open_to_all = keys.make("open")
    open_to_all.chmod(0o640)
    cases = [
        ({**tcp, "secret_key_file": open_to_all}, "chmod 600"),
        ({**tcp, "secret_key_file": keys.folder / "link"}, "symbolic link"),
        ({**tcp, "secret_key_file": keys.folder / "broker.pub"}, "this is a public key"),
        ({**tcp, "secret_key_file": keys.folder / "none"}, "No such file"),
        ({"endpoint": "tcp://127.0.0.1:0", "secret_key_file": keys.folder / "broker"}, "authorized_keys is missing"),
        ({**tcp}, "blipline keygen"),
        ({"endpoint": "tcp://0.0.0.0:0", "insecure": "yes"}, "loopback addresses"),
    ]
    with Cluster(folder) as cluster:
        for n, (conf, what) in enumerate(cases):
            daemon = cluster.start("broker", f"b{n}", **conf)
            assert daemon.process.wait(30 * SLOW) == 70, conf
            assert what in daemon.text(), (conf, daemon.text())
        worker = cluster.start("encoder", "w", endpoint="tcp://127.0.0.1:5599", device="null")
        assert worker.process.wait(30 * SLOW) != 0 and "blipline keygen" in worker.text(), worker.text()


def test_a_key_may_be_a_credential_of_systemd(folder, keys):
    keys.make("root", "admins")
    (folder / "credentials").mkdir()
    (folder / "credentials" / "curve").write_bytes((keys.folder / "broker").read_bytes())
    (folder / "credentials" / "curve").chmod(0o440)
    with Cluster(folder) as cluster:
        broker = cluster.start(
            "broker", "tcp", env={"CREDENTIALS_DIRECTORY": str(folder / "credentials")},
            endpoint="tcp://127.0.0.1:0", secret_key_file="curve", authorized_keys=keys.folder / "authorized",
        )
        tcp = wait_for(lambda: re.search(r"tcp://127.0.0.1:\d+", broker.text()), 10)[0]
        client = KeyClient(tcp, keys, "root")
        client.hello()
        client.close()
        assert broker.stop() == 0


def test_insecure_on_loopback_works_without_keys(folder):
    with Cluster(folder) as cluster:
        broker = cluster.start("broker", "tcp", endpoint="tcp://127.0.0.1:0", insecure="yes")
        tcp = wait_for(lambda: re.search(r"tcp://127.0.0.1:\d+", broker.text()), 10)[0]
        cluster.start("llm", "w", endpoint=tcp, insecure="yes", device="null")
        wait_for(lambda: "event=worker_hello" in broker.text(), 20)
        client = Client(tcp)
        client.hello()
        client.open(folder / "s", null_nodes())
        client.close()
        assert broker.stop() == 0
