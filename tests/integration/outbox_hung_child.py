"""In the place of the sending process: the first message of each channel goes out, the second one never ends."""

import json
import sys
import time

answered: set[str] = set()
for line in sys.stdin:
    job = json.loads(line)
    if job["channel"] not in answered:
        answered.add(job["channel"])
        said = {"ref": job["ref"], "channel": job["channel"], "sent": True}
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
time.sleep(600)
