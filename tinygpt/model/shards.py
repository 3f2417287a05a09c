"""The tensors of a folder, in one safetensors file or in several, read one by one."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError, some
from ..files import read_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PREFIXES = ("transformer.", "model.")  # a file written from the model below the head lacks them
BUFFERS = (["attn", "bias"], ["attn", "masked_bias"], ["rotary_emb", "inv_freq"])  # no weights
FLOATS = ("F64", "F32", "F16", "BF16")


class Shards:
    """A context with the tensors of a folder, by name, with or without their prefix.

    What a file says of a tensor is known before memory is taken for it. Every error is a
    `CheckpointError`.
    """

    def __init__(self, folder: Path):
        self.folder, self._stack = folder, ExitStack()
        self._open: dict[str, Any] = {}  # the files that were needed so far

    def __enter__(self) -> Self:
        with self._stack as stack:
            listed = self._listed()
            weights = [name for name in listed if name.split(".")[-2:] not in BUFFERS]
            self._place = {bare(name): (listed[name], name) for name in weights}
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()

    def __len__(self) -> int:
        return len(self._place)

    def __contains__(self, name: str) -> bool:
        return bare(name) in self._place

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def check(self, wanted: dict[str, Tensor]) -> None:
        """Raise unless these tensors are there and no others, of these shapes, and of floats."""
        names = {bare(name): tensor for name, tensor in wanted.items()}
        missing, unknown = names.keys() - self._place.keys(), self._place.keys() - names.keys()
        if missing or unknown:
            raise CheckpointError(
                f"{self.folder} does not hold what its config.json describes: missing are "
                f"{some(missing)}, unknown are {some(unknown)}"
            )
        for name, tensor in names.items():
            header = self._get("slice", name)
            shape, kind = tuple(header.get_shape()), header.get_dtype()
            if shape != tensor.shape or kind not in FLOATS:
                raise CheckpointError(
                    f"{self.folder} holds {name} as {kind} of the shape {shape}, where numbers of "
                    f"the shape {tuple(tensor.shape)} are due, as its config.json describes them"
                )

    def read(self, name: str) -> Tensor:
        """A tensor as it is stored."""
        return self._get("tensor", name)

    def _get(self, what: str, name: str) -> Any:
        file, full = self._place[bare(name)]
        try:
            return getattr(self._file(file), f"get_{what}")(full)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{self.folder / file} cannot be read: {error}") from error

    def rename(self, name: str, other: str) -> None:
        """Give a tensor another name, in the place of one that has it."""
        self._place[bare(other)] = self._place.pop(bare(name))

    def _listed(self) -> dict[str, str]:
        """The file of each tensor, by its full name; of both kinds transformers takes the first."""
        if (self.folder / WEIGHTS).is_file():
            return dict.fromkeys(self._file(WEIGHTS).keys(), WEIGHTS)
        if (self.folder / INDEX).is_file():
            listed = read_json(self.folder / INDEX).get("weight_map")
            if not isinstance(listed, dict) or not all(map(_is_file_name, listed.values())):
                raise CheckpointError(f"{self.folder / INDEX} does not say which file has what")
            return listed
        raise CheckpointError(
            f"{self.folder} has no {WEIGHTS} and no {INDEX}; weights of other kinds, such as "
            f"pytorch_model.bin, can hold programs and are not read: load them with transformers "
            f"and save_pretrained writes the right ones"
        )

    def _file(self, name: str) -> Any:
        if name not in self._open:
            path = self.folder / name
            try:
                self._open[name] = self._stack.enter_context(safe_open(path, "pt"))
            except (OSError, ValueError, SafetensorError) as error:  # a name may be none
                raise CheckpointError(f"{path} cannot be read: {error}") from error
        return self._open[name]


def bare(name: str) -> str:
    """A name without its prefix."""
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _is_file_name(name: Any) -> bool:
    return isinstance(name, str) and Path(name).name == name
