//! What holds of the chunks of any text.

use std::ops::Range;

use artel_documents::{ChunkSize, DocumentChunk, Format, SourceLanguage, chunk};
use encoding_rs::{Encoding, GBK, KOI8_R, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1251};
use proptest::prelude::*;

use crate::fixtures::{count, loaded};

fn range(chunk: &DocumentChunk) -> Range<usize> {
    usize::try_from(chunk.bytes.start).unwrap()..usize::try_from(chunk.bytes.end).unwrap()
}

/// Pieces of Markdown, which are pieces of text and of broken source code too.
fn text() -> impl Strategy<Value = String> {
    let words = proptest::collection::vec("[a-z]{1,12}|[а-яё]{1,12}|[A-Z0-9_]{1,6}", 1..40)
        .prop_map(|words| words.join(" ") + ". ");
    let piece = prop_oneof![
        8 => words,
        1 => "[一-龥]{1,60}。",
        1 => "(#{1,4} [a-z]{1,9}\n){1,2}".prop_map(|heading| format!("\n\n{heading}\n")),
        1 => "\\PC{0,20}",
        1 => Just("\n\n".to_owned()),
        1 => Just("\r\n".to_owned()),
        1 => Just("\n\n\n  \t\n".to_owned()),
        1 => Just("\n```rust\nfn main() {\n    let a = 1;\n}\n```\n".to_owned()),
        1 => Just("\n| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n\n".to_owned()),
        1 => Just("\n- one\n  - two\n- three\n".to_owned()),
        1 => "x{200,600}",
    ];
    proptest::collection::vec(piece, 1..60).prop_map(|pieces| pieces.concat())
}

fn formats() -> impl Strategy<Value = Format> {
    prop_oneof![
        Just(Format::Text),
        Just(Format::Markdown),
        Just(Format::Source(SourceLanguage::Rust)),
        Just(Format::Source(SourceLanguage::Python)),
        Just(Format::Csv),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_piece_is_in_a_chunk_at_its_place(text in text(), format in formats(), tokens in 16u32..300, overlap in 0u32..100) {
        prop_assume!(!text.trim().is_empty());
        let document = loaded(&text, format);
        let size = ChunkSize { tokens, overlap };
        let chunks = chunk(&document, size, &count);
        let mut covered = vec![false; text.len()];
        let mut before: Option<Range<usize>> = None;
        for chunk in &chunks {
            let range = range(chunk);
            prop_assert_eq!(&text[range.clone()], &chunk.text);
            prop_assert!(!chunk.text.trim().is_empty());
            prop_assert!(count(&chunk.indexed_text()) <= tokens as usize, "{} tokens of {tokens}: {:?}", count(&chunk.indexed_text()), chunk);
            let first = text[..range.start].matches('\n').count() + 1;
            let last = text[..range.end].matches('\n').count() + 1;
            prop_assert_eq!(chunk.lines.clone(), u32::try_from(first).unwrap()..=u32::try_from(last).unwrap());
            if let Some(before) = before {
                prop_assert!(before.start < range.start && before.end < range.end, "{before:?} {range:?}");
                if range.start < before.end {
                    let shared = count(text[range.start..before.end].trim());
                    prop_assert!(shared <= overlap as usize, "{shared} tokens of {overlap} are shared");
                }
            }
            covered[range.clone()].fill(true);
            before = Some(range);
        }
        if let Some(header) = chunks.iter().find_map(|chunk| chunk.header.clone()).filter(|_| format == Format::Csv) {
            let start = text.find(&header).unwrap();
            covered[start..start + header.len()].fill(true);
        }
        for (at, c) in text.char_indices() {
            prop_assert!(covered[at] || c.is_whitespace() || c == '\u{feff}', "{c:?} at {at} is in no chunk");
        }
    }

    #[test]
    fn positions_are_those_of_the_encoded_file(words in proptest::collection::vec("[а-яё]{2,9}|[a-z]{2,9}", 40..400), tokens in 30u32..100) {
        let text = format!("Первая строка, как у всех: {}.\n", words.chunks(7).map(|line| line.join(" ")).collect::<Vec<_>>().join(",\r\n"));
        for (encoding, mark) in [(UTF_8, &b""[..]), (UTF_8, b"\xef\xbb\xbf"), (UTF_16LE, b"\xff\xfe"), (UTF_16BE, b""), (WINDOWS_1251, b""), (KOI8_R, b"")] {
            at_its_place(&text, encoding, mark, tokens);
        }
    }
}

fn at_its_place(text: &str, encoding: &'static Encoding, mark: &[u8], tokens: u32) {
    let encoded = match encoding.name() {
        "UTF-16LE" => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        "UTF-16BE" => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        _ => encoding.encode(text).0.into_owned(),
    };
    let file = [mark, &encoded].concat();
    let document = loaded(&file, Format::Text);
    assert_eq!(document.text(), text, "{}", encoding.name());
    for chunk in chunk(&document, ChunkSize { tokens, overlap: tokens / 5 }, &count) {
        let (decoded, _) = encoding.decode_without_bom_handling(&file[range(&chunk)]);
        assert_eq!(decoded, chunk.text, "{}", encoding.name());
    }
}

#[test]
fn positions_are_right_in_multibyte_encodings_and_behind_broken_characters() {
    let chinese = "合同的期限为三年，自双方签字之日起生效。任何一方可以提前三十天书面通知对方解除合同。\n".repeat(40);
    at_its_place(&chinese, GBK, b"", 100);
    let mut file = Vec::new();
    for number in 0..100 {
        file.extend_from_slice(format!("Строка номер {number}, в ней всё на своём месте.\n").as_bytes());
        if number % 10 == 0 {
            file.extend_from_slice(b"\xff\xd0 ");
        }
    }
    let chunks = chunk(&loaded(&file, Format::Text), ChunkSize { tokens: 100, overlap: 20 }, &count);
    assert!(chunks.len() > 20);
    for chunk in chunks {
        assert_eq!(String::from_utf8_lossy(&file[range(&chunk)]), chunk.text);
    }
}

#[test]
fn neighbours_share_what_was_asked() {
    let text: String =
        (0..2000).map(|number| format!("Sentence number {number} says something of its own. ")).collect();
    let chunks = chunk(&loaded(&text, Format::Text), ChunkSize { tokens: 200, overlap: 40 }, &count);
    let shared: Vec<usize> = chunks
        .windows(2)
        .map(|pair| {
            if pair[1].bytes.start < pair[0].bytes.end {
                count(&text[range(&pair[1]).start..range(&pair[0]).end])
            } else {
                0
            }
        })
        .collect();
    assert!(shared.iter().all(|tokens| (20..=40).contains(tokens)), "{shared:?}");
    let sizes: Vec<usize> = chunks[..chunks.len() - 1].iter().map(|chunk| count(&chunk.text)).collect();
    assert!(sizes.iter().all(|tokens| (160..=200).contains(tokens)), "{sizes:?}");
}

#[test]
fn a_chunk_has_the_headings_above_it() {
    let mut text = String::from("Before any heading.\n\n");
    // The path at each line, told while the text is written.
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut paths = vec![String::new(); 2];
    for number in 0..200 {
        let level = 1 + (number * 7 + number / 3) % 4;
        path.retain(|(outer, _)| *outer < level);
        path.push((level, format!("Part {number}")));
        let joined = path.iter().map(|(_, title)| title.as_str()).collect::<Vec<_>>().join(" > ");
        text += &format!("{} Part {number}\n\n", "#".repeat(level));
        text += &"A line of this part that is long enough to be cut somewhere.\n".repeat(number % 9);
        text += "\n";
        paths.resize(text.matches('\n').count(), joined);
    }
    let chunks = chunk(&loaded(&text, Format::Markdown), ChunkSize { tokens: 120, overlap: 0 }, &count);
    assert!(chunks.len() > 100);
    for chunk in chunks {
        assert_eq!(chunk.context.join(" > "), paths[*chunk.lines.start() as usize - 1], "{chunk:?}");
    }
}
