"""Tokenizers in the folders of transformers, in and out."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .bpe import BPETokenizer
from .characters import CharTokenizer
from .tokenizer import END_OF_TEXT, Tokenizer

if TYPE_CHECKING:
    import tokenizers

OURS = "tinygpt_tokenizer.json"  # as `save` writes it: whatever kind it is
THEIRS, SETTINGS = "tokenizer.json", "tokenizer_config.json"
GPT2_FILES = ("vocab.json", "merges.txt")
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

    None if there is none, or another, which would need other code.
    """
    if (folder / OURS).is_file():
        return Tokenizer.load(folder / OURS)
    if (folder / THEIRS).is_file():
        content = _json(folder / THEIRS)
        return _bpe(content) if _is_like_gpt2(content) else None
    is_gpt2 = _json(folder / "config.json").get("model_type") == "gpt2"
    there = all((folder / name).is_file() for name in GPT2_FILES)
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
    text = json.dumps(settings, indent=2) + "\n"
    (folder / SETTINGS).write_text(text, encoding="utf-8", newline="\n")


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
        tokens = sorted(ids, key=ids.get)
        if [ids[token] for token in tokens] != list(range(len(tokens))):
            raise ValueError(f"the ids are not 0 to {len(tokens) - 1}, each once")
        merges = content["model"]["merges"]
        return BPETokenizer(tokens, [m if isinstance(m, str) else " ".join(m) for m in merges])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{THEIRS} is no tokenizer that can be read here: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return content if isinstance(content, dict) else {}
