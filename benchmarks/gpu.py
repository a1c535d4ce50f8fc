"""Everything that waits for a GPU, in one command that stops in time and can be continued.

    python benchmarks/gpu.py --data-dir DIR --runs RUNS --out gpu.json --pack state.tar.gz \\
        [--unpack state.tar.gz] [--parts check,steps] [--limit 540]

In this order: compile the Triton kernels side by side; check that every engine computes there what
eager computes on the CPU; time steps, and members; train the paper-scale runs that RUNS does not
hold yet, going on from the checkpoints it holds; at the very end time what torch.compile makes.

Each piece is a process of its own with a time of its own (gpu_pieces.py), so one that hangs or
breaks the GPU's context takes nothing with it; after such an error it is tried again without who
caused it. The JSON is written after every piece: its result, or its error and what it had by then.
Results in it are left alone unless it is told --again.

On a machine that is lent for minutes: carry the wheels that are missing there (pip install
--target FOLDER, then PYTHONPATH=FOLDER) and the data set in folders that git ignores. --pack keeps
one archive of the JSON and the run folders, written anew whenever a piece ends, once a minute and
on every exit; the next call is given it as --unpack and goes on. All that must come back is two
files, --out and --pack:

    python benchmarks/gpu.py --data-dir data --runs runs --out $BACK/gpu.json \\
        --pack $BACK/state.tar.gz --parts compile,check,steps,members
    python benchmarks/gpu.py (the same) --unpack state.tar.gz --parts runs

Should the fused engine fail its checks, try `--again --parts compile,check` with DISABLE_MMA_V3=1
in the environment, which keeps Triton from Hopper's own matrix instructions. What compiles is kept
in ~/.triton/cache, under absolute paths: its *.cubin and *.json save the next call the compiling.

`--device cpu --limit 120 --smoke` tries the script itself.
"""

# ruff: noqa: E402  (the root comes first)

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STARTED = time.monotonic()
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import gpu_pieces
import torch

from gammabeta import RunSpec
from gammabeta.bench.members import KINDS
from gammabeta.environment import environment

PARTS = ("compile", "check", "steps", "members", "runs", "compiled")
# What share of the time that is left a part may take, and how many seconds one piece of it.
TIMES = {"compile": (0.35, 170), "check": (0.5, 100), "steps": (0.7, 110), "members": (0.6, 60),
         "runs": (0.7, 3600), "compiled": (1.0, 240)}  # fmt: skip
GRACE = 20  # seconds between the time at which a piece should end and that at which it is ended
PACK_EVERY = 60  # seconds, while a piece is under way
TRIES = 3  # of a piece, each without those who broke the ones before
ENGINES = ("eager", "fused", "lean")  # checked in this order: the first makes what they must equal
# What is timed, most wanted first.
STEPS = [
    ("cifar_resnet_14", "bn"), ("cifar_resnet_866", "bn"), ("cifar_resnet_110", "bn"),
    ("imagenet_resnet_50", "bn"), ("cifar_resnet_14", "all"), ("cifar_resnet_14", "bn+output"),
    ("cifar_resnet_110", "all"), ("cifar_resnet_110", "bn+output"), ("imagenet_resnet_50", "all"),
    ("imagenet_resnet_50", "bn+output"), ("cifar_resnet_866", "bn+output"),
    ("cifar_resnet_866", "all"),
]  # fmt: skip
# With what compiles for minutes; a deeper network would for many.
COMPILED = [
    ("cifar_resnet_14", "bn", "torch-compile"), ("imagenet_resnet_50", "bn", "torch-compile"),
    ("cifar_resnet_14", "bn", "torch-compile-max"), ("cifar_resnet_110", "bn", "torch-compile"),
    ("cifar_resnet_14", "all", "torch-compile"),
]  # fmt: skip
MEMBERS = ["cifar_resnet_14", "cifar_resnet_110"]
# What waits, most wanted first: the paper's recipe, precision as its code's fp16 option.
PAPER = [
    RunSpec(model=f"cifar_resnet_{network}", trainable=subset, seed=seed, precision="bf16")
    for seeds, networks, subset in (
        (range(1), ("14", "110", "866"), "bn"),  # whose times are asked for
        (range(5), ("14", "32", "56", "110"), "bn"),
        (range(3), ("14_32", "14_64", "14_128"), "bn"),
        (range(1), ("218", "434"), "bn"),
        (range(5), ("14", "110"), "random:2"),
        (range(5), ("14", "110"), "bn+shortcut+output"),
        (range(5), ("14", "110"), "all"),
        (range(1, 3), ("218", "434", "866"), "bn"),
    )
    for network in networks
    for seed in seeds
]
TESTED = [512, 10_000]  # images of the test sets: of synthetic, which checks use, and CIFAR-10
SMALL = "cifar_resnet_8_4"
SMOKE = [RunSpec(model=SMALL, data="synthetic", epochs=2, subsample=256)]


def jobs(smoke: bool) -> list[dict[str, Any]]:
    """What to compile ahead, most wanted first: the launches of the checks, of batches of CIFAR-10
    with the last one, of evaluations, and of members."""
    if smoke:
        case = vars(gpu_pieces.SMOKE[0]) | {"model": SMALL, "batches": (16,)}
        job = {"what": "check", "engine": "lean", "precision": "bf16", "case": case}
        return [job | {"tested": []}]
    found, known = [], []
    for precision in ("fp32", "bf16"):  # the longest first
        case: dict[str, Any] = {"model": "cifar_resnet_14", "subset": "bn", "batches": (128, 80)}
        job = {"what": "check", "engine": "fused", "precision": precision, "tested": TESTED[:1]}
        # A block of this has all neighbours that there are in deeper networks, up to 866 layers.
        deeper = case | {"model": "cifar_resnet_20"}
        found.append(job | {"tested": TESTED, "case": deeper})
        case = case | {"batches": (64, 40)}
        small = case | {"model": "cifar_resnet_8"}
        found += [job | {"case": case}, job | {"case": small}]
        found.append(job | {"engine": "lean", "case": small | {"subset": "bn+output"}})
        found += [
            job | {"case": vars(each) | {"batches": (64, 40)}}
            for each in gpu_pieces.CHECKS
            if each.changes
        ]
        found += [
            {"what": "members", "kind": kind, "model": "cifar_resnet_14", "trainable": "bn",
             "batch": 128, "precision": precision}
            for kind in KINDS
        ]  # fmt: skip
        # A classifier that trains has nearly the same kernels: after those, not beside them.
        known.append(job | {"case": case | {"subset": "bn+output"}})
    return found + known


class Report:
    """The JSON: what it holds, and when it was measured."""

    def __init__(self, path: Path, again: bool) -> None:
        self.path, self.again = path, again
        self.values: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self.commit = environment(torch.device("cpu"))["commit"]

    def has(self, part: str, name: str) -> bool:
        """What a check has licensed is licensed for its commit only."""
        found = self.values.get(part, {}).get(name, {})
        if self.again or "result" not in found:
            return False
        return part != "check" or found["environment"]["commit"] == self.commit

    def add(self, part: str, name: str, found: dict[str, Any]) -> None:
        self.values.setdefault(part, {})[name] = found
        written = self.path.with_suffix(".part")
        written.write_text(json.dumps(self.values, indent=1) + "\n")
        written.replace(self.path)

    def checks(self) -> list[dict[str, Any]]:
        """The rows of all checks that came to their end."""
        pieces = self.values.get("check", {}).values()
        return [row for each in pieces for row in each.get("result", [])]


def pack(archive: Path | None, out: Path, runs: Path) -> None:
    """The JSON and the run folders, as they are now. A file that goes in the middle of it makes it
    wait for the next time."""
    if archive is None:
        return
    part = archive.with_name(archive.name + ".part")
    try:
        with tarfile.open(part, "w:gz") as made:
            for path, name in ((out, "gpu.json"), (runs, "runs")):
                if path.exists():
                    made.add(path, name)
        part.replace(archive)
    except FileNotFoundError:
        part.unlink(missing_ok=True)


def unpack(archive: Path, out: Path, runs: Path) -> None:
    """The inverse. What is there already stays as it is."""
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
        pairs = [(Path(folder) / "gpu.json", out)]
        pairs += [(each, runs / each.name) for each in (Path(folder) / "runs").glob("*")]
        for source, home in pairs:
            if source.exists() and not home.exists():
                home.parent.mkdir(parents=True, exist_ok=True)
                subprocess.run(["cp", "-r", str(source), str(home)], check=True)


class Session:
    """Runs pieces until the time is over. Never uses the GPU itself."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.deadline = STARTED + options.limit
        self.report = Report(options.out, options.again)
        self.process: subprocess.Popen[bytes] | None = None

    def part(self, name: str, pieces: list[tuple[str, dict[str, Any]]]) -> None:
        """All pieces of a part that are not in the report yet, as long as its time lasts."""
        share, most = TIMES[name]
        left = self.deadline - GRACE - time.monotonic()
        last = name == self.options.parts[-1]
        end = time.monotonic() + (1.0 if last else share) * left
        for title, piece in pieces:
            seconds = min(end - time.monotonic(), most)
            if seconds <= 0 or self.report.has(name, title):
                continue
            print(f"{name}: {title}", flush=True)
            found = self.tried({"part": name, **piece}, time.monotonic() + seconds)
            self.report.add(name, title, found)
            self.pack()

    def tried(self, piece: dict[str, Any], end: float) -> dict[str, Any]:
        """A piece, and again without who broke it, until the end."""
        avoid: list[str] = []
        broke: list[str] = []
        for _ in range(TRIES):
            started = time.monotonic()
            found = self.answer(piece | {"avoid": avoid}, end - started)
            found["seconds"] = round(time.monotonic() - started, 1)
            culprit = found.pop("broke", None)
            if culprit is not None:
                broke.append(f"{culprit}: {found.get('error')}")
                found["broke"] = broke
            again = culprit is not None and culprit not in avoid and piece["part"] != "compiled"
            if broke and not again:
                found["broke"] = broke
            if not again or time.monotonic() > end:
                break
            avoid.append(culprit)
        if "result" in found:
            found.pop("partial", None)
        return found

    def answer(self, piece: dict[str, Any], seconds: float) -> dict[str, Any]:
        """What a process has to say that does the piece. It is killed if it does not end."""
        options, answer = self.options, self.folder / "answer.json"
        answer.unlink(missing_ok=True)
        piece |= {
            "end": time.time() + seconds, "device": options.device, "smoke": options.smoke,
            "cache": str(self.folder), "runs": str(options.runs), "data_dir": options.data_dir,
        }  # fmt: skip
        task = self.folder / "piece.json"
        task.write_text(json.dumps(piece))
        command = [sys.executable, str(Path(gpu_pieces.__file__)), str(task), str(answer)]
        self.process = subprocess.Popen(command, start_new_session=True)
        killed = not self.ends(seconds + GRACE)
        code = self.process.returncode
        found: dict[str, Any] = json.loads(answer.read_text()) if answer.exists() else {}
        under_way = found.pop("under_way", None)
        if killed or not {"result", "error"} & found.keys():
            found["error"] = (
                f"killed after {seconds + GRACE:.0f} s" if killed else f"died with {code}"
            )
            if under_way is not None:
                found["error"] += f", at {under_way}"
                found.setdefault("broke", under_way)
        return found

    def ends(self, seconds: float) -> bool:
        """Wait for the process, and pack now and then. False: it had to be killed."""
        assert self.process is not None
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(min(left, PACK_EVERY))
                return True
            self.pack()
        self.kill()
        return False

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def pack(self) -> None:
        pack(self.options.pack, self.options.out, self.options.runs)


@contextlib.contextmanager
def ended(session: Session) -> Iterator[None]:
    """Whatever ends this: the process under way ends too, and all is packed."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        session.kill()
        session.pack()


def work(session: Session) -> None:
    options, report = session.options, session.report
    only = None if options.models is None else options.models.split(",")
    steps, members, specs, compiled = STEPS, MEMBERS, PAPER, COMPILED
    if options.smoke:
        steps, members, specs, compiled = [(SMALL, "bn")], [SMALL], SMOKE, []

    def wanted(model: str) -> bool:
        return only is None or model in only

    def batch(model: str) -> int | None:
        return 16 if options.smoke else options.imagenet_batch if "imagenet" in model else None

    pieces: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "compile": [("kernels", {"jobs": jobs(options.smoke)})],
        "check": [(name, {"engine": name}) for name in ENGINES],
        "steps": [
            (f"{model}, {subset}",
             {"model": model, "subset": subset, "batch": batch(model), "compiled": []})
            for model, subset in steps if wanted(model)
        ],
        "members": [
            (f"{model}, {kind}, {precision}",
             {"model": model, "kind": kind, "precision": precision, "batch": batch(model)})
            for model in members if wanted(model)
            for kind in KINDS for precision in ("bf16", "fp32")
        ],
        "compiled": [
            (f"{model}, {subset}, {name}",
             {"model": model, "subset": subset, "batch": batch(model), "compiled": [name]})
            for model, subset, name in compiled if wanted(model)
        ],
    }  # fmt: skip
    for part in options.parts:
        if part == "runs":  # what is trained already costs nothing
            report.values.pop("runs", None)
            chosen = [spec.to_dict() for spec in specs if wanted(spec.model)]
            pieces[part] = [("paper", {"specs": chosen, "checks": report.checks()})]
        session.part(part, pieces[part])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--pack", type=Path, help="archive of --out and --runs to write")
    parser.add_argument("--unpack", type=Path, help="archive of an earlier call to go on from")
    parser.add_argument("--limit", type=float, default=540, help="seconds for all of it")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", default=",".join(PARTS), help=",".join(PARTS))
    parser.add_argument("--models", help="A,B: steps, members and runs of these networks only")
    parser.add_argument("--imagenet-batch", type=int, default=64)
    parser.add_argument("--again", action="store_true", help="measure what is there, too")
    parser.add_argument("--smoke", action="store_true", help="tiny: to try the script itself")
    options = parser.parse_args()
    asked = options.parts.split(",")
    if set(asked) - set(PARTS):
        raise SystemExit(f"--parts is {options.parts}: write some of {','.join(PARTS)}")
    options.parts = [part for part in PARTS if part in asked]
    if options.unpack is not None:
        if not options.unpack.is_file():
            raise SystemExit(f"--unpack is {options.unpack}, which is no file: leave it out")
        unpack(options.unpack, options.out, options.runs)
    with tempfile.TemporaryDirectory() as folder:
        session = Session(options, Path(folder))
        with ended(session):
            work(session)
    values = session.report.values
    print(json.dumps({part: list(values.get(part, {})) for part in PARTS}))
    if any(not row["good"] for row in session.report.checks()):
        raise SystemExit(f"the device computes something else than the CPU: see {options.out}")


if __name__ == "__main__":
    main()
