"""Settings in YAML files: what YAML makes of a word is not what a setting makes of it."""

from dataclasses import replace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt import PRESETS, ModelConfig, MoEConfig, TrainConfig
from tinygpt.commands.arguments import read_known
from tinygpt.commands.settings import RunSettings, as_flags, read_settings_file, write_settings
from tinygpt.commands.train import StartArgs, _all_flags, _new_args
from tinygpt.errors import ConfigError


@pytest.fixture
def read(tmp_path):
    """The settings of a file with this text."""
    path = tmp_path / "settings.yaml"

    def read(text):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_settings_file(path)

    return read


def section(read, name, line):
    (value,) = read(f"{name}:\n  {line}\n")[name].values()
    return value


@pytest.mark.parametrize(
    ("line", "value"),
    [
        *[(f"lr: {text}", float(text)) for text in ("1e-3", "1E-4", "1e3", "1e+3", "1", ".5")],
        ("lr: '1e-3'", 1e-3),
        ("max_steps: 1_000", 1000),
        ("max-steps: 7", 7),
        ("seed: -3", -3),
        *[(f"patience: {text}", None) for text in ("", "~", "null", "None", "'None'", '"None"')],
        *[(f"compile: {text}", True) for text in ("true", "yes", "On", "TRUE")],
        *[(f"compile: {text}", False) for text in ("false", "no", "off", "False")],
        ("sample_prompt: 'no'", "no"),
        ("sample_prompt: 12:30", "12:30"),
        ("sample_prompt: ''", ""),
        ('sample_prompt: "\\n"', "\n"),
        ("device: None", "None"),  # a text, and no device
        ("optimizer: muon  # and why", "muon"),
    ],
)
def test_a_value_is_read_by_the_type_of_its_setting(read, line, value):
    found = section(read, "train", line)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {batch_size: 010}", "batch_size='010' must be a whole number"),
        ("train: {batch_size: 12:30:45}", "batch_size='12:30:45' must be a whole number"),
        ("train: {batch_size: 3.0}", "batch_size='3.0' must be a whole number"),
        ("train: {batch_size: 1e3}", "batch_size='1e3' must be a whole number"),
        ("train: {batch_size: 0x10}", "batch_size='0x10' must be a whole number"),
        ("train: {batch_size: [4]}", "train.batch_size is a list here; it must be a whole number"),
        ("train: {batch_size: }", "batch_size='' must be a whole number"),
        ("train: {batch_size: 0}", "batch_size=0 must be at least 1"),
        ("train: {lr: .nan}", "lr='.nan' must be a finite number"),
        ("train: {lr: nan}", "lr='nan' must be a finite number"),
        ("train: {lr: -.inf}", "must be a finite number"),
        ("train: {lr: 1e999}", "lr=inf must be a finite number"),
        ("train: {lr: fast}", "lr='fast' must be a finite number"),
        ("train: {lr: 010.5}", "lr='010.5' must be a finite number"),
        ("train: {lr: off}", "lr='off' must be a finite number"),
        ("train: {compile: 1}", "compile='1' must be True or False"),
        ("train: {compile: 'yes'}", "compile='yes' must be True or False"),
        ("train: {sample_prompt: no}", "no means true or false in YAML; in quotes it is a text"),
        ("train: {sample_prompt: }", "means nothing in YAML; in quotes it is a text"),
        ("corpus: off", "corpus: off means true or false in YAML"),
        ("model: {moe: {balance: off}}", "balance='off' must be one of loss, bias, none"),
        ("model: {moe: {balance: None}}", "balance='None' must be one of loss, bias, none"),
        ("model: {moe: {balance: }}", "balance='' must be one of loss, bias, none"),
        ("model: {moe: true}", "model.moe is a section of the form name: value"),
        ("model: 3", "model is a section of the form name: value"),
        ("train: {lr_: 1}", "there is no setting train.lr_; did you mean lr?"),
        ("model: {moe: {n_expert: 2}}", "no setting model.moe.n_expert; did you mean n_experts?"),
        ("\nlr: 1", "line 2: there is no setting lr; did you mean train.lr?"),
        ("moe: {top_k: 1}", "there is no setting moe; did you mean model.moe?"),
        ("model: {top_k: 2}", "no setting model.top_k; did you mean model.moe.top_k?"),
        ("<<: {lr: 1}", "there is no setting <<"),
        ("? [a]\n: 1", "there is no setting ["),
        ("train: {lr: 1, lr: 2}", "train.lr is there twice; keep one"),
        ("train: {max_steps: 1, max-steps: 2}", "train.max_steps is there twice"),
        ("- lr", "a file of settings has lines of the form name: value"),
        ("lr", "a file of settings has lines of the form name: value"),
        ("a: [", "line 1: expected the node content, but found '<stream end>'"),
        ("train:\n\tlr: 1", "line 2: found character '\\t' that cannot start any token"),
        ("a: 1\n---\nb: 2", "but found another document"),
        ("a: *b", "found undefined alias 'b'"),
        ("corpus: \x07", "special characters are not allowed"),
        (b"\xff\xfe", "is not UTF-8"),
        (b" " * (1 << 21), "2,097,152 bytes; no file of settings has more"),
        ("[" * 100_000, "is nested too deeply"),
        ("train: &a {lr: *a}", "train.lr is a section here"),
        ("train: !!python/tuple [1]", "train is a section"),
    ],
)
def test_what_is_refused_and_how(read, text, words, tmp_path):
    with pytest.raises(ConfigError) as error:
        read(text)
    assert words in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "settings.yaml"))


def test_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(ConfigError, match=f"{path.name}: there is no such file"):
            read_settings_file(path)


def test_an_empty_file_says_nothing(read):
    assert read("") == read("# a remark\n") == read("{}") == {}


@pytest.mark.parametrize("name", PRESETS)
def test_what_is_written_is_read_back_and_plain(name, read):
    preset = PRESETS[name]
    text = write_settings(
        RunSettings(name, preset.corpus, preset.tokenizer, preset.model, preset.train)
    )
    found = read(text)
    moe = found["model"].pop("moe")
    moe = moe and MoEConfig(**moe)
    assert ModelConfig(**found["model"], moe=moe) == replace(preset.model, vocab_size=65)
    assert found["tokenizer"] == preset.tokenizer
    assert TrainConfig(**found["train"]) == preset.train
    assert (found["preset"], found["corpus"]) == (name, preset.corpus)
    assert yaml.safe_load(text)["train"]["max_steps"] == preset.train.max_steps
    assert "!!" not in text


@pytest.mark.parametrize("name", PRESETS)
def test_the_flags_of_a_written_file_give_its_settings(name, tmp_path):
    preset, path = PRESETS[name], tmp_path / "settings.yaml"
    other = "tiny-moe" if name == "tiny" else "tiny"  # what the file says must win over it
    path.write_text(write_settings(RunSettings(other, model=preset.model, train=preset.train)))
    start, _ = read_known(StartArgs, "train", ["--config", str(path)])
    flags = _all_flags(start, [])
    start, _ = read_known(StartArgs, "train", flags)
    args = _new_args(flags, start, other, None)
    size = PRESETS[other].model.vocab_size  # which follows from the corpus
    assert args.model == replace(preset.model, vocab_size=size)
    assert args.train == preset.train


@settings(max_examples=30)
@given(st.floats(1e-300, 1e300), st.text(min_size=1), st.text())
def test_all_numbers_and_texts_are_read_back(tmp_path_factory, lr, prompt, corpus):
    train = TrainConfig(lr=lr, sample_prompt=prompt)
    path = tmp_path_factory.mktemp("settings") / "settings.yaml"
    text = write_settings(RunSettings(corpus=corpus, train=train))
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    found = read_settings_file(path)
    assert (found["train"]["lr"], found["train"]["sample_prompt"]) == (lr, prompt)
    assert found["corpus"] == corpus or corpus == "None"


def test_flags_that_say_the_same():
    values = {
        "preset": "tiny",
        "model": {"n_embd": 8, "qk_norm": True, "moe": {"top_k": 2, "noisy": False, "top_p": None}},
        "train": {"lr": 1e-5, "compile": False, "sample_prompt": "--x y"},
    }
    assert list(as_flags(values)) == [
        "--preset=tiny",
        "--n-embd=8",
        "--qk-norm",
        "--moe.top-k=2",
        "--moe.no-noisy",
        "--moe.top-p=None",
        "--lr=1e-05",
        "--no-compile",
        "--sample-prompt=--x y",
    ]
    assert list(as_flags({"model": {"moe": None}})) == ["--no-moe"]
