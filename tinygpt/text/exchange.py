"""Tokenizers in the folders of transformers, in and out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..files import read_json, write_json
from .bpe import BPETokenizer, by_id
from .characters import CharTokenizer
from .gpt2_files import MERGES, VOCABULARY
from .tokenizer import END_OF_TEXT, Tokenizer

if TYPE_CHECKING:
    import tokenizers

OURS = "tinygpt_tokenizer.json"  # as `save` writes it: whatever kind it is
THEIRS, SETTINGS = "tokenizer.json", "tokenizer_config.json"
PLAIN = {  # of a tokenizer.json that cuts a text as GPT-2 does, and then only joins bytes
    "normalizer": (None,),
    "pre_tokenizer.type": ("ByteLevel",),
    "pre_tokenizer.add_prefix_space": (False,),
    "pre_tokenizer.use_regex": (True, None),
    "model.type": ("BPE", None),
    "model.continuing_subword_prefix": (None, ""),
    "model.end_of_word_suffix": (None, ""),
    "model.byte_fallback": (False, None),
    "model.ignore_merges": (False, None),
}


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """The tokenizer in a folder with a model: what `write_tokenizer` wrote, or one like GPT-2's.

    None if there is none, or another, which would need other code. `CheckpointError` for a file
    that cannot be read, `ConfigError` for one that is no tokenizer.
    """
    if (folder / OURS).is_file():
        return Tokenizer.load(folder / OURS)
    if (folder / THEIRS).is_file():
        content = read_json(folder / THEIRS)
        return _bpe(content) if _is_like_gpt2(content) else None
    is_gpt2 = read_json(folder / "config.json").get("model_type") == "gpt2"
    there = all((folder / name).is_file() for name in (VOCABULARY, MERGES))
    return BPETokenizer.from_gpt2(folder) if is_gpt2 and there else None


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write a tokenizer for this package and, of characters and of BPE, for transformers, too."""
    tokenizer.save(folder / OURS)
    library = _library(tokenizer)
    if library is None:
        return
    library.save(str(folder / THEIRS))
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    settings["clean_up_tokenization_spaces"] = False
    if tokenizer.end_of_text is not None:
        settings |= {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    write_json(folder / SETTINGS, settings)


def _library(tokenizer: Tokenizer) -> "tokenizers.Tokenizer | None":
    """The same tokenizer as one of the library that transformers uses, if it can be one."""
    from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Library

    if isinstance(tokenizer, CharTokenizer):
        library = Library(models.WordLevel({c: i for i, c in enumerate(tokenizer.characters)}))
        library.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        library.decoder = decoders.Fuse()
        return library
    if not isinstance(tokenizer, BPETokenizer):
        return None
    library = tokenizer._library()
    library.decoder = decoders.ByteLevel()
    if tokenizer.end_of_text is not None:
        library.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return library


def _is_like_gpt2(content: dict[str, Any]) -> bool:
    def value(name: str) -> Any:
        part, _, key = name.partition(".")
        found = content.get(part)
        return found.get(key) if key and isinstance(found, dict) else found

    return all(value(name) in allowed for name, allowed in PLAIN.items())


def _bpe(content: dict[str, Any]) -> BPETokenizer:
    try:
        ids = dict(content["model"]["vocab"])
        ids |= {token["content"]: token["id"] for token in content.get("added_tokens") or []}
        merges = content["model"]["merges"]
        return BPETokenizer(by_id(ids), [m if isinstance(m, str) else " ".join(m) for m in merges])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{THEIRS} is no tokenizer that can be read here: {error}") from error
