//! Files of each format become text and chunks.

use std::path::Path;

use artel_documents::{ChunkSize, DocumentChunk, Format, LoadedDocument, SourceLanguage, chunk, format_of};

use crate::fixtures::office::{docx, paragraph, row, xlsx};
use crate::fixtures::{count, loaded, pdf, try_load};

fn chunks(document: &LoadedDocument, tokens: u32) -> Vec<DocumentChunk> {
    chunk(document, ChunkSize { tokens, overlap: 0 }, &count)
}

#[test]
fn a_format_is_told_by_name_and_else_by_content() {
    let by = |name: &str, head: &[u8]| format_of(Path::new(name), head);
    assert_eq!(by("a.MD", b"text"), Some(Format::Markdown));
    assert_eq!(by("a.rs", b"fn main() {}"), Some(Format::Source(SourceLanguage::Rust)));
    assert_eq!(by("a.md", &[0, 1, 2, 0, 0, 0]), None);
    assert_eq!(by("README", b"text"), Some(Format::Text));
    assert_eq!(by("README", "привет".as_bytes()), Some(Format::Text));
    assert_eq!(by("a.unknown", b"\x7fELF\x02\x01\x01\0\0\0"), None);
    assert_eq!(by("a", b" \n<!DOCTYPE html><p>x"), Some(Format::Html));
    assert_eq!(by("a", b"%PDF-1.7\n%\x80\x80"), Some(Format::Pdf));
    assert_eq!(by("a", &docx("")), Some(Format::Docx));
    assert_eq!(by("a", &xlsx(&[("A", "")])), Some(Format::Xlsx));
    assert_eq!(by("a.zip", &crate::fixtures::office::archive(&[("a", b"b")])), None);
    assert_eq!(by("empty", b""), Some(Format::Text));
}

#[test]
fn pages_of_a_pdf_have_numbers_and_lines_of_their_own() {
    let first = "Договор аренды помещения\nСтороны заключили договор о нижеследующем.";
    let document = loaded(pdf::of_pages(&[first, "", "Third page\nsecond line"]), Format::Pdf);
    let chunks = chunks(&document, 200);
    let found: Vec<_> = chunks.iter().map(|chunk| (chunk.page, chunk.lines.clone(), chunk.text.as_str())).collect();
    assert_eq!(found, [(Some(1), 1..=2, first), (Some(3), 1..=2, "Third page\nsecond line")]);
    let bytes =
        |chunk: &DocumentChunk| usize::try_from(chunk.bytes.start).unwrap()..usize::try_from(chunk.bytes.end).unwrap();
    assert!(chunks.iter().all(|chunk| document.text()[bytes(chunk)] == chunk.text));
}

#[test]
fn a_page_that_cannot_be_read_leaves_the_others() {
    let mut objects: Vec<String> = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Kids [4 0 R 5 0 R] /Count 2 /MediaBox [0 0 600 800] >>".to_owned(),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /Contents 6 0 R /Resources << /Font << /F1 99 0 R >> >> >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /Contents 6 0 R /Resources << /Font << /F1 3 0 R >> >> >>".to_owned(),
    ];
    objects.push(pdf::stream("BT /F1 12 Tf 50 700 Td (It is read) Tj ET"));
    let document = loaded(pdf::of_objects(&objects), Format::Pdf);
    assert_eq!(document.text(), "It is read\n");
    assert!(document.warnings()[0].starts_with("page 1 was left out: "), "{:?}", document.warnings());
}

#[test]
fn html_keeps_headings_lists_and_tables() {
    let html = "<html><head><title>T</title><style>p {}</style></head><body><h1>Guide</h1><script>var a = 1;</script>\
        <p>Intro <b>bold</b> &amp; <a href='#x'>inner</a> <img src='data:image/png;base64,AAAA' alt='a picture'></p>\
        <h2>Steps</h2><ul><li>one<ul><li>inner</li></ul></li><li>two</li></ul>\
        <table><tr><th>Name</th><th>Price</th></tr><tr><td>Tea</td><td>3</td></tr></table></body></html>";
    let document = loaded(html, Format::Html);
    let text = document.text();
    for part in ["# Guide", "**bold** & inner a picture", "## Steps", "- one", "- two", "| Name | Price |", "| Tea "] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert!(!text.contains("var a") && !text.contains("p {}") && !text.contains("base64"), "{text}");
    let last = chunks(&document, 30).pop().unwrap();
    assert_eq!(last.context, ["Guide", "Steps"]);
}

#[test]
fn html_says_its_encoding() {
    let page = "<html><head><meta charset=\"koi8-r\"></head><body><p>Ель</p></body></html>";
    let bytes = encoding_rs::KOI8_R.encode(page).0;
    assert_eq!(loaded(&bytes, Format::Html).text(), "Ель");
}

#[test]
fn docx_has_headings_lists_and_tables() {
    let cell = |words: &str| format!("<w:tc>{}</w:tc>", paragraph("", words));
    let body = [
        paragraph(r#"<w:pStyle w:val="1"/>"#, "Правила"),
        paragraph("", "Tom &amp; Jerry &#1078; <w:tab/>"),
        paragraph(r#"<w:pStyle w:val="Mine"/>"#, "Отпуск"),
        paragraph(r#"<w:numPr><w:ilvl w:val="0"/><w:numId w:val="1"/></w:numPr>"#, "one"),
        paragraph(r#"<w:numPr><w:ilvl w:val="1"/><w:numId w:val="1"/></w:numPr>"#, "inner"),
        "<w:p><w:del><w:r><w:delText>gone</w:delText></w:r></w:del><w:r><w:instrText>PAGE</w:instrText></w:r></w:p>"
            .to_owned(),
        format!(
            "<w:tbl><w:tr>{}{}</w:tr><w:tr>{}{}</w:tr></w:tbl>",
            cell("Name"),
            cell("Days"),
            cell("A|B"),
            cell("28")
        ),
    ]
    .concat();
    let document = loaded(docx(&body), Format::Docx);
    let expected = "# Правила\n\nTom & Jerry ж\n\n## Отпуск\n\n- one\n  - inner\n\n| Name | Days |\n| --- | --- |\n| A\\|B | 28 |\n";
    assert_eq!(document.text(), expected);
    assert_eq!(chunks(&document, 60).last().unwrap().context, ["Правила", "Отпуск"]);
}

#[test]
fn a_table_that_is_cut_has_its_header_in_each_chunk() {
    let mut markdown = String::from("# Prices\n\n| Article | Price |\n| --- | --- |\n");
    for number in 0..40 {
        markdown += &format!("| article number {number} | {number} |\n");
    }
    let chunks = chunks(&loaded(&markdown, Format::Markdown), 100);
    assert!(chunks.len() > 3);
    for chunk in chunks.iter().filter(|chunk| chunk.text != "# Prices") {
        assert!(chunk.indexed_text().contains("| Article | Price |"), "{chunk:?}");
        assert_eq!(chunk.context, ["Prices"]);
    }
}

#[test]
fn sheets_are_tables_with_their_header_in_each_chunk() {
    let rows: String =
        (2..60).map(|number| row(number, &[&format!("tea {number}"), "", &number.to_string()])).collect();
    let dates = row(1, &["2026", "7"]);
    let file = xlsx(&[("Prices", &(row(1, &["Name", "Note", "Price"]) + &rows)), ("Empty", ""), ("Numbers", &dates)]);
    let document = loaded(file, Format::Xlsx);
    let chunks = chunks(&document, 100);
    let (last, prices) = chunks.split_last().unwrap();
    assert!(prices.len() > 3);
    for chunk in prices {
        assert_eq!(
            (chunk.context.as_slice(), chunk.header.as_deref()),
            (&["Prices".to_owned()][..], Some("Name | Note | Price"))
        );
        assert!(count(&chunk.indexed_text()) <= 100, "{chunk:?}");
    }
    assert!(prices[0].text.starts_with("tea 2 |  | 2\n"), "{:?}", prices[0]);
    assert_eq!(
        (last.context.as_slice(), last.header.as_deref(), last.text.as_str()),
        (&["Numbers".to_owned()][..], None, "2026 | 7")
    );
}

#[test]
fn a_sheet_with_cells_in_opposite_corners_is_small() {
    let data = r#"<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>2</v></c></row>"#;
    let document = loaded(xlsx(&[("A", data)]), Format::Xlsx);
    assert!(document.text().starts_with("1\n") && document.text().ends_with(" | 2\n"));
}

#[test]
fn csv_keeps_the_bytes_of_its_file() {
    let table = "Имя;Город;Возраст\r\nАнна;\"Нижний;\r\nНовгород\";31\r\nПётр;Тверь;40\r\n";
    let bytes = encoding_rs::WINDOWS_1251.encode(table).0;
    let document = loaded(&bytes, Format::Csv);
    let chunks = chunks(&document, 55);
    let found: Vec<_> = chunks.iter().map(|chunk| (chunk.lines.clone(), chunk.text.as_str())).collect();
    assert_eq!(found, [(2..=3, "Анна;\"Нижний;\r\nНовгород\";31"), (4..=4, "Пётр;Тверь;40")]);
    for chunk in &chunks {
        assert_eq!(chunk.header.as_deref(), Some("Имя;Город;Возраст"));
        let range = usize::try_from(chunk.bytes.start).unwrap()..usize::try_from(chunk.bytes.end).unwrap();
        assert_eq!(encoding_rs::WINDOWS_1251.decode(&bytes[range]).0, chunk.text);
    }
}

#[test]
fn a_table_of_numbers_has_no_header() {
    let chunks = chunks(&loaded("1,2\n3,4\n", Format::Csv), 60);
    assert_eq!((chunks[0].header.as_deref(), chunks[0].text.as_str()), (None, "1,2\n3,4"));
}

#[test]
fn definitions_are_the_context_of_source_code() {
    let files = [
        (
            SourceLanguage::Rust,
            "use a;\n\nimpl Show for Thing {\n    fn show(&self) {\n        BODY\n    }\n}\n",
            "Show for Thing > show",
        ),
        (SourceLanguage::Python, "class Thing:\n    def show(self):\n        BODY\n", "Thing > show"),
        (SourceLanguage::JavaScript, "class Thing {\n  show() {\n    BODY\n  }\n}\n", "Thing > show"),
        (SourceLanguage::TypeScript, "class Thing {\n  show(): void {\n    BODY\n  }\n}\n", "Thing > show"),
        (SourceLanguage::Tsx, "function Show(): X {\n  BODY\n  return <b/>;\n}\n", "Show"),
        (SourceLanguage::Go, "package a\n\nfunc (t Thing) Show() {\n\tBODY\n}\n", "Show"),
        (SourceLanguage::C, "#include <a.h>\n\nstatic int *show(void)\n{\n    BODY\n}\n", "show"),
    ];
    for (language, file, path) in files {
        let body: Vec<String> = (0..30).map(|number| format!("call_number(\"argument\", {number});")).collect();
        let document = loaded(file.replace("BODY", &body.join("\n        ")), Format::Source(language));
        let chunks = chunks(&document, 120);
        let middle = &chunks[chunks.len() / 2];
        assert_eq!(middle.context.join(" > "), path, "{language:?}: {middle:?}");
    }
}

#[test]
fn files_without_text_say_so() {
    assert_eq!(try_load("", Format::Text).unwrap_err().to_string(), "is empty");
    assert_eq!(
        try_load(" \n\n", Format::Markdown).unwrap_err().to_string(),
        "has no text: a scanned document needs text recognition (OCR) first"
    );
    assert!(try_load(pdf::of_pages(&["", ""]), Format::Pdf).unwrap_err().to_string().starts_with("has no text"));
    assert!(try_load(docx(""), Format::Docx).unwrap_err().to_string().starts_with("has no text"));
}

#[test]
fn definitions_stay_whole_with_the_comment_above_them() {
    let function = |number: usize| {
        let body = format!("    call({number});\n").repeat(6);
        format!("/// Number {number}.\n#[inline]\nfn number_{number}() {{\n{body}}}\n\n")
    };
    let text: String = (0..40).map(function).collect();
    let mut chunks = chunks(&loaded(&text, Format::Source(SourceLanguage::Rust)), 220);
    // The last one may be the rest.
    chunks.pop();
    for chunk in chunks {
        assert!(chunk.text.starts_with("/// Number ") && chunk.text.ends_with("}"), "{chunk:?}");
        assert!(chunk.text.matches("fn number_").count() >= 2, "{chunk:?}");
    }
}
