"""Real models of transformers, from small configurations: what is selected of them trains, the rest
does not move, nothing is renamed. Their import takes seconds, so they are all here."""

import copy
import runpy
from pathlib import Path

import pytest
import torch

from gammabeta import Bank, InputError, load_delta, select
from gammabeta.delta import make_delta

transformers = pytest.importorskip("transformers")

SMALL = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
    "num_labels": 3,
}  # fmt: skip
WORDS = {"vocab_size": 20, "pad_token_id": 0}


def resnet():
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3
    )
    return transformers.ResNetForImageClassification(config), {
        "pixel_values": torch.randn(4, 3, 32, 32)
    }


def vit():
    config = transformers.ViTConfig(**SMALL, image_size=16, patch_size=8)
    return transformers.ViTForImageClassification(config), {
        "pixel_values": torch.randn(4, 3, 16, 16)
    }


def bert():
    config = transformers.BertConfig(**SMALL, **WORDS)
    return transformers.BertForSequenceClassification(config), words()


def llama():
    config = transformers.LlamaConfig(**SMALL, **WORDS, num_key_value_heads=2)
    return transformers.LlamaForSequenceClassification(config), words()


def words():
    return {"input_ids": torch.randint(1, 20, (4, 5))}


# model, what its head is called, values of norms, of the head
CASES = [
    (resnet, "classifier.1", 2 * (8 + 8 + 8 + 16 * 3), 51),
    (vit, "classifier", 2 * 16 * 3, 51),
    (bert, "classifier", 2 * 16 * 3, 51),
    (llama, "score", 16 * 3, 48),
]


@pytest.mark.parametrize(("make", "head", "norms", "outputs"), CASES)
def test_a_subset_of_a_model_trains_and_nothing_else_moves(make, head, norms, outputs):
    torch.manual_seed(0)
    model, batch = make()
    keys, kinds = list(model.state_dict()), [type(each) for each in model.modules()]
    subset = select(model, "bn+output", statistics="frozen")
    assert subset.count == norms + outputs
    assert {row.name for row in subset.table if row.role == "output"} == {
        name for name in keys if name.startswith(f"{head}.")
    }
    before = {name: value.clone() for name, value in model.state_dict().items()}
    leaves = subset.apply(model)
    optimiser = torch.optim.SGD(leaves.values(), 0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(2):
        model.train()  # as every trainer does; the statistics stay all the same
        optimiser.zero_grad()
        model(**batch, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
        optimiser.step()
    assert [type(each) for each in model.modules()] == kinds
    assert list(model.state_dict()) == keys
    moved = {name for name in keys if not torch.equal(before[name], model.state_dict()[name])}
    assert moved <= leaves.keys()
    assert len(moved) > 0.9 * len(leaves)  # a beta may have no gradient in two steps


def test_a_policy_of_track_lets_the_statistics_follow():
    model, batch = resnet()
    select(model, "bn").apply(model)
    name = "resnet.embedder.embedder.normalization.running_mean"
    before = model.state_dict()[name].clone()
    model.train()(**batch)
    assert not torch.equal(before, model.state_dict()[name])


def test_roles_of_parameters_outside_known_layers_are_named():
    subset = select(vit()[0], "bn+output")
    assert subset.left_alone == {"vit.embeddings": "ViTEmbeddings, of unknown kind"}
    config = transformers.ConvNextConfig(hidden_sizes=[8] * 4, depths=[1] * 4, num_labels=3)
    scaled = select(transformers.ConvNextForImageClassification(config), "bn+output")
    assert list(scaled.left_alone) == [f"convnext.encoder.stages.{n}.layers.0" for n in range(4)]
    assert {row.name for row in subset.table if row.role == "other"} == {
        "vit.embeddings.cls_token", "vit.embeddings.position_embeddings",
    }  # fmt: skip


def llama_with(**options):
    rope = {"rope_type": "default", "rope_theta": options.pop("theta", 10000.0)}
    config = transformers.LlamaConfig(
        **SMALL, **WORDS, num_key_value_heads=2, rope_parameters=rope, **options
    )
    return transformers.LlamaForSequenceClassification(config)


def test_a_delta_fits_the_model_that_computes_the_same_and_no_other():
    trained = llama_with()
    subset = select(trained, "bn+output", statistics="frozen")
    delta = make_delta(trained, subset)

    def other(**options):
        model = llama_with(**options)
        model.load_state_dict(trained.state_dict())
        return model

    later = other(use_cache=False, attention_dropout=0.5, initializer_range=1.0)
    later.config.id2label = {0: "cat", 1: "dog", 2: "bird"}
    later.config.transformers_version = "99"
    later.config.problem_type = "single_label_classification"
    later.config.something_new = 5
    later.train().model.gradient_checkpointing = True
    later.eval()(**words(), labels=torch.tensor([0, 1, 2, 0]))
    load_delta(later, delta)
    load_delta(other().bfloat16(), delta)
    for options, what in (
        ({"theta": 100.0}, r"config.rope_parameters\[rope_theta\] 100.0 here and 10000.0"),
        ({"hidden_act": "gelu"}, "config.hidden_act"),
        ({"rms_norm_eps": 1e-3}, "config.rms_norm_eps 0.001 here"),
    ):
        with pytest.raises(InputError, match=f"another architecture: the network has {what}"):
            load_delta(other(**options), delta)
    unlike = other()
    unlike.model.rotary_emb.inv_freq.mul_(1.01)
    with pytest.raises(InputError, match=r"'model\.rotary_emb' has buffer inv_freq"):
        load_delta(unlike, delta)


def test_headless_and_tied_models_are_refused_with_the_candidates():
    config = transformers.BertConfig(**SMALL, **WORDS)
    headless = transformers.BertModel(config)
    with pytest.raises(InputError, match=r"cannot tell which .* pooler\.dense$"):
        select(headless, "output")
    assert select(headless, "output", output="pooler").count == 16 * 16 + 16
    both = transformers.BertForPreTraining(
        transformers.BertConfig(**SMALL, **WORDS, tie_word_embeddings=False)
    )
    with pytest.raises(InputError, match=r"cannot tell which .* cls\.seq_relationship$"):
        select(both, "output")
    tied = transformers.BertForMaskedLM(config)
    with pytest.raises(InputError, match=r"shares its weight with .*word_embeddings\.weight'"):
        select(tied, "bn+output")


def tasks_of(model):
    """A bank over a model, and the model of each task."""
    bank, alone = Bank(model.eval()), {}
    for number in range(2):
        network = copy.deepcopy(model)
        subset = select(network, "bn+output")
        draw = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for leaf in subset.apply(network).values():
                leaf.add_(torch.randn(leaf.shape, generator=draw))
        bank.add(f"task{number}", make_delta(network, subset))
        alone[f"task{number}"] = network.eval()
    return bank, alone


def masked():
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    return {"attention_mask": mask}


def plain_llama():
    """Attention as plain arithmetic, whose masks are arithmetic too."""
    config = transformers.LlamaConfig(
        **SMALL, **WORDS, num_key_value_heads=2, attn_implementation="eager"
    )
    return transformers.LlamaForSequenceClassification(config), words() | masked()


@pytest.mark.parametrize(
    ("make", "keywords"),
    [(resnet, {}), (vit, {}), (bert, {}), (llama, {"use_cache": False}),
     (plain_llama, {"use_cache": False})],
)  # fmt: skip
def test_a_mixed_batch_is_each_task_alone(make, keywords):
    torch.manual_seed(0)
    model, batch = make()
    bank, alone = tasks_of(model)
    tasks = ["task1", "task0", "task1", "task1"]
    with torch.no_grad():
        ours = bank.forward(tasks=tasks, **batch, **keywords).logits
        theirs = torch.cat([
            alone[task](**{key: value[n : n + 1] for key, value in batch.items()}).logits
            for n, task in enumerate(tasks)
        ])  # fmt: skip
    assert (ours - theirs).abs().max() <= 1e-6 * theirs.abs().max()


@pytest.mark.parametrize(
    ("make", "more", "why"),
    [
        (bert, masked(), "data-dependent control flow"),
        (llama, masked() | {"use_cache": False}, "data-dependent control flow"),
        (llama, {}, "DynamicCache"),
    ],
)
def test_models_that_cannot_mix_tasks_are_refused_in_one_line(make, more, why):
    model, batch = make()
    bank, alone = tasks_of(model)
    with pytest.raises(InputError, match=f"cannot mix tasks.*{why}.*write activate") as raised:
        bank.forward(tasks=["task0", "task1", "task1", "task0"], **batch, **more)
    assert "\n" not in str(raised.value)
    for task, network in alone.items():
        with torch.no_grad():
            ours, theirs = bank.activate(task)(**batch, **more), network(**batch, **more)
        assert torch.equal(ours.logits, theirs.logits)


def test_the_example_runs(capsys):
    path = Path(__file__).parents[1] / "examples" / "tune_transformers.py"
    runpy.run_path(str(path))["main"](steps=8)
    out = capsys.readouterr().out
    assert "bn+output: 650 of" in out
    assert out.count("loaded into the start it is the same: True") == 2
