"""Data sets of the Hugging Face hub, and parquet files, by the library `datasets` (an optional dependency)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explore.data.image import Decoding, Encoded
from explore.data.sources import Decoded, decode_splits

SPLIT_NAMES = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
ROWS_AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns of images and labels; None finds the only one of its type."""

    image: str | None = None
    label: str | None = None


def read_hub(
    name: str,
    *,
    config: str | None,
    revision: str | None,
    columns: Columns,
    split_names: Mapping[str, str | None],
    decoding: Decoding,
) -> Decoded:
    """Decode a data set of the hub, or parquet files if the name is a path.

    `split_names` says which of its splits are "train", "validation" and "test"; None finds the usual names. A split
    without labels (-1 throughout, as for hidden test labels) counts as absent. Raises ValueError if the library is not
    installed, the hub does not answer, or the data set is not one of images with a class each.
    """
    try:
        import datasets
    except ImportError as error:
        raise ValueError("data=hub needs the library datasets; install it with: pip install explore[data]") from error
    files = parquet_files(name)
    tables = _parquet_tables(datasets, files) if files else _download(datasets, name, config, revision)
    chosen = _choose_splits(list(tables), split_names)
    features = tables[chosen["train"]].features
    image, label = _image_column(datasets, features, columns.image), _label_column(datasets, features, columns.label)
    splits = {split: _rows(datasets, tables[theirs], theirs, image, label) for split, theirs in chosen.items()}
    named = getattr(features[label], "names", None)
    classes = named or sorted({value for _, value in splits["train"] if value is not None})
    numbers = {value: number for number, value in enumerate(range(len(named)) if named else classes)}
    labelled = {
        split: _numbered(rows, numbers)
        for split, rows in splits.items()
        if split == "train" or any(value in numbers for _, value in rows)
    }
    title = Path(name).expanduser().resolve().name if files else name
    return decode_splits(title, labelled, tuple(map(str, classes)), decoding)


def parquet_files(name: str) -> dict[str, list[Path]]:
    """The parquet files a path means, by split; none if the name is not a path.

    In a folder a file belongs to the split whose name is the start of its own (`test-00000-of-00001.parquet`) or is
    that of its folder; without such names all are train. Raises ValueError if the path has no parquet files.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        files = sorted(path.rglob("*.parquet"))
    elif path.is_file() or name.startswith(("/", ".", "~")) or path.suffix == ".parquet":
        files = [path] if path.is_file() and path.suffix == ".parquet" else []
    else:
        return {}
    if not files:
        raise ValueError(f"data.name must be a data set of the hub or the path of parquet files, got {name!r}")
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(_split_of(file), []).append(file)
    return by_split if "train" in by_split else {"train": files}


def _split_of(file: Path) -> str:
    for split, names in SPLIT_NAMES.items():
        if file.stem.replace("_", "-").split("-")[0] in names or file.parent.name in names:
            return split
    return "train"


def _parquet_tables(datasets: Any, files: Mapping[str, Sequence[Path]]) -> Mapping[str, Any]:
    # In memory, because load_dataset would copy the files to its own cache; what is decoded goes to ours.
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    tables = {}
    for split, members in files.items():
        try:
            table = pyarrow.concat_tables([parquet.read_table(file) for file in members])
        except (OSError, pyarrow.ArrowException) as error:
            raise ValueError(f"parquet files must be readable and alike, got {members[0].name!r} ({error})") from error
        tables[split] = datasets.Dataset(datasets.table.InMemoryTable(table))
    return tables


def _download(datasets: Any, name: str, config: str | None, revision: str | None) -> Mapping[str, Any]:
    # datasets tries five times for 23 seconds before it says that there is no network, so ask once ourselves.
    from huggingface_hub import HfApi, constants

    try:
        if not constants.HF_HUB_OFFLINE:
            HfApi().dataset_info(name, revision=revision, timeout=10)
        tables: Mapping[str, Any] = datasets.load_dataset(name, config, revision=revision)
    except Exception as error:  # of three libraries, and of what they are built on
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"data.name={name!r} could not be reached ({reason}); check the name, data.config, the network and, where "
            f"access is restricted, your token (hf auth login), or use data=folder"
        ) from error
    return tables


def _choose_splits(available: Sequence[str], split_names: Mapping[str, str | None]) -> dict[str, str]:
    chosen = {}
    for split, usual in SPLIT_NAMES.items():
        asked = split_names[split]
        if asked is not None and asked not in available:
            raise ValueError(f"data.{split}_split must be one of {', '.join(available)}, got {asked!r}")
        found = asked or next((name for name in usual if name in available), None)
        if found is not None:
            chosen[split] = found
    if "train" not in chosen:
        raise ValueError(f"data.train_split must say which split to train on, one of {', '.join(available)}")
    return chosen


def _image_column(datasets: Any, features: Mapping[str, Any], asked: str | None) -> str:
    def is_image(feature: Any) -> bool:
        return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and "bytes" in feature)

    column = _column("image", features, asked, [key for key, feature in features.items() if is_image(feature)])
    if not is_image(features[column]) and getattr(features[column], "dtype", None) not in ("binary", "large_binary"):
        raise ValueError(f"data.image_key must be a column of encoded images, got {column!r}: {features[column]}")
    return column


def _label_column(datasets: Any, features: Mapping[str, Any], asked: str | None) -> str:
    classes = [key for key, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    return _column("label", features, asked, classes or [key for key in ("label", "labels") if key in features])


def _column(kind: str, features: Mapping[str, Any], asked: str | None, candidates: Sequence[str]) -> str:
    if asked is not None and asked not in features:
        raise ValueError(f"data.{kind}_key must be one of {', '.join(features)}, got {asked!r}")
    if asked is None and len(candidates) != 1:
        found = ", ".join(candidates) or "none"
        raise ValueError(f"data.{kind}_key must name the column of the {kind}s: one was expected, found {found}")
    return asked or candidates[0]


def _rows(datasets: Any, table: Any, split: str, image: str, label: str) -> list[tuple[Encoded, Any]]:
    rows: list[tuple[Encoded, Any]] = []
    encoded = table.select_columns([image, label]).cast_column(image, datasets.Image(decode=False)).with_format("arrow")
    for part in encoded.iter(ROWS_AT_ONCE):
        for content, value in zip(part[image].to_pylist(), part[label].to_pylist(), strict=True):
            rows.append((Encoded(f"{split} row {len(rows)}", _content(content or {})), value))
    return rows


def _content(stored: Mapping[str, Any]) -> Path | bytes:
    """Of an image that is missing, nothing, which is corrupt by its name."""
    if not stored.get("bytes") and stored.get("path"):
        return Path(stored["path"])
    return bytes(stored.get("bytes") or b"")


def _numbered(rows: Sequence[tuple[Encoded, Any]], numbers: Mapping[Any, int]) -> list[tuple[Encoded, int]]:
    for encoded, value in rows:
        if value not in numbers:
            raise ValueError(f"every image must have one of the classes of train, got {value!r} in {encoded.name}")
    return [(encoded, numbers[value]) for encoded, value in rows]
