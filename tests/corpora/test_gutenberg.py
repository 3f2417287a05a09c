"""Books of a small Project Gutenberg of our own, from a local server."""

import json
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from tinygpt import download as downloads
from tinygpt import load_corpus, places
from tinygpt.corpora import gutenberg
from tinygpt.corpora.boilerplate import Refused, strip
from tinygpt.corpora.catalogue import Book, read_catalogue
from tinygpt.errors import CorpusError

from ..server import Server, library, serve, status
from . import books

N = len(books.USABLE)


@pytest.fixture
def mirror(home, monkeypatch):
    """A server with the library, which is used from now on; nobody really waits."""
    pauses, retries = [], []  # between requests, and before another try
    clock = SimpleNamespace(monotonic=lambda: 0.0, sleep=pauses.append)
    monkeypatch.setattr(gutenberg, "time", clock)
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=retries.append)
    monkeypatch.setattr(downloads, "time", clock)
    monkeypatch.setattr(downloads, "STALL", 2.0)
    monkeypatch.setattr(downloads, "GRACE", 20.0)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("TINYGPT_CONTACT", "me@example.org")

    def start(**odd):
        server = Server(library(books.files(), **odd))
        monkeypatch.setenv("TINYGPT_GUTENBERG", server.base)
        return server

    start.pauses, start.retries = pauses, retries
    return start


def load(count=N):
    return load_corpus(f"gutenberg-pt:{count}")


def text_of(corpus, split):
    return corpus.tokenizer.decode(getattr(corpus, split))


# --- the corpus ----------------------------------------------------------------------------------


def test_the_books_alone_are_taken_in_whatever_form_they_are(mirror):
    with mirror():
        corpus = load()
    text = corpus.text
    for number in books.USABLE:
        assert all(body in text for body in books.BODIES[number]), number
    for word in (
        "gutenberg",
        "redistribution",
        "produced by",
        "biblioteca nacional",
        "ilustração:",
    ):
        assert word not in text.lower()
    for word in (
        "transcritor",
        "evidentes",
        "cazza",
        "html version",
        "\ufeff",
        "\r",
        "Ã",
        "\ufffd",
    ):
        assert word not in text
    assert sum(corpus.contents.documents.values()) == N
    assert corpus.contents.documents.keys() == {"train", "val", "test"}
    assert corpus.text == text_of(corpus, "train") + text_of(corpus, "val") + text_of(
        corpus, "test"
    )


def test_what_was_done_to_the_books_is_told(mirror, capsys):
    with mirror():
        notes = "\n".join(load().contents.notes)
    said = capsys.readouterr().out
    assert set(re.findall(".*is not taken.*", said)) == set(re.findall(".*is not taken.*", notes))
    assert "removed: notes: 7" in notes
    assert "removed: pictures: 1" in notes
    assert "removed: mentions of the licence: 2" in notes
    assert "books in cp1252: 1" in notes
    assert "repaired letters:" in notes
    assert "60 (Contos) and 61 (Novos Contos) have most of their text in common" in notes
    assert "96 (Protegido) is not taken: it is under copyright" in said
    assert "97 (Sem Marcas) is not taken: it has no mark where it starts" in said
    assert "98 (Cortado) is not taken: it has no mark where it ends" in said
    assert "99 (Quase Nada) is not taken: only" in said


@pytest.mark.parametrize("shares", [{"val": 0.05, "test": 0.05}, {"val": 0.45, "test": 0.3}])
def test_no_work_is_on_two_sides(mirror, monkeypatch, shares):
    monkeypatch.setattr(gutenberg, "SHARES", shares)
    with mirror():
        corpus = load()
    train, held_out = text_of(corpus, "train"), [text_of(corpus, s) for s in ("val", "test")]
    for text in held_out:
        assert len(text) > 1000
        runs = (text[i : i + 64] for i in range(0, len(text) - 64, 7))
        assert not any(run in train for run in runs)
    volumes = [books.prose(50), books.prose(51)]
    stories = [books.BODIES[60][0], books.BODIES[61][1]]
    for together in (volumes, stories):
        sides = [[body in text for text in (train, *held_out)] for body in together]
        assert sides[0] == sides[1]


# --- fetching ------------------------------------------------------------------------------------


def test_requests_come_one_by_one_with_pauses_and_say_who_asks(mirror):
    with mirror() as server:
        load()
        assert {agent for _, agent in server.visits} == {"tinygpt/0.1 (+me@example.org)"}
        paths = [path for path, _ in server.visits]
        assert len(paths) == len(set(paths))  # nothing twice
        others = {f"/cache/epub/{n}/pg{n}.txt" for n in (7, 8, 9, 91)}
        assert not others & set(paths)  # another language, no text, two languages, an old edition
        assert mirror.pauses == [0.0, *[2.0] * (len(paths) - 1)]
        assert paths[0] == "/cache/epub/feeds/pg_catalog.csv.gz"
        ninety_five = [p for p in paths if "95" in p]
        assert ninety_five == [
            "/cache/epub/95/pg95.txt",
            "/9/95/95-0.txt",
            "/9/95/95-8.txt",
            "/9/95/95.txt",
        ]


def test_what_is_here_is_not_fetched_again(mirror):
    with mirror() as server:
        first = load()
        asked = len(server.visits)
        second = load()
        assert len(server.visits) == asked
        load(3)  # of the books that are here already
        assert len(server.visits) == asked
    assert torch.equal(first.train, second.train)


def test_it_goes_on_after_a_break(mirror):
    with mirror(**{"pg61.txt": status(500)}), pytest.raises(CorpusError, match="pg61.txt"):
        load()
    with mirror() as server:
        load()
        paths = [path for path, _ in server.visits]
    assert "/cache/epub/3/pg3.txt" not in paths
    assert paths[0] == "/cache/epub/61/pg61.txt"


@pytest.mark.parametrize(
    "answer",
    [
        serve(sent=3),
        serve(b"", Content_Length="9", stalls=True),
        status(429),
        status(403),
    ],
    ids=["truncated", "stalled", "busy", "forbidden"],
)
def test_a_book_that_cannot_be_had_ends_it_with_one_error_and_nothing_half_written(
    mirror, home, answer, monkeypatch
):
    monkeypatch.setattr(downloads, "STALL", 0.6)
    with mirror(**{"pg12.txt": answer}), pytest.raises(CorpusError, match="pg12.txt"):
        load()
    folder = home[0] / "data" / "gutenberg-pt"
    assert sorted(p.name for p in folder.iterdir()) == ["3.txt", "pg_catalog.csv.gz"]
    with mirror():
        load()


def test_a_busy_server_gets_the_time_that_it_asks_for(mirror):
    busy = iter([status(429, Retry_After="30")])
    whole = serve(books.files()["cache/epub/12/pg12.txt"])
    with mirror(**{"pg12.txt": lambda to, start: next(busy, whole)(to, start)}):
        load()
    assert mirror.retries == [30.0]


def test_wrong_bytes_are_no_catalogue_and_no_book(mirror, home):
    page = mirror(**{"pg_catalog.csv.gz": serve(b"<html>")})
    with page, pytest.raises(CorpusError, match="is no catalogue of Project Gutenberg.*Delete it"):
        load()
    (home[0] / "data" / "gutenberg-pt" / "pg_catalog.csv.gz").unlink()
    with mirror(**{"pg3.txt": serve(b"<html>come back</html>")}):
        corpus = load(N - 1)  # another book takes its place
    assert books.prose(3) not in corpus.text


def test_a_changed_book_is_not_taken_for_the_one_that_was_listed(mirror, home):
    with mirror():
        before = load()
        book = home[0] / "data" / "gutenberg-pt" / "3.txt"
        book.write_bytes(books.modern("Outra", books.prose(777)).encode())
        after = load()
    assert books.prose(777) in after.text
    with pytest.raises(CorpusError, match=r"3.txt is another text than when it was loaded"):
        _ = before.text


def test_somebody_must_be_named(mirror, home, monkeypatch):
    for nobody in ("", "  ", "josé", "a\nb"):
        monkeypatch.setenv("TINYGPT_CONTACT", nobody)
        with mirror() as server, pytest.raises(CorpusError, match="TINYGPT_CONTACT"):
            load()
        assert server.visits == []
        assert not (home[0] / "data" / "gutenberg-pt").exists()


def test_too_few_books(mirror):
    with mirror():
        with pytest.raises(CorpusError, match=f"has {N} books.*fewer than 40"):
            load(40)
        with pytest.raises(CorpusError, match="2 books are too few for three splits"):
            load(2)


def test_the_counts_are_checked(home):
    for count in ("0", "-3", "many", "", "1.5", "9" * 20):
        with pytest.raises(CorpusError, match="a whole number from 1 on"):
            load(count)


@pytest.mark.full
def test_of_two_processes_one_fetches(mirror, home, monkeypatch):
    code = f"""
        import tinygpt
        from pathlib import Path
        from tinygpt import places
        from tinygpt.corpora import gutenberg, stream
        places.WORKSPACE = stream.WORKSPACE = Path.cwd()
        gutenberg.PAUSE = 0.05
        print(len(tinygpt.load_corpus("gutenberg-pt:{N}").train))
    """
    code = "\n".join(line.strip() for line in code.splitlines())
    monkeypatch.setenv("PYTHONPATH", str(places.Path(gutenberg.__file__).parents[2]))
    with mirror() as server:
        command = [sys.executable, "-c", code]
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = [process.communicate()[0].splitlines()[-1] for process in both]
        paths = [path for path, _ in server.visits]
    assert said[0] == said[1]
    assert len(paths) == len(set(paths))


# --- one book ------------------------------------------------------------------------------------


BODY = books.prose(1)


@pytest.mark.parametrize("form", [books.modern, books.older, books.oldest])
def test_each_form_of_file_gives_the_same_book(form):
    assert strip(form("Um Livro", BODY)).text == BODY + "\n"


def test_words_of_the_makers_within_a_book_stay():
    inner = f"{books.prose(2)}\n\nFoi à Biblioteca Nacional, e de lá ao porto.\n\n{books.prose(4)}"
    assert strip(books.modern("Um Livro", inner)).text == inner + "\n"


def test_what_is_between_the_first_start_and_the_last_end_is_kept():
    mark = "*** END OF THE PROJECT GUTENBERG EBOOK UM LIVRO ***"
    found = strip(books.modern("Um Livro", f"{BODY}\n\n{mark}\n\n{books.prose(2)}"))
    assert found.text == f"{BODY}\n\n{books.prose(2)}\n"
    assert found.cut == {"mentions of the licence": 1}


def test_a_note_after_its_heading_goes_and_the_chapter_after_it_stays():
    for head in (books.NOTE, "Transcriber's Note: a few errors\nwere mended.", books.HTML):
        assert strip(books.modern("Um Livro", BODY, head)).text == BODY + "\n"


def test_a_book_of_which_too_much_goes_is_refused():
    licence = "This Project Gutenberg book is free."
    inner = "\n\n".join(f"{licence} {p}" for p in BODY.split("\n\n"))
    with pytest.raises(Refused, match="letters would be left"):
        strip(books.modern("Um Livro", inner))
    far = books.modern("Um Livro", BODY) + "x" * 60_000  # a mark that comes too early
    with pytest.raises(Refused, match="letters would be left"):
        strip(far)


# --- the catalogue -------------------------------------------------------------------------------


def test_where_a_book_may_lie():
    assert Book(12345, "", "", "").paths() == [
        "cache/epub/12345/pg12345.txt",
        "1/2/3/4/12345/12345-0.txt",
        "1/2/3/4/12345/12345-8.txt",
        "1/2/3/4/12345/12345.txt",
    ]
    assert Book(5, "", "", "").paths()[-1] == "0/5/5.txt"


def test_works_and_editions():
    def book(title, authors="Eça de Queirós, 1845-1900"):
        return Book(1, title, authors, "2000-01-01")

    assert (
        book("Os Maias: Vol. 1").work == book("OS MAÍAS\nVolume II").work == book("Os maias").work
    )
    assert book("Os Maias: Vol. 1").edition != book("Os Maias: Vol. 2").edition
    assert book("Contos").work != book("Contos", "Sá, João").work
    assert book("Volume 2").work[1] == "volume 2"


def test_the_catalogue_is_that_of_one_language(tmp_path):
    path = tmp_path / "catalogue.csv.gz"
    path.write_bytes(books.files()["cache/epub/feeds/pg_catalog.csv.gz"])
    assert [b.number for b in read_catalogue(path, "pt")] == sorted(books.TITLES)
    assert [b.title for b in read_catalogue(path, "en")] == ["A Book\nof two lines"]
    content = path.read_bytes()
    for damaged in (content[:100], b"", b"\x1f\x8b" + content[5:], json.dumps({}).encode()):
        path.write_bytes(damaged)
        with pytest.raises(CorpusError, match="is no catalogue"):
            read_catalogue(path, "pt")
