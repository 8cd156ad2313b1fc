"""A broker, two worker hosts and a client, each with an address of its own, over a network that fails."""

import os
import signal
import subprocess
import time

import lmdb
import pytest
import zmq
from harness import BUILD, IMAGES, MODEL, PATIENCE, PICTURES, SLOW, Cluster, caption, export, wait_for
from hosts import Hosts, why_not
from proto import store_pb2, wire_pb2
from test_keys import KeyClient, Keys

pytestmark = pytest.mark.skipif(bool(why_not()), reason=f"no network namespaces: {why_not()}")
PORT = 5550


class HostCluster(Cluster):
    """The broker on host "broker"; keys for the hosts "one" and "two", and for an admin on the host "client"."""

    def __init__(self, folder, hosts, **broker):
        self.hosts, self.keys = hosts, Keys(folder / "keys")
        for name, role in (("one", "workers"), ("two", "workers"), ("root", "admins")):
            self.keys.make(name, role)
        self.tcp = f"tcp://{hosts.address('broker')}:{PORT}"
        super().__init__(folder, endpoint=f"ipc://{folder}/b, {self.tcp}", secret_key_file=self.keys.folder / "broker",
                         authorized_keys=self.keys.folder / "authorized", **broker)

    def start(self, role, name=None, env=None, host="broker", **conf):
        if role != "broker":
            conf = {"endpoint": self.tcp, **self.keys.of(host), **conf}
        return super().start(role, name, env, self.hosts.within(host), **conf)

    def workers(self, *which):
        for role, host in which:
            self.start(role, f"{role}-{host}", host=host, device="cpu")
        wait_for(lambda: self.broker.text().count("event=worker_hello") >= len(which), 60)

    def restart(self):
        """Power is cut: nobody hears that the broker is gone."""
        self.hosts.drop("broker")
        self.broker.process.kill()
        self.broker.process.wait()
        self.hosts.join("broker")
        self.broker = self.start("broker", **self.broker_conf)

    def submit(self, source, *more):
        """`blipline submit` on the host "client", to be disturbed."""
        keys = self.keys.of("root")
        conf = self.folder / ".config" / "blipline" / "client.conf"
        conf.parent.mkdir(parents=True, exist_ok=True)
        conf.write_text("".join(f"{k} = {v}\n" for k, v in {"broker": self.tcp, **keys}.items()))
        env = {k: v for k, v in os.environ.items() if k != "BLIPLINE_BROKER"}
        return subprocess.Popen([*self.hosts.within("client"), BUILD / "blipline", "submit", source, *more],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env={**env, "HOME": str(self.folder)})

    def client(self):
        with self.hosts.inside("client"):
            context = zmq.Context()
            client = KeyClient(self.tcp, self.keys, "root", context=context)
            client.hello()
        return client


@pytest.fixture
def hosts():
    with Hosts("broker", "one", "two", "client") as h:
        yield h


@pytest.fixture
def local(folder):
    """What `caption` makes of the pictures on one machine."""
    caption(IMAGES, folder / "local.lmdb")
    return folder / "local.lmdb"


def submit(client, local, path):
    """The job of `caption`: recipe and graph are those of its store. A client that comes back opens it again."""
    with lmdb.open(str(local), readonly=True, max_dbs=16, lock=False) as env, env.begin() as txn:
        meta = store_pb2.JobMeta.FromString(txn.get(b"job", db=env.open_db(b"meta", txn, create=False)))
    opening = wire_pb2.JobOpen(
        path=os.fsencode(path), recipe=wire_pb2.Recipe.FromString(meta.recipe),
        nodes=wire_pb2.JobOpen.FromString(meta.nodes).nodes, unit_items=2, create=True, source=b"test",
    )
    opened = client.ask(job_open=opening).job_opened
    client.job = opened.job
    if opened.n_items == 0:
        client.add([(p.name.encode(), os.fsencode(p)) for p in PICTURES])
    client.seal()


def n_done(client):
    return client.progress().n_done


def test_a_job_survives_loss_a_partition_and_a_host_that_goes_for_good(folder, hosts, local):
    with HostCluster(folder, hosts) as cluster:
        cluster.workers(("encoder", "one"), ("qformer", "one"), ("llm", "one"), ("llm", "two"))
        client = cluster.client()
        hosts.lose("one", 5)
        submit(client, local, folder / "s")
        wait_for(lambda: n_done(client) >= 2, 60)
        hosts.drop("two")  # for good
        hosts.join("one")
        hosts.drop("broker")  # nobody hears anybody for longer than a lease
        time.sleep(4 * SLOW)
        hosts.join("broker")
        progress = client.wait_done(120)
        assert progress.n_failed == 0 and progress.n_done == len(PICTURES)
        client.close()
        assert cluster.broker.stop() == 0
    assert export(folder / "s") == export(local)


def test_a_client_that_vanishes_and_a_broker_host_that_restarts(folder, hosts, local):
    with HostCluster(folder, hosts) as cluster:
        cluster.workers(("encoder", "one"), ("qformer", "two"), ("llm", "two"))
        client = cluster.client()
        submit(client, local, folder / "s")
        wait_for(lambda: n_done(client) >= 2, 60)
        hosts.drop("client")  # nobody says Bye
        cluster.restart()
        hosts.join("client")
        client.close()
        client = cluster.client()
        submit(client, local, folder / "s")
        progress = client.wait_done(120)
        assert progress.n_failed == 0 and progress.n_done == len(PICTURES)
        client.close()
        assert cluster.broker.stop() == 0
    assert export(folder / "s") == export(local)


def end(process):
    out, err = process.communicate(timeout=120 * PATIENCE * SLOW)
    assert process.returncode == 0, err
    return out, err


def test_a_submission_whose_client_vanishes_half_way_is_one_job(folder, hosts):
    listing, n = folder / "list.txt", 200000
    listing.write_text("".join(f"/pictures/{i:07}.jpg\n" for i in range(n)))
    with HostCluster(folder, hosts, state_dir=folder / "state") as cluster:
        cut = cluster.submit(f"@{listing}", "--device", "null")
        wait_for(lambda: "event=job_opened job=1" in cluster.broker.text(), step=0.001)
        cut.send_signal(signal.SIGSTOP)
        hosts.drop("client")  # the broker does not hear that it is gone
        cut.kill()
        assert cut.communicate()[0] == ""
        hosts.join("client")
        assert end(cluster.submit(f"@{listing}", "--device", "null"))[0] == "1\n"
        client = cluster.client()
        assert client.ask(job_open=wire_pb2.JobOpen(job=1)).job_opened.n_items == n
        assert list(client.jobs()) == [1]
        client.close()
        assert cluster.broker.stop() == 0


def test_who_waits_outlasts_the_broker_host_and_hosts_that_hear_nothing(folder, hosts, local):
    with HostCluster(folder, hosts, state_dir=folder / "state") as cluster:
        cluster.workers(("encoder", "one"), ("encoder", "two"), ("qformer", "two"), ("llm", "two"))
        waits = cluster.submit(IMAGES, "--model", MODEL, "--unit", "2", "--wait")
        assert waits.stdout.readline() == "1\n"
        hosts.drop("one", f"tcp sport {PORT}")  # it is heard, and hears nothing
        store = folder / "state" / "jobs" / "00000001.lmdb"
        client = cluster.client()
        client.job = client.ask(job_open=wire_pb2.JobOpen(job=1)).job_opened.job
        wait_for(lambda: n_done(client) >= 2, 60)
        cluster.restart()
        hosts.join("one")
        end(waits)
        client.close()
        assert cluster.broker.stop() == 0
    assert export(store) == export(local)
