"""Several jobs at once: of two models, each with workers of its own, and of one, by their priorities."""

import collections
import json
import shutil
import time

from harness import MODEL, PICTURES, ROOT, Cluster, blipline, caption, export, wait_for
from null_worker import PythonWorker
from proto import wire_pb2
from test_submit import NULL, home, long_list, submit  # noqa: F401  (home is a fixture)

T5 = ROOT / "tests" / "golden" / "t5_a"


def top(cluster):
    return json.loads(blipline("top", "--broker", cluster.endpoint, "--json").stdout)


def copies(folder, n):
    """A folder with n copies of each picture."""
    folder.mkdir()
    for i in range(n):
        for picture in PICTURES:
            shutil.copy(picture, folder / f"{i}_{picture.name}")
    return folder


def test_jobs_of_two_models_run_side_by_side(folder, home):  # noqa: F811
    state, pictures = folder / "state", copies(folder / "pictures", 4)
    with Cluster(folder, state_dir=state) as cluster:
        for role in ("encoder", "qformer", "llm"):
            cluster.start(role)
            cluster.start(role, name=f"t5-{role}", model=T5)
        wait_for(lambda: cluster.broker.text().count("event=worker_hello") == 6)
        for job, model in enumerate((MODEL, T5), 1):
            assert submit(cluster.endpoint, pictures, "--model", model, "--unit", "2").stdout == f"{job}\n"

        def both_run():
            seen = top(cluster)
            return [0 < j["done"] < j["items"] for j in seen["jobs"]] == [True, True] and seen
        seen = wait_for(both_run, step=0.01)
        assert [(s["stage"], s["model"], s["workers"]) for s in seen["stages"]] == [
            (stage, model, 1) for stage in ("encode", "qformer", "llm") for model in ("blip2-opt-demo", "t5_a")
        ]
        assert [w["state"] in ("idle", "working") for w in seen["workers"]] == [True] * 6
        wait_for(lambda: cluster.broker.text().count("event=job_done") == 2, 120)
        for job, model in enumerate((MODEL, T5), 1):
            caption(pictures, folder / f"{job}", "--model", model)
            assert export(state / "jobs" / f"{job:08}.lmdb")[1] == export(folder / f"{job}")[1]


class Counter(PythonWorker):
    """Slower than the workers before it; counts the first items of each job."""

    def __init__(self, *args):
        super().__init__(*args)
        self.seen = collections.Counter()

    def work(self, socket, envelope, frames):
        if self.seen.total() < 6000:
            self.seen[envelope.work.lease.job] += envelope.n_rows
        time.sleep(0.003)
        super().work(socket, envelope, frames)


def test_jobs_share_the_workers_by_their_priorities(folder, home):  # noqa: F811
    priorities = {1: 100, 2: 300, 3: 200}
    source = long_list(folder, 6000)
    with Cluster(folder, state_dir=folder / "state", log_level="warn") as cluster:
        for job, priority in priorities.items():
            assert submit(cluster.endpoint, source, *NULL, "--priority", priority).stdout == f"{job}\n"
        counter = Counter(cluster.endpoint, wire_pb2.STAGE_LLM)
        counter.start()
        cluster.start("qformer", device="null", null_shape="1,8")
        cluster.start("encoder", device="null", null_shape="1,8")
        wait_for(lambda: counter.seen.total() >= 6000)
        counter.stop()
        for job, priority in priorities.items():
            share, fair = counter.seen[job] / counter.seen.total(), priority / sum(priorities.values())
            assert abs(share - fair) < 0.1 * fair, counter.seen
