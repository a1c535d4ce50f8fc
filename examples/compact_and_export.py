"""Train the norms and the head of a random network on digits, take out the channels that this
switched off, and write what is left for other programs: a plain safetensors file, and ONNX if its
packages are there. On the command line: gammabeta train, compact, export.

    pip install 'gammabeta[demo,export]'
    python examples/compact_and_export.py
"""

import argparse
import tempfile
from pathlib import Path

import torch

import gammabeta
from gammabeta import deploy
from gammabeta.compact import compact_module, load
from gammabeta.compact.measure import operations, parameters
from gammabeta.export import check_format, export_bytes, onnx_session

SPEC = gammabeta.RunSpec(
    model="cifar_resnet_8", trainable="bn+output", data="digits", epochs=3, batch_size=32,
    weight_decay_by_role={"gamma": 0.01},  # pulls gammas to zero, so that there is much to take out
)  # fmt: skip


@torch.no_grad()
def accuracy(network, batches):
    """Of all test images."""
    correct = [(network(images).argmax(1) == labels) for images, labels in batches.test()]
    return torch.cat(correct).double().mean().item()


def main(spec=SPEC, threshold=0.01):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = gammabeta.train(spec, runs=folder / "runs", listen=gammabeta.progress)
        deployed = deploy.open_run(run)  # the trained network, and its test images
        network, batches, few = deployed.network, deployed.batches, deployed.few

        # Gammas below the threshold become zero: this alone changes something. All else is exact,
        # and checked in fp64 before it is returned. Works for any network with BatchNorm.
        made = compact_module(network, few, threshold=threshold, about=deployed.about)
        print(f"{sum(made.switched_off.values())} gammas below {threshold:g} became zero")
        for row in made.ledger.layers():
            if row["after"] < row["before"]:
                print(f"  {row['layer']:19} {row['before']:3} -> {row['after']:3} channels")
        for title, each in (("original", network), ("compact", made.network)):
            print(
                f"{title:9} {parameters(each):,} parameters, {operations(each, few[:1]):,} "
                f"operations, test {accuracy(each, batches):.1%}"
            )

        file = folder / "compact.safetensors"
        made.save(file)
        again = load(file)  # gammabeta/compact/network.py alone can do this
        same = torch.equal(again(few), made.network(few))
        print(f"{file.stat().st_size:,} bytes of safetensors; loaded, it is the same: {same}")

        try:
            check_format(".onnx")
        except gammabeta.InputError as error:
            print(error)
            return
        data, _ = export_bytes(made.network, few, ".onnx", deployed.about)
        (logits,) = onnx_session(data).run(None, {"images": few.numpy()})
        apart = (torch.from_numpy(logits) - network(few)).abs().max().item()
        print(f"{len(data):,} bytes of ONNX; in onnxruntime within {apart:.2g} of the original")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="a smaller network that computes the same")
    parser.add_argument("--threshold", type=float, default=0.01, help="of gammas (0.01)")
    main(threshold=parser.parse_args().threshold)
