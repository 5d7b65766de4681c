use encoding_rs::{GBK, IBM866, KOI8_R, KOI8_U, WINDOWS_1251};

use super::*;

const RUSSIAN: [&str; 8] = [
    "Привет",
    "мир",
    "Договор аренды №5 от 3 мая",
    "ПРИКАЗ О НАЗНАЧЕНИИ",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "name = Иван\nкод = 17",
    "Отпуск составляет двадцать восемь дней.\r\nЗаявление подают за две недели.",
    "Он сказал: «Не знаю» — и ушёл.",
];

#[test]
fn short_russian_texts_are_told_apart() {
    for text in RUSSIAN {
        for encoding in [WINDOWS_1251, KOI8_R, IBM866] {
            let (bytes, _, unmappable) = encoding.encode(text);
            if unmappable {
                continue;
            }
            let decoded = decode(&bytes).unwrap();
            assert_eq!(decoded.text, text, "{text:?} in {}", encoding.name());
        }
    }
}

#[test]
fn utf8_and_utf16_need_no_mark() {
    for text in RUSSIAN.into_iter().chain(["plain ASCII text\n", "naïve café"]) {
        let text = format!("{text}\n");
        let (le, be) = (utf16(&text, u16::to_le_bytes), utf16(&text, u16::to_be_bytes));
        let marked = [&b"\xef\xbb\xbf"[..], text.as_bytes()].concat();
        let marked_le = [&b"\xff\xfe"[..], &le].concat();
        let marked_be = [&b"\xfe\xff"[..], &be].concat();
        for bytes in [text.as_bytes().to_vec(), marked, le, be, marked_le, marked_be] {
            assert_eq!(decode(&bytes).unwrap().text, text, "{bytes:?}");
        }
    }
}

#[test]
fn other_languages_are_left_to_the_detector() {
    let french = "Le café a été fermé à cause de la grève des employés, c'était prévu.";
    let (bytes, ..) = WINDOWS_1252.encode(french);
    assert_eq!(decode(&bytes).unwrap().text, french);
    let german = "Die Prüfung der Größe erfolgt täglich; Überschüsse werden abgeführt.";
    assert_eq!(decode(&WINDOWS_1252.encode(german).0).unwrap().text, german);
    let chinese = "合同的期限为三年，自双方签字之日起生效。任何一方可以提前三十天书面通知对方解除合同。";
    assert_eq!(decode(&GBK.encode(chinese).0).unwrap().text, chinese);
    let ukrainian = "Відпустка надається за заявою працівника, її тривалість — двадцять чотири дні.";
    assert_eq!(
        decode(&KOI8_U.encode(ukrainian.replace('—', "-").as_str()).0).unwrap().text,
        ukrainian.replace('—', "-")
    );
}

#[test]
fn a_broken_character_leaves_the_rest_utf8() {
    let mut bytes = "Длинный русский текст, которому отрезали конец.".as_bytes().to_vec();
    bytes.push(0xd0);
    let text = decode(&bytes).unwrap().text;
    assert!(text.starts_with("Длинный русский") && text.ends_with('\u{fffd}'), "{text}");
}

#[test]
fn zeros_are_no_text() {
    assert!(matches!(decode(b"text\0text"), Err(DocumentError::Binary { offset: 4 })));
    assert!(matches!(decode(&[0; 64]), Err(DocumentError::Binary { offset: 0 })));
    assert!(is_binary(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"));
}

fn utf16(text: &str, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(order).collect()
}
