//! Files that are broken, or made to break what reads them: one line of reason each, and the next file is read.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use artel_documents::{Extraction, Extractor, FileSource, LoadLimits};

use crate::extractor::{LIMITS, extractor};
use crate::fixtures::office::{archive, docx, docx_of, paragraph, row, xlsx};
use crate::fixtures::pdf;

/// Reads files one after the other in one worker.
struct Reader {
    extractor: Extractor,
    most_bytes: u64,
}

impl Reader {
    fn new(limits: LoadLimits) -> Self {
        Self { extractor: extractor(limits), most_bytes: 0 }
    }

    fn path(&mut self, path: &Path) -> Result<Extraction, String> {
        self.source(FileSource::Path(path))
    }

    fn content(&mut self, name: &str, bytes: &[u8]) -> Result<Extraction, String> {
        self.source(FileSource::Content { name, bytes })
    }

    fn source(&mut self, source: FileSource<'_>) -> Result<Extraction, String> {
        let read = self.extractor.extract(source, None).map_err(|error| error.to_string());
        if let Some(process) = self.extractor.process_id() {
            self.most_bytes = self.most_bytes.max(peak_bytes(process));
        }
        if let Err(reason) = &read {
            assert!(!reason.contains(['\n', '\r']), "{reason:?} is one line");
        }
        let next =
            self.extractor.extract(FileSource::Content { name: "next.txt", bytes: b"the next file" }, None).unwrap();
        assert_eq!(next.chunks[0].text, "the next file");
        read
    }

    fn refuses(&mut self, name: &str, bytes: &[u8], reason: &str) {
        let given = self.content(name, bytes).map(|read| read.chunks.len()).unwrap_err();
        assert!(given.starts_with(reason), "{name}: {given}");
    }
}

/// The most memory that a process has had.
fn peak_bytes(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn broken_pdf_files() {
    let mut reader = Reader::new(LIMITS);
    let whole = pdf::of_pages(&["A page of text", "Another page"]);
    reader.refuses("half.pdf", &whole[..whole.len() / 2], "is no valid PDF: ");
    reader.refuses("start.pdf", &whole[..20], "is no valid PDF: ");
    reader.refuses("words.pdf", b"these are words", "is no valid PDF: ");
    let catalog = "<< /Type /Catalog /Pages 2 0 R >>".to_owned();
    // The tree of pages contains itself, a page inherits from itself, a font is its own descendant.
    let circle = |objects: &[&str]| {
        pdf::of_objects(
            &[std::slice::from_ref(&catalog), &objects.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>()[..]]
                .concat(),
        )
    };
    reader.refuses("tree.pdf", &circle(&["<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 2 >>"]), "");
    let parent = circle(&[
        "<< /Type /Pages /Kids [3 0 R] /Count 1 /Parent 2 0 R >>",
        "<< /Type /Page /Parent 2 0 R /Contents 4 0 R >>",
        &pdf::stream("BT ET"),
    ]);
    reader.refuses(
        "parent.pdf",
        &parent,
        "ends the process that reads it: its parts are nested too deeply or in a circle",
    );
    reader.refuses("self.pdf", &circle(&["2 0 R"]), "is no valid PDF: ");
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    reader.refuses("deep.pdf", &circle(&["<< /Type /Pages /Kids 3 0 R /Count 1 >>", &deep]), "");
    assert!(reader.content("whole.pdf", &whole).is_ok());
    assert!(reader.most_bytes < 64 << 20, "{} bytes", reader.most_bytes);
}

#[test]
fn archives_that_unpack_to_more_than_they_should() {
    let mut reader = Reader::new(LIMITS);
    let bomb = vec![b' '; 16 << 20];
    let reason = "unpacks to more than 8388608 bytes, the limit for an archive";
    reader.refuses("a.docx", &archive(&[("word/document.xml", &bomb)]), reason);
    reader.refuses("b.docx", &archive(&[("word/styles.xml", &bomb), ("word/document.xml", b"<a/>")]), reason);
    let half = vec![b' '; 5 << 20];
    reader.refuses("c.docx", &archive(&[("word/styles.xml", &half), ("word/document.xml", &half)]), reason);
    reader.refuses("a.xlsx", &archive(&[("xl/sharedStrings.xml", &bomb), ("xl/workbook.xml", b"<a/>")]), reason);
    // An archive within an archive is a picture like any other, and stays packed.
    let inner = archive(&[("a", &archive(&[("b", &bomb)]))]);
    let nested = archive(&[
        ("word/document.xml", format!("<w:document>{}</w:document>", paragraph("", "text")).as_bytes()),
        ("word/embeddings/a.xlsx", &inner),
        ("word/media/bomb.bin", &bomb),
    ]);
    assert_eq!(reader.content("nested.docx", &nested).unwrap().chunks[0].text, "text");
    let many: Vec<(String, Vec<u8>)> = (0..1001).map(|number| (format!("word/{number}"), Vec::new())).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    reader.refuses("many.docx", &archive(&many), "has more than 1000 archive entries");
    let whole = docx(&paragraph("", "text"));
    reader.refuses("half.docx", &whole[..whole.len() / 2], "is no valid DOCX: ");
    reader.refuses("words.xlsx", b"words", "is no valid XLSX: ");
    assert!(reader.most_bytes < 64 << 20, "{} bytes", reader.most_bytes);
}

#[test]
fn entities_are_not_expanded() {
    let mut reader = Reader::new(LIMITS);
    let document = r#"<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;"><!ENTITY f SYSTEM "file:///etc/passwd">]>
        <w:document><w:p><w:t>&b;&f;</w:t></w:p></w:document>"#;
    reader.refuses("a.docx", &docx_of(document), "is no valid DOCX: it declares entities");
    let undeclared = "<w:document><w:p><w:t>before&f;after</w:t></w:p></w:document>";
    assert_eq!(reader.content("b.docx", &docx_of(undeclared)).unwrap().chunks[0].text, "beforeafter");
    let sheet = row(1, &["name", "&lt;b&gt; &unknown;"]);
    if let Ok(read) = reader.content("c.xlsx", &xlsx(&[("A", &sheet)])) {
        assert!(read.chunks[0].text.len() < 100, "{read:?}");
    }
}

#[test]
fn texts_without_measure() {
    let mut reader = Reader::new(LoadLimits { file_bytes: 64 << 20, text_bytes: 64 << 20, ..LIMITS });
    reader.refuses(
        "deep.html",
        "<div>".repeat(100_000).as_bytes(),
        "nests elements deeper than 512, the limit for a file",
    );
    reader.refuses(
        "deep.html",
        "<b><p>".repeat(100_000).as_bytes(),
        "nests elements deeper than 512, the limit for a file",
    );
    let allowed = format!("{}text{}", "<div>".repeat(500), "</div>".repeat(500));
    assert_eq!(reader.content("allowed.html", allowed.as_bytes()).unwrap().chunks[0].text, "text");
    let items = format!("<ul>{}</ul>", "<li>one<p>two".repeat(5_000));
    assert!(reader.content("unclosed.html", items.as_bytes()).unwrap().chunks.len() > 10);
    let columns = vec!["1"; 1_000_000].join(",");
    reader.refuses("wide.csv", columns.as_bytes(), "has more than 1000 columns");
    reader.refuses("long.csv", "1,2\n".repeat(10_001).as_bytes(), "has more than 10000 rows");
    reader.refuses("zeros.txt", b"text\0\0\0text and more text", "is no text: byte 4 is 0");
    reader.refuses("zeros.bin", &[0; 100], "has a format that cannot be read");
    reader.refuses("empty.md", b"", "is empty");
    let deep_code = "(".repeat(300_000);
    assert!(!reader.content("deep.py", deep_code.as_bytes()).unwrap().chunks.is_empty());
    assert!(reader.most_bytes < 256 << 20, "{} bytes", reader.most_bytes);
}

#[test]
fn one_line_is_cut_as_far_as_the_limits_go() {
    let mut reader = Reader::new(LoadLimits { file_bytes: 64 << 20, ..LIMITS });
    let line = "0123456789".repeat(5 << 20);
    reader.refuses("line.txt", line.as_bytes(), "has more than 8388608 bytes of text, the limit for a file");
    let short = &line[..1 << 20];
    let read = reader.content("line.txt", short.as_bytes()).unwrap();
    assert_eq!(read.chunks.last().unwrap().bytes.end, short.len() as u64);
    assert!(reader.most_bytes < 256 << 20, "{} bytes", reader.most_bytes);
}

#[test]
fn a_file_that_needs_too_much_memory_ends_its_process_alone() {
    let mut reader =
        Reader::new(LoadLimits { memory_bytes: 16 << 20, file_bytes: 64 << 20, text_bytes: 64 << 20, ..LIMITS });
    let text = "some words of a text\n".repeat(3 << 20);
    let reason = "needs more than 16777216 bytes of memory to be read, the limit for a file";
    reader.refuses("a.txt", text.as_bytes(), reason);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.txt");
    fs::write(&path, &text).unwrap();
    assert_eq!(reader.path(&path).unwrap_err(), reason);
    // What a parser asks for is not refused but ends the process: a short stream that unpacks to 200 MB.
    let packed = flate_stream(200 << 20);
    let length = format!("<< /Filter /FlateDecode /Length {} >>\nstream\n", packed.len());
    let objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>".to_vec(),
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 /MediaBox [0 0 9 9] >>".to_vec(),
        b"<< /Type /Page /Parent 2 0 R /Contents 4 0 R >>".to_vec(),
        [length.as_bytes(), &packed, b"\nendstream"].concat(),
    ];
    reader.refuses("bomb.pdf", &pdf::of_objects(&objects), reason);
}

/// Spaces as a zlib stream, which an archive's deflated entry is but for two bytes before it and a checksum behind it.
fn flate_stream(bytes: usize) -> Vec<u8> {
    let archive = archive(&[("a", &vec![b' '; bytes])]);
    let start = 30
        + usize::from(u16::from_le_bytes([archive[26], archive[27]]))
        + usize::from(u16::from_le_bytes([archive[28], archive[29]]));
    let packed = u32::from_le_bytes(archive[18..22].try_into().unwrap()) as usize;
    [&[0x78, 0x9c][..], &archive[start..start + packed], &[0; 4]].concat()
}

#[test]
fn what_is_no_file_and_what_may_not_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let mut reader = Reader::new(LIMITS);
    fs::create_dir(path("x.md")).unwrap();
    nix::unistd::mkfifo(&path("pipe.md"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    symlink("a.md", path("b.md")).unwrap();
    symlink("b.md", path("a.md")).unwrap();
    File::create(path("sparse.txt")).unwrap().set_len(2 << 30).unwrap();
    fs::write(path("secret.md"), "words").unwrap();
    fs::set_permissions(path("secret.md"), Permissions::from_mode(0o000)).unwrap();
    let mut reason = |name: &str| reader.path(&path(name)).map(|read| read.chunks.len());
    assert_eq!(reason("x.md"), Err("is a directory, not a file".to_owned()));
    assert_eq!(reason("pipe.md"), Err("is a pipe, not a file".to_owned()));
    assert_eq!(
        reason("sparse.txt"),
        Err("holds 2147483648 bytes, and the limit for a file is 8388608: split it, or raise the limit".to_owned())
    );
    assert!(reason("a.md").unwrap_err().starts_with("cannot be read: Too many levels of symbolic links"));
    assert!(reason("gone.md").unwrap_err().starts_with("cannot be read: No such file"));
    // Root reads what it likes.
    match reason("secret.md") {
        Ok(chunks) => assert_eq!((chunks, nix::unistd::geteuid().is_root()), (1, true)),
        Err(given) => assert!(given.starts_with("cannot be read: Permission denied"), "{given}"),
    }
    assert!(reader.most_bytes < 64 << 20, "{} bytes", reader.most_bytes);
}
