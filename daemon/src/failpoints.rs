//! `artel-failpoints`: `artel` with the feature `failpoints`, which tests start instead of `artel`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    artel::main()
}
