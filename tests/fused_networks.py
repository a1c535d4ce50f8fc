"""Networks for the tests of the fused programs, and the judge of these: autograd."""

import torch
import torch.nn.functional as F

from gammabeta import create_model
from gammabeta.fused.plan import make_plan
from gammabeta.fused.program import Program


def networks(name, seeds, classes=10):
    """Networks in double precision with gammas of both signs, and a zero one."""
    models = []
    for seed in seeds:
        model = create_model(name, seed=seed, norm_init="symmetric", num_classes=classes).double()
        draw = torch.Generator().manual_seed(seed)
        for norm in model.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.bias.data = 0.3 * torch.randn(norm.bias.shape, generator=draw).double()
                norm.weight.data[0] = 0
        models.append(model)
    return models


def share_the_backbone(models):
    """Give all the first one's weights; gamma and beta stay their own."""
    for model in models[1:]:
        for name, parameter in model.named_parameters():
            if "bn" not in name and "shortcut.1" not in name:
                parameter.data = models[0].get_parameter(name).data
    return models


def program_of(models, program=Program, shared=False, **options):
    """A program whose members are `models`; shared: all of them have the first one's weights."""
    plan = make_plan(models[0])
    weights = []
    for layer in plan.layers:
        each = [model.get_submodule(layer.conv).weight for model in models]
        weights.append(torch.stack(each[:1] if shared else each).detach())
    heads = models[:1] if shared else models
    made = program(
        plan,
        weights,
        torch.stack([model.fc.weight for model in heads]).detach(),
        torch.stack([model.fc.bias for model in heads]).detach(),
        members=len(models),
        **options,
    )
    for member, model in enumerate(models):
        for layer in plan.layers:
            norm = model.get_submodule(layer.norm)
            made.gamma[member, layer.place] = norm.weight.detach().to(made.exact)
            made.beta[member, layer.place] = norm.bias.detach().to(made.exact)
    return made


def batch(members, count, classes=10, seed=0):
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn(members, count, 32, 32, 3, generator=draw, dtype=torch.float64)
    return images, torch.randint(0, classes, (members, count), generator=draw)


def autograd(model, images, labels, smoothing=0.0):
    """Loss and the gradient of every parameter, by autograd. images: (N, H, W, 3)."""
    model.train()
    model.zero_grad()
    loss = F.cross_entropy(model(images.permute(0, 3, 1, 2)), labels, label_smoothing=smoothing)
    loss.backward()
    return loss, {name: parameter.grad for name, parameter in model.named_parameters()}


def check_against_autograd(made, models, images, labels, smoothing=0.0, tolerance=1e-10):
    loss, correct = made.step(images.to(made.dtype), labels, smoothing)
    for member, model in enumerate(models):
        x, y = images[member % len(images)], labels[member % len(labels)]
        expected, gradients = autograd(model, x, y, smoothing)
        close = {"rtol": tolerance, "atol": tolerance}
        torch.testing.assert_close(loss[member].double(), expected.detach(), **close)
        for layer in made.plan.layers:
            for ours, theirs in ((made.dgamma, "weight"), (made.dbeta, "bias")):
                gradient = gradients[f"{layer.norm}.{theirs}"]
                torch.testing.assert_close(
                    ours[member, layer.place].double(), gradient, **close, msg=layer.norm + theirs
                )
            norm = model.get_submodule(layer.norm)
            for ours, theirs in (
                (made.running_mean, norm.running_mean),
                (made.running_var, norm.running_var),
            ):
                torch.testing.assert_close(ours[member, layer.place].double(), theirs, **close)
        if made.head:
            torch.testing.assert_close(
                made.dweight[member].double(), gradients["fc.weight"], **close
            )
            torch.testing.assert_close(made.dbias[member].double(), gradients["fc.bias"], **close)
    return correct
