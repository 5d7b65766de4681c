//! `artel`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    artel::main()
}
