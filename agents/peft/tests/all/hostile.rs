//! Damaged files give an error, and no panic.

use std::fs;

use artel_peft::{SETTINGS_FILE, WEIGHTS_FILE, peft_to_gguf};
use proptest::prelude::*;

use crate::fixtures::{HeaderModel, TestAdapter, Workplace};

fn damage(bytes: &mut Vec<u8>, at: usize, byte: u8, cut: Option<usize>) {
    let length = bytes.len();
    bytes[at % length] = byte;
    bytes.truncate(cut.map_or(length, |cut| cut % length));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn damage_of_any_file_never_panics(
        file in 0..3usize,
        at in prop_oneof![0..400usize, 0..20_000usize],
        byte: u8,
        cut in prop::option::weighted(0.2, 0..20_000usize),
    ) {
        let work = Workplace::new(HeaderModel::new("llama"));
        TestAdapter::of(&work.model.modules()).write(&work.path("peft"));
        let files = [
            work.path("model.gguf"),
            work.path("peft").join(SETTINGS_FILE),
            work.path("peft").join(WEIGHTS_FILE),
        ];
        let mut bytes = fs::read(&files[file]).unwrap();
        damage(&mut bytes, at, byte, cut);
        fs::write(&files[file], bytes).unwrap();
        let to_gguf = peft_to_gguf(&work.path("peft"), &files[0], &work.path("new.gguf"));
        prop_assert_eq!(to_gguf.is_ok(), work.path("new.gguf").exists());
    }
}
