"""Ten novels of Machado de Assis (1839-1908), in Portuguese, in the public domain."""

from collections.abc import Iterator

from ..errors import CorpusError
from ..places import find, shown
from ..textfiles import pieces
from .documents import Document, Note, Texts, texts_of_files

NOVELS = {  # in the order of their publication
    "ressurreicao.txt": "Ressurreição (1872)",
    "maoLuva.txt": "A Mão e a Luva (1874)",
    "helena.txt": "Helena (1876)",
    "iaia.txt": "Iaiá Garcia (1878)",
    "memoriasBras.txt": "Memórias Póstumas de Brás Cubas (1881)",
    "casaVelha.txt": "Casa Velha (1885)",
    "quincas.txt": "Quincas Borba (1891)",
    "domCasmurro.txt": "Dom Casmurro (1899)",
    "esau.txt": "Esaú e Jacó (1904)",
    "memorial-de-aires.txt": "Memorial de Aires (1908)",
}
SPLIT = {"esau.txt": "val", "memorial-de-aires.txt": "test"}  # the others are for training


def machado() -> Texts:
    """Trained on what he wrote before 1900, validated and tested on the last two novels.

    They are put by hand into data/machado-pt or $TINYGPT_DATA/machado-pt.
    """
    paths = {file: find("machado-pt", file) for file in NOVELS}
    if missing := [file for file, path in paths.items() if path is None]:
        raise CorpusError(
            f"machado-pt lacks {', '.join(missing)}: put the texts of these novels, which are in "
            f"the public domain, into data/machado-pt as UTF-8"
        )

    def read() -> Iterator[Document | Note]:
        for file, path in paths.items():
            yield Document(SPLIT.get(file, "train"), pieces(path))
        for file, split in SPLIT.items():
            yield Note(f"{split}: {NOVELS[file]}")

    source = f"ten novels in {shown(paths['esau.txt']).rpartition('/')[0]}"
    return texts_of_files("machado-pt", source, "public domain", paths.values(), read)
