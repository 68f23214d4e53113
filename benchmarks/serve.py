"""Requests a second, times and memory of servers of one classifier: ours, transformers in FastAPI, LitServe.

    apt-get install wrk hey
    pip install litserve
    python benchmarks/serve.py MODEL sst2/dev.tsv [--seconds 15] [--soak 100000] [--server bothways --server naive]

MODEL is the directory of a fine-tuned classifier with its safetensors and its int8 ONNX model. TEXTS is a file that
`bothways predict` reads, of short texts (SST-2). All servers run the same weights, one after the other, on loopback,
beside the load generators: `wrk` for a number of clients that each wait for their answer, `hey` for a given rate.

serve_naive.py     `transformers.pipeline` in a FastAPI route, fp32, one text at a time, as it comes
serve_litserve.py  LitServe around the same int8 ONNX model: batches of up to 16 in the order in which they come, padded
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SERVERS = ("bothways", "naive", "litserve")
ROUTES = {"bothways": "/v1/classify", "naive": "/predict", "litserve": "/predict"}
HEAD = "| scenario | requests/s | p50 ms | p99 ms | rejected | errors |\n|---|---|---|---|---|---|"
LONGEST = 512  # tokens of the mixed texts


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of a load generator found; `rejected` are answers 429 and 503, `errors` all others but 200."""

    scenario: str
    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    rejected: int
    errors: int


@contextmanager
def serving(name: str, model: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server as a process of its own, which answers when the block begins."""
    command = [sys.executable, "-m", "bothways", "serve", f"model={model}", "--port", str(port), "--quiet"]
    if name != "bothways":
        command = [sys.executable, str(Path(__file__).with_name(f"serve_{name}.py")), model, str(port)]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        until = time.monotonic() + 180
        while not _answers(name, port):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{name} did not start")
            time.sleep(0.2)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(name: str, port: int) -> bool:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{ROUTES[name]}", b'{"inputs": "good"}', {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def wrk(scenario: str, url: str, texts: Sequence[str], clients: int, seconds: int, folder: Path) -> Load:
    """`clients` connections, each with a request at a time, for some seconds."""
    script = folder / "texts.lua"
    bodies = ",\n".join(_lua(json.dumps({"inputs": text})) for text in texts)
    script.write_text(
        f"local bodies = {{\n{bodies}\n}}\nlocal place = math.random(#bodies)\n"
        'local headers = {["Content-Type"] = "application/json"}\n'
        "local rejected, errors = 0, 0\n"
        "function request()\n  place = place % #bodies + 1\n"
        '  return wrk.format("POST", nil, headers, bodies[place])\nend\n'
        "function response(status)\n"
        '  if status == 429 or status == 503 then wrk.thread:set("rejected", (wrk.thread:get("rejected") or 0) + 1)\n'
        '  elseif status ~= 200 then wrk.thread:set("errors", (wrk.thread:get("errors") or 0) + 1) end\nend\n'
        "local mine\nfunction setup(thread) mine = thread end\n"
        "function done(summary, latency)\n"
        '  local rejected, errors = mine:get("rejected") or 0, mine:get("errors") or 0\n'
        "  local e = summary.errors\n  errors = errors + e.connect + e.read + e.write + e.timeout\n"
        '  io.write(string.format("found %d %d %.3f %.3f %d %d\\n", summary.requests, summary.duration,\n'
        "    latency:percentile(50) / 1000, latency:percentile(99) / 1000, rejected, errors))\nend\n"
    )
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "60s", "-s", str(script), url]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"found (\d+) (\d+) ([\d.]+) ([\d.]+) (\d+) (\d+)", shown)
    if found is None:
        raise SystemExit(f"wrk said: {shown}")
    requests, microseconds = int(found[1]), int(found[2])
    rejected, errors = int(found[5]), int(found[6])
    good = requests - rejected
    return Load(scenario, requests, good / microseconds * 1e6, float(found[3]), float(found[4]), rejected, errors)


def hey(scenario: str, url: str, text: str, rate: float, seconds: int, clients: int) -> Load:
    """Requests at a rate, whether the server follows or not (as far as `clients` connections can send them)."""
    body = json.dumps({"inputs": text})
    command = ["hey", "-z", f"{seconds}s", "-c", str(clients), "-q", f"{max(rate / clients, 0.01):.2f}", "-t", "60"]
    command += ["-m", "POST", "-T", "application/json", "-d", body, "-o", "csv", url]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    rows = [line.split(",") for line in lines]
    times = sorted(float(row[0]) * 1000 for row in rows if row[6] == "200")
    rejected = sum(row[6] in ("429", "503") for row in rows)
    if not times:
        raise SystemExit(f"{url}: no request was answered")
    p50, p99 = (times[int(share * (len(times) - 1))] for share in (0.5, 0.99))
    return Load(scenario, len(rows), len(times) / seconds, p50, p99, rejected, len(rows) - len(times) - rejected)


def measured(name: str, port: int, texts: Sequence[str], options: argparse.Namespace, folder: Path) -> Iterator[Load]:
    """All scenarios of one server."""
    url, seconds = f"http://127.0.0.1:{port}{ROUTES[name]}", options.seconds
    wrk("warm-up", url, texts, 4, min(3, seconds), folder)
    peak = 0.0
    for clients in (1, 16, 64):
        load = wrk(f"{clients} client{'s' if clients > 1 else ''}", url, texts, clients, seconds, folder)
        peak = max(peak, load.per_second)
        yield load
    yield wrk("16 clients, to 512 tokens", url, mixed(texts), 16, seconds, folder)
    bursts = []
    for number in range(3):
        time.sleep(1)
        bursts.append(wrk(f"burst {number + 1} of 256 clients", url, texts, 256, 2, folder))
    yield max(bursts, key=lambda load: load.p99_ms)
    typical = sorted(texts, key=len)[len(texts) // 2]
    yield hey("half of the peak rate", url, typical, peak / 2, seconds, clients=8)
    yield hey("twice the peak rate", url, typical, 2 * peak, seconds, clients=800)


def mixed(texts: Sequence[str]) -> list[str]:
    """Texts of all lengths up to about 512 tokens, as many short as long ones: joined short ones."""
    found = []
    for number in range(len(texts)):
        words = " ".join(texts[number:] + texts[:number]).split()
        found.append(" ".join(words[: 1 + number * (LONGEST * 3 // 4) // len(texts)]))
    return found


def memory(process: subprocess.Popen[bytes]) -> float:
    """Resident memory of a process and its children, in MB."""
    total, waiting = 0, [process.pid]
    while waiting:
        pid = waiting.pop()
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except FileNotFoundError:
            continue
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        total += int(found[1]) if found else 0
    return total / 1024


def soak(url: str, texts: Sequence[str], requests: int, process: subprocess.Popen[bytes], folder: Path) -> list[float]:
    """Memory before, at each tenth of, and after many requests of 16 clients, in MB."""
    found, done = [memory(process)], 0
    for tenth in range(1, 11):
        while done < requests * tenth / 10:
            load = wrk("soak", url, texts, 16, 5, folder)
            done += load.requests
        found.append(memory(process))
    return found


def _lua(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _texts(path: str) -> list[str]:
    from bothways.data.tables import Columns
    from bothways.tasks import TASKS

    return [one.texts[0] for one in TASKS["classify"].read(path, Columns(), labeled=False) if one.texts[0].strip()]


def main() -> None:
    """Print a table for each server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("texts")
    parser.add_argument("--server", action="append", choices=SERVERS)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--count", type=int, default=800, help="texts that are sent, over and over")
    parser.add_argument("--soak", type=int, default=0, help="requests of the memory test")
    parser.add_argument("--json", help="file for all figures")
    options = parser.parse_args()
    missing = [name for name in ("wrk", "hey") if shutil.which(name) is None]
    if missing:
        parser.error(f"needs {' and '.join(missing)}: apt-get install wrk hey")
    texts = _texts(options.texts)[: options.count]
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.server or SERVERS:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            with serving(name, options.model, port) as process:
                print(f"\n{name}\n{HEAD}")
                loads = []
                for load in measured(name, port, texts, options, Path(scratch)):
                    loads.append(load)
                    print(
                        f"| {load.scenario} | {load.per_second:,.0f} | {load.p50_ms:.1f} | {load.p99_ms:.1f} | "
                        f"{load.rejected:,} | {load.errors:,} |",
                        flush=True,
                    )
                figures[name] = {"loads": [asdict(load) for load in loads], "memory_mb": memory(process)}
                print(f"memory {memory(process):.0f} MB")
                if options.soak:
                    url = f"http://127.0.0.1:{port}{ROUTES[name]}"
                    figures[name]["soak_mb"] = soak(url, texts, options.soak, process, Path(scratch))
                    print(f"memory at each tenth of {options.soak:,} requests: " + ", ".join(
                        f"{one:.0f}" for one in figures[name]["soak_mb"]
                    ))  # fmt: skip
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
