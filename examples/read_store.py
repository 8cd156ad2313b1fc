#!/usr/bin/python3
"""Print key and captions of a job store: read_store.py STORE [FOLDER_OF_GENERATED_CLASSES]   (make python-proto makes
them; elsewhere: protoc --python_out=FOLDER proto/*.proto)"""

import os, struct, sys
if len(sys.argv) < 2:
    sys.exit(__doc__)
sys.path.insert(0, sys.argv[2] if len(sys.argv) > 2 else "build/gen-python")
import lmdb
from proto import store_pb2

try:
    env = lmdb.open(sys.argv[1], readonly=True, create=False, max_dbs=8, map_size=1 << 40)
    manifest, items = env.open_db(b"manifest", create=False), env.open_db(b"items", create=False)
    with env.begin() as txn:
        for unit, row in txn.cursor(manifest):
            for item in store_pb2.ManifestUnit.FromString(row).items:
                record = store_pb2.Record.FromString(txn.get(struct.pack(">Q", item.item), db=items) or b"")
                captions = " | ".join(c.text.decode() for c in record.captions)
                print(
                    item.key.decode("utf-8", "backslashreplace"),
                    captions or record.error.code.decode() or "(not yet)", sep="\t",
                )
    sys.stdout.flush()
except lmdb.Error as error:
    sys.exit(f"cannot read a job store there: {error}")
except BrokenPipeError:  # the reader, such as `head`, has ended: do not flush to it again
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)
