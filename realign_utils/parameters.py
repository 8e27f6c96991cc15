"""The schema of a profile: everything one may change, checked before any work begins.

A profile is a YAML file of `params/` (or anywhere). Its top-level keys are the papermill parameters
of the notebooks: each notebook declares those that it reads, and no others exist.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

FILE_NAME = "letters, digits, - and _, since it becomes part of file names"

PoolingName = Literal["mean", "cls", "flatten"]
ArithmeticName = Literal["channels_last", "bfloat16", "float16", "compile"]
InterpolationName = Literal["timm", "nearest", "bilinear", "bicubic", "lanczos"]


FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", description=FILE_NAME)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Sample(_Section):
    number: int | None = Field(
        500, ge=8, description="images to sample, stratified by class, 8 or more; null: all"
    )
    seed: int = Field(0, ge=0, description="seed of the sample")


class Patches(_Sample):
    """Patches of the pictures that ship inside scikit-image and scikit-learn (the demo's images)."""

    kind: Literal["patches"]
    split: Literal["train", "validation", "proxy_low", "proxy_full", "evaluation"] = Field(
        description="which cells of the pictures' grid the patches are cut from"
    )
    classes: Literal["all"] | list[str] = Field("all", description="pictures to cut from")
    resolution: int = Field(
        32,
        ge=4,
        le=32,
        description="pixels a side before scaling up to 32: low resolution below 32",
    )
    cells: int | None = Field(
        None,
        ge=1,
        le=20,
        description="how many of each picture's cells patches are cut from; null: all of the split",
    )


class _Files(_Sample):
    manifest: str | None = Field(
        None, description="CSV that an earlier run left: its very images, instead of a sample"
    )


class Cifar100(_Files):
    """CIFAR-100 in torchvision's layout."""

    kind: Literal["cifar100"]
    classes: Literal["all"] | list[str] = Field("all", description="fine classes to take")
    root: str = Field("data", description="folder that holds the archive or cifar-100-python/")
    download: bool = Field(False, description="download what is missing")
    train: bool = Field(False, description="the training images instead of the test images")


class Imagenette(_Files):
    """Imagenette in torchvision's layout."""

    kind: Literal["imagenette"]
    root: str = Field("data", description="folder that holds the archive or its extracted tree")
    size: Literal["full", "320px", "160px"] = Field("320px", description="torchvision's size name")
    download: bool = Field(False, description="download what is missing")
    train: bool = Field(False, description="the training images instead of the validation images")


class ImageFolder(_Files):
    """A folder of images: flat, or one folder per class, at any depth."""

    kind: Literal["imagefolder"]
    path: str = Field(description="the folder")
    dataset_name: str = Field("images", description="the challenge's name of the data set")
    border: int | None = Field(
        None, ge=0, description="pixels to cut off each side; null: 1 for objectnet, else 0"
    )


SOURCES: dict[str, type[BaseModel]] = {
    "patches": Patches,
    "cifar100": Cifar100,
    "imagenette": Imagenette,
    "imagefolder": ImageFolder,
}
"""Kinds of images, by the value of their key ``kind``."""

ImageSource = Annotated[Patches | Cifar100 | Imagenette | ImageFolder, Field(discriminator="kind")]


class Count(_Section):
    """How many models of a kind a set may hold."""

    at_least: int | None = Field(None, ge=0, description="not fewer; null: no such limit")
    at_most: int | None = Field(None, ge=0, description="not more; null: no such limit")


class Capacity(_Section):
    """How many parameters the models of a set may have in all, in millions."""

    at_least: float | None = Field(None, ge=0, description="not fewer; null: no such limit")
    at_most: float | None = Field(None, ge=0, description="not more; null: no such limit")


class Constraints(_Section):
    """What a searched set must keep besides its pool."""

    include: list[str] | None = Field(None, description="models that are in it in any case")
    exclude: list[str] | None = Field(None, description="models that are not in it")
    counts: dict[str, Count] | None = Field(
        None, description="at_least, at_most so many of a kind; its key is a query on the registry"
    )
    params_m: Capacity | None = Field(
        None, description="at_least, at_most so many million parameters of all its models together"
    )


class Submission(_Section):
    """A set of k models: found by the search in a pool, or a fixed list."""

    title: str = Field(description="what the tables call it")
    pool: str | None = Field(None, description="name of a pool; the search chooses k models of it")
    proxies: dict[str, float] | None = Field(
        None, description="weight of each proxy in the similarity that the search maximises"
    )
    objective: Literal["mean", "worst", "lower_limit"] = Field(
        "mean",
        description="what the search maximises: the weighted mean of the proxies, the worst proxy, "
        "or the lower confidence limit of the weighted mean",
    )
    constraints: Constraints | None = Field(
        None, description="models fixed in or out, limits on families, mechanisms and capacity"
    )
    models: list[str] | None = Field(None, description="a fixed list instead of pool and proxies")
    portal: str | None = Field(
        None, description="row of the portal table that this submission stands for"
    )
    published_set: bool = Field(
        False, description="true where these are the very models that the portal scored"
    )
    note: str | None = Field(None, description="a remark that the report prints beside it")


class Zoo(_Section):
    """The small models that the demo trains."""

    table: str = Field(description="CSV with a row a model: architecture and training")
    models: str | list[str] = Field("all", description="'all', a query on the columns, or names")
    images: Patches = Field(description="the training patches")
    epochs: int | None = Field(None, ge=1, description="epochs of all; null: the table's own")
    minimum_accuracy: float = Field(
        0.6, ge=0, le=1, description="models below this held-out accuracy are dropped, and named"
    )


class Parameters(_Section):
    """One profile. Every field is a papermill parameter that at least one notebook reads."""

    profile: str = Field(pattern=r"^[A-Za-z0-9_-]+$", description="name of the profile")
    title: str = Field(description="what was compared, below the title of the report")
    authors: list[str] = Field([], description="named by the report and the blog post")
    tags: list[str] = Field(
        ["representational alignment", "CKA", "reproduction"],
        description="keywords of the blog post",
    )
    registry: str | list[str] = Field(
        description="CSV with a row a model: layer, preprocessing, family …; or several; zoo: its own"
    )
    models: str | list[str] = Field("all", description="'all', a query on the registry, or names")
    weights_dir: str | None = Field(
        None,
        description="folder of <model>.safetensors or .pth checkpoints; null: the model hub; zoo: its",
    )
    proxies: dict[FileName, ImageSource] = Field(
        min_length=1, description="image sets on which models are compared before submitting"
    )
    evaluation: ImageSource | None = Field(
        None, description="held-out images that stand for the portal's; null: none at hand"
    )
    calibration_proxies: dict[FileName, ImageSource] = Field(
        {},
        description="further image sets, by which proxies are compared and nothing is ever chosen",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|(cpu|mps|cuda(:\d+)?)(,(cpu|cuda:\d+))*)$",
        description="auto (all GPUs, else the CPU), cpu, mps, cuda, cuda:N, or several: cuda:0,cuda:1",
    )
    cluster: str | None = Field(
        None,
        pattern=r"^(local:[1-9]\d*|(tcp|tls|ucx|ws|wss)://\S+)$",
        description="Dask cluster that extracts: tcp://host:8786, or local:N; null: none",
    )
    batch_size: int = Field(64, ge=1, description="images in a forward pass; halved when too many")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="arithmetic of the forward pass; 16-bit types by autocast"
    )
    token_pooling: PoolingName = Field(
        "mean", description="how layers that give a grid of tokens become one vector"
    )
    interpolation: InterpolationName = Field(
        "timm", description="of the resize; timm: what each model was trained with"
    )
    channels_last: bool = Field(
        False, description="the memory layout that tensor cores prefer; changes results by rounding"
    )
    compile: bool = Field(
        False, description="compile each model by torch.compile: worth it for many images only"
    )
    arithmetic: list[ArithmeticName] = Field(
        ["channels_last", "bfloat16", "float16"],
        description="faster arithmetic that the report examines",
    )
    arithmetic_models: int = Field(
        6, ge=2, description="models on which that effect is measured, evenly chosen by size"
    )
    estimator: Literal["biased", "debiased"] = Field(
        "biased", description="HSIC estimator of the CKA that the search maximises"
    )
    resamples: int = Field(
        200, ge=20, description="random nine tenths of the images, from which standard errors come"
    )
    curve_sizes: list[Annotated[int, Field(ge=4)]] = Field(
        [50, 100, 200, 500, 1000, 2000, 5000],
        description="numbers of images in the learning curve",
    )
    larger: dict[FileName, Annotated[int, Field(ge=5)]] = Field(
        {},
        description="more images of a proxy, for its learning curve alone",
    )
    k: int = Field(20, ge=2, description="models in a submission")
    restarts: int = Field(500, ge=1, description="random initialisations of the search")
    seed: int = Field(0, ge=0, description="seed of the search and of the figures")
    pools: dict[str, str | list[str]] = Field(
        description="candidate models: 'all', a query on the registry's columns, or names"
    )
    submissions: dict[FileName, Submission] = Field(min_length=1, description="the sets to submit")
    reference_proxy: str = Field(description="proxy of the calibration ratio real / proxy")
    portal: str | None = Field(None, description="CSV of published portal scores; null: none")
    families: dict[str, str | list[str]] = Field(
        description="groups of Figure 4: queries on the registry's columns, or names"
    )
    highlight: str = Field(description="the submission of Figures 2, 5, 6 and 7")
    contrast: str = Field(description="the submission beside it in Figure 3")
    proof_seconds: int = Field(60, ge=1, description="time limit of the upper bound of each search")
    runs: str = Field(description="folder of the results; not given: runs/<profile>")
    figures: str = Field(description="folder of the figures; not given: figures/<profile>")
    store: str = Field("runs/store", description="folder of features and weights, shared, by key")
    zoo: Zoo | None = Field(None, description="the small models to train first; null: none")


def image_sources(parameters: Parameters) -> dict[str, BaseModel]:
    """All image sets of a profile: proxies, ``evaluation``, larger sets, calibration proxies."""
    held_out = {"evaluation": parameters.evaluation} if parameters.evaluation else {}
    larger = {
        larger_name(proxy): parameters.proxies[proxy].model_copy(update={"number": number})
        for proxy, number in parameters.larger.items()
    }
    return {**parameters.proxies, **held_out, **larger, **parameters.calibration_proxies}


def larger_name(proxy: str) -> str:
    """Name of the set of images that begins with a proxy's and goes on beyond them."""
    return f"{proxy}_larger"


def documentation() -> str:
    """The schema as a table in Markdown: key, type, default, meaning; a section for each part."""
    sections = {"A profile": Parameters, "A submission": Submission, "The zoo": Zoo}
    sections |= {"Constraints": Constraints, "Counts": Count, "Capacity": Capacity}
    sections |= {f"Images of kind {kind}": section for kind, section in SOURCES.items()}
    return "\n".join(_section_table(title, section) for title, section in sections.items())


def _section_table(title: str, section: type[BaseModel]) -> str:
    lines = [f"## {title}", "", "| key | type | default | meaning |", "|---|---|---|---|"]
    schema = section.model_json_schema()
    for name, field in section.model_fields.items():
        kind = _type_name(schema["properties"][name]).replace("|", "\\|")
        default = "required" if field.is_required() else f"`{field.get_default()}`"
        lines.append(f"| `{name}` | {kind} | {default} | {field.description or 'the kind'} |")
    return "\n".join(lines) + "\n"


def _type_name(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " | ".join(_type_name(part) for part in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    return schema.get("$ref", "").rpartition("/")[2] or schema.get("type", "images")
