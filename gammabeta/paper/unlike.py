"""In what the runs of an experiment are not as published: for names of files, and in words."""

from gammabeta.paper.points import STAND_INS, View, from_jpeg, other_data, other_sets


def stem_parts(view: View) -> list[str]:
    """Scale, precision, data and size of the images, where they are not those published, as parts
    of a file's name."""
    return [
        *([view.scale.name] if view.scale.epochs is not None else []),
        *([view.precision] if view.precision != "fp32" else []),
        *([view.data] if view.data in STAND_INS else []),
        *([f"{view.image_size}px"] if view.image_size is not None else []),
        *(f"piece-{classes}-classes-{images}-images" for classes, images in other_sets(view.runs)),
    ]


def changes(view: View) -> str:
    """The same in words, and what the images were, so that a figure or a sentence alone does not
    mislead; "" where nothing was changed."""
    told = []
    if view.scale.epochs is not None:
        asked = sorted({point.epochs for point in view.experiment.points})
        length = f"{view.scale.epochs} epoch{'s' * (view.scale.epochs != 1)}"
        told.append(f"{length} instead of {' to '.join(map(str, asked[:1] + asked[1:][-1:]))}")
    if view.scale.images is not None:
        told.append(f"the first {view.scale.images:,} images")
    if view.precision != "fp32":
        told.append(view.precision)
    if view.data in STAND_INS:
        told.append(f"{view.data} images")
    if view.image_size is not None:
        told.append(f"images of {view.image_size} pixels")
    told += [f"not ImageNet: {each}" for each in other_data(view.runs)]
    told += ["JPEG"] if view.data.startswith("cifar") and from_jpeg(view.runs) else []
    return ", ".join(told)
