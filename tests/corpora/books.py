"""A small Project Gutenberg: books in Portuguese of this project's own words, with all their marks
and faults, as files of a mirror."""

import csv
import gzip
import io
import random

WORDS = [
    "a",
    "casa",
    "velha",
    "do",
    "alto",
    "tinha",
    "janelas",
    "verdes",
    "e",
    "um",
    "portão",
    "que",
    "rangia",
    "quando",
    "o",
    "vento",
    "vinha",
    "da",
    "serra",
    "ninguém",
    "sabia",
    "ao",
    "certo",
    "quem",
    "morava",
    "ali",
    "mas",
    "à",
    "noite",
    "via-se",
    "uma",
    "luz",
    "no",
    "sótão",
    "coração",
    "e",
    "mãos",
    "de",
    "água",
    "três",
    "irmãs",
    "guardavam",
    "o",
    "pão",
    "às",
    "avós",
    "o",
    "violão",
    "pêssego",
    "ação",
    "não",
    "há",
    "manhã",
    "sem",
    "névoa",
]
LICENCE = "\n\n".join(
    f"Paragraph {i}. " + "Redistribution is subject to the licence, and so on and so forth. " * 8
    for i in range(12)
)


def prose(seed: int, paragraphs: int = 40) -> str:
    """A text without sense and without repetitions, in lines of some seventy letters."""
    draw, found = random.Random(seed), []
    for _ in range(paragraphs):
        words = draw.choices(WORDS, k=60)
        rows = [" ".join(words[i : i + 12]) for i in range(0, 60, 12)]
        found.append("\n".join(rows).capitalize() + ".")
    return "\n\n".join(found)


def modern(title: str, body: str, head: str = "", tail: str = "") -> str:
    """A file in today's form."""
    mark = f"OF THE PROJECT GUTENBERG EBOOK {title.upper()} ***"
    start = f"\ufeffThe Project Gutenberg eBook of {title}\n\nTitle: {title}\n\n*** START {mark}"
    return "\n\n".join([start, head, body, tail, f"*** END {mark}", LICENCE])


def older(title: str, body: str) -> str:
    """A file in the form of 2005, whose mark has a title of two lines."""
    return (
        f"The Project Gutenberg EBook of {title}\n\nCharacter set encoding: ISO-8859-1\n\n"
        f"*** START OF THIS PROJECT GUTENBERG EBOOK {title}\nOU A SEGUNDA LINHA ***\n\n\n"
        "Produced by A. Maker and the Online Distributed Proofreading\nTeam (This file was made "
        "from images generously\nmade available by the Biblioteca Nacional de Portugal.)\n\n\n"
        f"{body}\n\n\nEnd of Project Gutenberg's {title}, by Alguém\n\n"
        f"*** END OF THIS PROJECT GUTENBERG EBOOK {title} ***\n\n{LICENCE}"
    )


def oldest(title: str, body: str) -> str:
    """A file of the nineties: the licence comes first."""
    return (
        f"**The Project Gutenberg Etext of {title}**\n\n***START**THE SMALL PRINT!**FOR PUBLIC "
        f"DOMAIN ETEXTS**START***\n\n{LICENCE}\n\n*END*THE SMALL PRINT! FOR PUBLIC DOMAIN "
        f"ETEXTS*Ver.04.29.93*END*\n\n\n{body}\n\n\nEnd of The Project Gutenberg Etext of {title}\n"
    )


NOTE = "Nota do transcritor:\n\nForam corrigidos os erros de impressão mais evidentes."
LIST = "Lista de erros corrigidos\n\nOriginal: cazza\n\nCorreção: casa"
HTML = "Note: Project Gutenberg also has an HTML version of this file, 12-h.htm."
SHARED = prose(900, 30)
NUMBERS = (3, 12, 19, 50, 51, 60, 61, 70, 80, 90, 91, 96, 97, 98, 99, 345)
BODIES = {number: [prose(number)] for number in NUMBERS} | {
    60: [prose(60, 10), SHARED],
    61: [SHARED, prose(61, 10)],
    80: [prose(80, 20), prose(81, 20)],
    91: [prose(90)],  # an older release of 90
}
USABLE = (3, 12, 19, 50, 51, 60, 61, 70, 80, 90, 345)
TITLES = {  # and authors, and days of release
    3: ("A Luz no Alto", "Silva, Ana, 1850-1920", "2001-01-01"),
    12: ("As Três Avós", "Costa, Rui", "2002-02-02"),
    19: ("Névoa", "Reis, Eva", "1999-09-09"),
    50: ("Obra Grande: Volume 1", "Melo, Davi", "2003-01-01"),
    51: ("Obra Grande: Volume 2", "Melo, Davi", "2003-01-02"),
    60: ("Contos", "Lima, Ida", "2004-01-01"),
    61: ("Novos Contos", "Lima, Ida", "2004-02-01"),
    70: ("Pêssego", "Dias, Rosa", "2004-03-01"),
    80: ("A Serra", "Pinto, Zé", "2006-01-01"),
    90: ("O Vento", "Faria, Bia", "2007-01-01"),
    91: ("O Vento", "Faria, Bia", "2003-01-01"),
    95: ("Sem Texto", "Nunes, Gil", "2008-01-01"),
    96: ("Protegido", "Nunes, Gil", "2008-01-01"),
    97: ("Sem Marcas", "Nunes, Gil", "2008-01-01"),
    98: ("Cortado", "Nunes, Gil", "2008-01-01"),
    99: ("Quase Nada", "Nunes, Gil", "2008-01-01"),
    345: ("O Velho", "Reis, Eva", "2005-05-05"),
}
PLACES = {
    3: "cache/epub/3/pg3.txt",
    19: "1/19/19.txt",
    345: "3/4/345/345-8.txt",
    50: "5/50/50-0.txt",
}


def book(number: int) -> bytes:
    """A book's file, with the faults of its kind."""
    title, body = TITLES[number][0], "\n\n".join(BODIES[number])
    made = modern(title, body)
    if number == 80:
        between = "*** END OF THE PROJECT\n\nThis book is from the Project Gutenberg."
        made = modern(title, f"\n\n{between}\n\n".join(BODIES[80]))
    forms = {
        3: modern(title, body, HTML),
        12: modern(title, body, NOTE, LIST),
        19: oldest(title, body),
        70: made.encode().decode("latin-1"),  # and encoded once more
        90: modern(title, f"[Ilustração: uma casa]\n\n{body}"),
        96: "*** This is a COPYRIGHTED Project Gutenberg eBook ***\n" + made,
        97: body,
        98: made[:9000],
        99: made.replace("\n\n", "\n\nProject Gutenberg\n", 30),
    }
    if number == 345:
        return older(title, body).encode("cp1252")
    return forms.get(number, made).replace("\n", "\r\n").encode()


def files() -> dict[str, bytes]:
    """The files of the mirror, by their paths."""
    found = {"cache/epub/feeds/pg_catalog.csv.gz": gzip.compress(_catalogue().encode())}
    for number in BODIES:
        found[PLACES.get(number, f"cache/epub/{number}/pg{number}.txt")] = book(number)
    return found


def _catalogue() -> str:
    sheet = io.StringIO()
    rows = csv.writer(sheet)
    columns = "Text# Type Issued Title Language Authors Subjects LoCC Bookshelves"
    rows.writerow(columns.split())
    for number, (title, authors, issued) in TITLES.items():
        rows.writerow([number, "Text", issued, title, "pt", authors, "Fiction", "PQ", ""])
    rows.writerow([7, "Text", "2000-01-01", "A Book\nof two lines", "en", "Doe, Jo", "", "", ""])
    rows.writerow([8, "Sound", "2000-01-01", "Um Canto", "pt", "Doe, Jo", "", "", ""])
    rows.writerow([9, "Text", "2000-01-01", "Two Tongues", "en; pt", "Doe, Jo", "", "", ""])
    return sheet.getvalue()
