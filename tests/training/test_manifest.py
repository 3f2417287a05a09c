import json
import shutil

import pytest

from tinygpt.errors import CheckpointError
from tinygpt.files import LARGEST_JSON, read_json, write_json
from tinygpt.training import latest_checkpoint, load_checkpoint, load_run, verify
from tinygpt.training.manifest import _manifest


@pytest.fixture
def folder(run):
    return latest_checkpoint(run)


def test_every_byte_of_a_manifest_counts(folder):
    path = folder / "manifest.json"
    content = path.read_bytes()
    changed = [content[:at] for at in range(len(content))]
    changed += [content + more for more in (b"\n", b" ", b"{}")]
    changed += [
        content.replace(b"\n", b"\r\n"),
        content.replace(b" ", b"\t"),
        b"\xef\xbb\xbf" + content,
    ]
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        changed.append(bytes(flipped))
    for other in changed:
        path.write_bytes(other)
        with pytest.raises(CheckpointError, match=r"manifest\.json"):
            verify(folder)
    path.write_bytes(content)
    assert "state.json" in verify(folder)


@pytest.mark.parametrize(
    ("add", "drop"),
    [
        ([], ["config.json", "model.safetensors", "tokenizer.json"]),
        ([], ["tokenizer.json"]),
        (["../secret.json"], []),
        (["/etc/hostname"], []),
        (["sub/config.json"], []),
        (["."], []),
        ([""], []),
        (["manifest.json"], []),
        (["a\0b"], []),
    ],
)
def test_a_list_of_other_files_is_refused(folder, add, drop):
    (folder / "sub").mkdir()
    (folder.parent / "secret.json").write_text("{}")
    content = json.loads((folder / "manifest.json").read_text())
    files = content["files"] | dict.fromkeys(add, "0" * 64)
    files = {name: digest for name, digest in files.items() if name not in drop}
    write_json(folder / "manifest.json", _manifest(files))
    with pytest.raises(CheckpointError, match=r"manifest\.json is no list of a checkpoint's files"):
        load_checkpoint(folder)


def test_a_folder_in_a_files_place(folder):
    (folder / "state.json").unlink()
    (folder / "state.json").mkdir()
    with pytest.raises(CheckpointError, match=r"state\.json is missing"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["state.json", "training.safetensors"])
def test_what_is_not_listed_is_not_read(folder, name):
    content = json.loads((folder / "manifest.json").read_text())
    del content["files"][name]
    write_json(folder / "manifest.json", _manifest(content["files"]))
    with pytest.raises(CheckpointError, match=rf"{name} is not in manifest\.json; remove it"):
        load_checkpoint(folder)
    (folder / name).unlink()
    verify(folder)


def test_files_of_others_do_no_harm(folder):
    (folder / "notes.txt").write_text("mine")
    (folder / ".DS_Store").write_bytes(b"\0")
    load_checkpoint(folder)


JSON = [
    (b"[]", "holds a list"),
    (b"3", "holds a int"),
    (b"null", "holds a NoneType"),
    (b"", "cannot be read"),
    (b"\xff\xfe", "cannot be read"),
    (b"[" * 200_000, "cannot be read"),
    (b'{"a": ' * 200_000, "cannot be read"),
    (b'{"a": ' + b"1" * 10_000 + b"}", "cannot be read"),
    (b'{"a": "' + b"x" * 50_000_000 + b'"}', "has 50,000,009 bytes"),
]


@pytest.mark.parametrize(("content", "words"), JSON, ids=range(len(JSON)))
def test_json_that_is_none_of_ours(tmp_path, content, words):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"x.json cannot be read: .*{words}|{words}"):
        read_json(tmp_path / "x.json")
    assert LARGEST_JSON < 50_000_000


@pytest.mark.parametrize(
    "content", [b"[]", b"{}", b'{"files": []}', b'{"files": {}}', b"[" * 10**5]
)
def test_manifests_that_list_nothing(folder, run, content):
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        verify(folder)
    with pytest.warns(match=r"passing over.*step_0000030"):
        load_run(run, which="latest")


def test_a_file_that_may_not_be_read_is_no_damage(run, folder, monkeypatch):
    """Of a run of somebody else, say: nothing is passed over, and nothing removed."""

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("tinygpt.training.manifest.sha256", refuse)
    with pytest.raises(CheckpointError, match="cannot be read.*Permission denied"):
        load_run(run, which="latest")
    shutil.rmtree(run / "step_0000020")
    monkeypatch.setattr("pathlib.Path.is_file", refuse)
    with pytest.raises(CheckpointError, match="cannot be read.*Permission denied"):
        load_run(run)
