"""A broker, two worker hosts and a client, each with an address of its own, over a network that fails."""

import os
import time

import lmdb
import pytest
import zmq
from harness import IMAGES, PICTURES, SLOW, Cluster, caption, export, wait_for
from hosts import Hosts, why_not
from proto import store_pb2, wire_pb2
from test_keys import KeyClient, Keys

pytestmark = pytest.mark.skipif(bool(why_not()), reason=f"no network namespaces: {why_not()}")
PORT = 5550


class HostCluster(Cluster):
    """The broker on host "broker"; keys for the hosts "one" and "two", and for an admin on the host "client"."""

    def __init__(self, folder, hosts):
        self.hosts, self.keys = hosts, Keys(folder / "keys")
        for name, role in (("one", "workers"), ("two", "workers"), ("root", "admins")):
            self.keys.make(name, role)
        self.tcp = f"tcp://{hosts.address('broker')}:{PORT}"
        super().__init__(folder, endpoint=f"ipc://{folder}/b, {self.tcp}", secret_key_file=self.keys.folder / "broker",
                         authorized_keys=self.keys.folder / "authorized")

    def start(self, role, name=None, env=None, host="broker", **conf):
        if role != "broker":
            conf = {"endpoint": self.tcp, **self.keys.of(host), **conf}
        return super().start(role, name, env, self.hosts.within(host), **conf)

    def workers(self, *which):
        for role, host in which:
            self.start(role, f"{role}-{host}", host=host, device="cpu")
        wait_for(lambda: self.broker.text().count("event=worker_hello") >= len(which), 60)

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
        cluster.broker.process.kill()  # and its peers do not hear that it is gone
        hosts.drop("broker")
        cluster.broker.process.wait()
        hosts.join("broker")
        cluster.broker = cluster.start("broker", **cluster.broker_conf)
        hosts.join("client")
        client.close()
        client = cluster.client()
        submit(client, local, folder / "s")
        progress = client.wait_done(120)
        assert progress.n_failed == 0 and progress.n_done == len(PICTURES)
        client.close()
        assert cluster.broker.stop() == 0
    assert export(folder / "s") == export(local)
