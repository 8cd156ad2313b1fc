#!/usr/bin/python3
"""Line coverage by folder from gcov's data. Exit 1 if a folder that carries other people's data is below its floor."""
import collections
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile

FLOORS = {"base": 80, "proto": 80, "wire": 75, "store": 75, "broker": 75}


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    lines = collections.defaultdict(dict)
    with tempfile.TemporaryDirectory() as scratch:
        for data in build.rglob("*.gcda"):
            subprocess.run(["gcov", "--json-format", "--object-directory", str(data.parent), str(data)], cwd=scratch,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            for report in pathlib.Path(scratch).glob("*.gcov.json.gz"):
                with gzip.open(report) as f:
                    for entry in json.load(f)["files"]:
                        for line in entry["lines"]:
                            seen = lines[entry["file"]]
                            seen[line["line_number"]] = max(seen.get(line["line_number"], 0), line["count"])
                report.unlink()
    total = collections.Counter()
    hit = collections.Counter()
    for name, seen in lines.items():
        folder = name.split("/")[0]
        if name.endswith(".c") and (pathlib.Path(name).exists() and not name.startswith(("build", "tests", "/"))):
            total[folder] += len(seen)
            hit[folder] += sum(1 for count in seen.values() if count)
    low = 0
    for folder in sorted(total):
        percent = 100 * hit[folder] / total[folder]
        floor = FLOORS.get(folder)
        print(f"  {folder:16} {percent:5.1f} %  of {total[folder]} lines" + (f"  (floor {floor} %)" if floor else ""))
        low += floor is not None and percent < floor
    sys.exit(1 if low else 0)


if __name__ == "__main__":
    main()
