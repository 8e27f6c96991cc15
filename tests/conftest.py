"""The processes of a test run share the cores: before torch is imported."""

import os

cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
# For the processes that tests start, too. More threads than cores was seen 30 times slower.
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
