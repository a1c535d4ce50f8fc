"""One run in several processes (gloo, CPU): the numbers of one process; when one ends, all do."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from few import SPEC as FEW
from several import command, dies, doubled, flags, started, trains

from gammabeta import RunSpec, load_run, train
from gammabeta.build import load_data, make_network
from gammabeta.cli import main
from gammabeta.data.augment import augment, epoch_plan, normalise
from gammabeta.schedule import learning_rate_factor

# 70 images: two steps of 32 and one of 6; for three processes no share is like another
SPEC = FEW.replace(epochs=2, optimizer="sgd", lr=0.05)


def trained(specs, folder, engine, count=2):
    for code, text, _ in started(
        trains, count, folder / "said", [spec.to_json() for spec in specs], folder, engine
    ):
        assert code == 0, text
    return [load_run(folder / spec.id) for spec in specs]


def assert_equal(one, two, rtol=1e-9):
    """Up to rounding in double precision, and the clock."""
    assert (one.id, one.spec, one.folder.inputs) == (two.id, two.spec, two.folder.inputs)
    for ours, theirs in zip([*one.metrics, one.result], [*two.metrics, two.result], strict=True):
        assert ours.keys() == theirs.keys()
        for key in [key for key in ours if key != "status" and not key.endswith("seconds")]:
            assert theirs[key] == pytest.approx(ours[key], rel=max(rtol, 1e-12)), key
    tensors, others = (run.folder.load_checkpoint()[0].tensors for run in (one, two))
    assert tensors.keys() == others.keys()
    for name, value in tensors.items():
        torch.testing.assert_close(others[name], value, rtol=rtol, atol=rtol, msg=name)


@pytest.mark.parametrize("engine", ["lean", pytest.param("eager", marks=pytest.mark.slow)])
def test_two_processes_give_the_numbers_of_one(tmp_path, monkeypatch, engine):
    specs = [SPEC.replace(trainable=words) for words in ("bn", "all", "random:2")]
    specs.append(SPEC.replace(statistics="batch", optimizer="adam", label_smoothing=0.1))
    specs.append(SPEC.replace(statistics="frozen", trainable="bn+output"))
    runs = trained(specs, tmp_path / "two", engine)
    doubled(monkeypatch.setattr)
    for spec, run in zip(specs, runs, strict=True):
        assert_equal(run, train(spec, tmp_path / "one", engine="eager", device="cpu"))
        [session] = run.folder.env["sessions"]
        assert (session["processes"], session["sync_bn"], session["engine"]) == (2, True, engine)


def test_three_processes_with_unequal_shares(tmp_path, monkeypatch):
    [run] = trained([SPEC], tmp_path / "three", "lean", count=3)
    doubled(monkeypatch.setattr)
    assert_equal(run, train(SPEC, tmp_path / "one", engine="eager", device="cpu"))


def sums(folder):
    from gammabeta.processes import joined

    with joined(torch.device("cpu")) as processes:
        rank, found = processes.rank, {}
        for size in (1, 999, 1 << 18):  # the middle one by ours, the others by gloo's own sum
            found[size] = torch.arange(size, dtype=torch.float64) * 10**rank
            processes.sum(found[size])
        found["order"] = torch.full((9,), (1e16, -1e16, 1.0)[rank], dtype=torch.float64)
        processes.sum(found["order"])
        torch.save(found, folder / f"{rank}.pt")


def test_small_and_large_sums(tmp_path):
    assert [code for code, *_ in started(sums, 3, tmp_path, tmp_path)] == [0, 0, 0]
    for rank in range(3):
        summed = torch.load(tmp_path / f"{rank}.pt")
        assert torch.equal(summed.pop("order"), torch.ones(9, dtype=torch.float64))  # 0 otherwise
        for size, found in summed.items():
            assert torch.equal(found, torch.arange(size, dtype=torch.float64) * 111)


def in_double(folder):
    """Gradients of a small network whose BatchNorms are lean, or stock and synchronised."""
    from gammabeta import lean
    from gammabeta.engine.synced import synchronise
    from gammabeta.processes import joined

    with joined(torch.device("cpu")) as processes:
        for how in ("lean", "stock"):
            network, images, labels = small_network()
            start, stop = processes.share(0, len(images))
            if how == "lean":
                rows = lean.convert(network, processes)
                assert [row.how for row in rows if "norm" in row.how] == ["norm + relu", "norm"]
            else:
                synchronise(network, processes)
            loss = F.cross_entropy(network(images[start:stop]), labels[start:stop])
            (loss * ((stop - start) / len(images))).backward()
            processes.sum_gradients(network.parameters())
            if processes.rank == 1:
                torch.save(kept(network), folder / f"{how}.pt")


def small_network():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
        torch.nn.Conv2d(4, 5, 3), torch.nn.BatchNorm2d(5), torch.nn.Flatten(),
        torch.nn.Linear(20, 3),
    ).double()  # fmt: skip
    return network, torch.randn(7, 3, 6, 6).double() + 100, torch.arange(7) % 3


def kept(network):
    found = {f"d {name}": each.grad for name, each in network.named_parameters()}
    return found | {name: each.clone() for name, each in network.named_buffers()}


def test_statistics_and_gradients_in_double_precision(tmp_path):
    ends = started(in_double, 2, tmp_path, tmp_path)
    assert [code for code, *_ in ends] == [0, 0], ends
    network, images, labels = small_network()
    F.cross_entropy(network(images), labels).backward()
    expected = kept(network)
    for how in ("lean", "stock"):
        found = torch.load(tmp_path / f"{how}.pt")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-10, msg=name)


def test_without_sync_bn_each_share_is_normalised_by_itself(tmp_path):
    spec = SPEC.replace(norm_shares=2, trainable="bn+output")
    [run] = trained([spec], tmp_path, "lean")
    assert spec.id != spec.replace(norm_shares=1).id
    assert run.folder.env["sessions"][0]["sync_bn"] is False
    found = run.folder.load_checkpoint()[0].tensors
    for name, value in by_hand(spec).items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9, msg=name)


def by_hand(spec):
    """Two copies of the network, a share each; gradients are summed, statistics averaged."""
    data = load_data(spec)
    copies = [make_network(spec, data.num_classes) for _ in range(2)]
    for model, _ in copies:
        model.double()
    leaves = [subset.apply(model) for model, subset in copies]
    optimizer = torch.optim.SGD(leaves[0].values(), spec.lr, spec.momentum, 0, spec.weight_decay)
    images, labels = (torch.from_numpy(each) for each in (data.train.images, data.train.labels))
    for epoch in range(spec.epochs):
        plan = epoch_plan(spec.seed, epoch, len(labels), crop_padding=2, flip=spec.flip)
        for number, start in enumerate(range(0, len(labels), spec.batch_size)):
            for group in optimizer.param_groups:
                group["lr"] = spec.lr * learning_rate_factor(spec, 3 * epoch + number, 3)
            order = torch.from_numpy(plan.order)[start : start + spec.batch_size]
            optimizer.zero_grad()
            for (model, _), own, index in zip(copies, leaves, order.tensor_split(2), strict=True):
                place = [torch.from_numpy(each)[index] for each in (plan.shift, plan.flip)]
                pixels = normalise(augment(images[index], *place, 2), data.mean, data.std)
                loss = F.cross_entropy(
                    model(pixels.double()), labels[index], reduction="sum"
                ) / len(order)
                grads = torch.autograd.grad(loss, list(own.values()))
                for leaf, grad in zip(leaves[0].values(), grads, strict=True):
                    leaf.grad = grad if leaf.grad is None else leaf.grad + grad
            optimizer.step()
            for name, leaf in leaves[1].items():
                leaf.data.copy_(leaves[0][name].data)
        first, second = (dict(model.named_buffers()) for model, _ in copies)
        for name, buffer in first.items():
            if buffer.is_floating_point():
                buffer.copy_((buffer + second[name]) / 2)
                second[name].copy_(buffer)
    return copies[0][1].state(copies[0][0])


@pytest.mark.parametrize(
    ("victim", "count"),
    [(1, 2), *(pytest.param(*each, marks=pytest.mark.slow) for each in [(0, 2), (2, 3)])],
)
def test_a_killed_process_ends_the_others_and_the_run_resumes(tmp_path, victim, count):
    spec = SPEC.replace(epochs=3)
    arguments = ["train", *flags(spec), "--runs", tmp_path / "runs", "--device", "cpu"]
    # Three steps are tried out, three make an epoch: it dies in the second.
    ends = started(dies, count, tmp_path / "said", victim, 3 + 3 + 2, "killed", arguments)
    speaker = 1 if victim == 0 else 0
    for rank, (code, text, seconds) in enumerate(ends):
        assert code == (-9 if rank == victim else 1), text
        assert seconds < 60
        said = [line for line in text.splitlines() if line.startswith("gammabeta: ")]
        assert len(said) == (rank == speaker), text
        if said:
            assert f"process {victim} of {count} has gone" in said[0]
            assert "the same command again goes on" in said[0]
    stopped = load_run(tmp_path / "runs" / spec.id)
    assert stopped.folder.epochs_done == 1
    for code, text, _ in started(command, count, tmp_path / "again", *arguments):
        assert code == 0, text
    resumed = load_run(tmp_path / "runs" / spec.id)
    assert [each["epoch"] for each in resumed.metrics] == [1, 2, 3]
    if count == 3:  # and bit-identical to what was never killed
        arguments[-3] = tmp_path / "whole"
        for code, text, _ in started(command, count, tmp_path / "whole said", *arguments):
            assert code == 0, text
        assert_equal(resumed, load_run(tmp_path / "whole" / spec.id), rtol=0.0)


def test_what_one_process_fails_of_is_said_by_the_first(tmp_path):
    arguments = ["train", *flags(SPEC), "--runs", tmp_path / "runs", "--device", "cpu"]
    ends = started(dies, 2, tmp_path / "said", 1, 5, "raises", arguments)
    assert [code for code, *_ in ends] == [1, 1]
    assert "process 1 of 2: OSError: the disk with the images is gone" in ends[0][1]
    assert "gammabeta:" not in ends[1][1]
    failed = load_run(tmp_path / "runs" / SPEC.id)
    assert failed.result["status"] == "failed"
    assert "process 1 of 2" in failed.result["error"]


WRONG = [
    ("--engine fused", "the fused engine cannot run this: it works in one process, and these are"),
    ("--batch-size 1", "--batch-size 1 is fewer than the 2 processes"),
    ("--batch-size 23", "--batch-size 23 leaves 1 images for the last batch, fewer than the 2"),
    ("--norm-shares 3", "--norm-shares is 3, and there are 2 processes: write 1, or start 3"),
    ("--sync-bn --norm-shares 2", "say the same: write one of them"),
    ("--no-sync-bn --statistics frozen", "--norm-shares parts a batch, and statistics frozen"),
    ("--seeds 0-1", "several runs are trained in one process, and torchrun started 2"),
]


def each_is_refused(runs, errors):
    base = ["train", "--runs", runs, "--device", "cpu"]
    lines = []
    for number, (wrong, _) in enumerate(WRONG):
        os.environ["MASTER_PORT"] = str(int(os.environ["MASTER_PORT"]) + number)
        with errors.open("w") as file:
            kept, sys.stderr = sys.stderr, file
            given = flags(SPEC)
            if "--batch-size" in wrong:
                del given[(place := given.index("--batch-size")) : place + 2]
            code = command(*base, *given, *wrong.split())
            sys.stderr = kept
        lines.append([code, errors.read_text()])
    errors.write_text(json.dumps(lines))


def refused(folder):
    each_is_refused(folder / "runs", folder / f"errors{os.environ['RANK']}")


def test_wrong_uses_are_refused_in_one_line_by_the_first_process(tmp_path):
    for code, text, _ in started(refused, 2, tmp_path / "said", tmp_path):
        assert code in (0, None), text
    first, second = (json.loads((tmp_path / f"errors{rank}").read_text()) for rank in (0, 1))
    for (wrong, words), (code, line), (other, silence) in zip(WRONG, first, second, strict=True):
        assert (code, other, silence) == (2, 2, ""), wrong
        assert words in line, wrong
        assert line.count("\n") == 1, wrong
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("train --no-sync-bn", "--no-sync-bn is for several processes, and this is one"),
        (
            "train --norm-shares 2",
            "--norm-shares is 2, and there is 1 process: write 1, or start 2",
        ),
    ],
)
def test_shares_need_processes(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments.split(), *flags(SPEC)]) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", ["sweep --seeds 0-1", "demo"])
def test_one_process_work_is_refused_in_several(tmp_path, monkeypatch, capsys, wrong):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert main(wrong.split()) == 2
    assert "in one process, and torchrun started 2" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "2")
    assert main(["train", *flags(SPEC)]) == 2
    assert "make no sense" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_torchrun_from_the_command_line(tmp_path):
    """What the issue's command does, its worker killed by the system."""
    spec = SPEC.replace(epochs=400, schedule="constant")
    arguments = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                 "-m", "gammabeta", "train", *flags(spec), "--runs", str(tmp_path)]  # fmt: skip
    with (tmp_path / "said").open("w") as said:
        torchrun = subprocess.Popen([sys.executable, *arguments], stderr=said, stdout=said)
    try:
        metrics = tmp_path / spec.id / "metrics.jsonl"
        until = time.monotonic() + 300
        while not metrics.exists():
            assert time.monotonic() < until
            assert torchrun.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.2)
        [worker] = [
            path.name for path in Path("/proc").glob("[0-9]*") if _is_second(path, tmp_path)
        ]
        os.kill(int(worker), 9)
        assert torchrun.wait(60) == 1
    finally:
        torchrun.terminate()
        torchrun.wait(60)
    assert "gammabeta: process 1 of 2 has gone" in (tmp_path / "said").read_text()
    run = load_run(tmp_path / spec.id)
    assert 0 < run.folder.epochs_done < 400


def _is_second(process, folder):
    """Whether this is the process of rank 1 that trains in `folder`."""
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
        return str(folder).encode() in words and b"RANK=1" in (
            process / "environ"
        ).read_bytes().split(b"\0")
    except OSError:
        return False


def test_an_ordinary_run_imports_nothing_of_this(tmp_path):
    work = started(alone, 1, tmp_path / "said", SPEC.replace(epochs=1).to_json(), tmp_path)
    assert work[0][0] == 0, work[0][1]


def alone(spec, folder):
    train(RunSpec.from_dict(json.loads(spec)), folder, device="cpu")
    return int("gammabeta.processes" in sys.modules)
