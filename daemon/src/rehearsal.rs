//! `artel-rehearsal`: `artel` with the feature `rehearsal`, which tests start in its place.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    artel::main()
}
