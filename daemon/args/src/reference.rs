//! The book's page on the command line is the program's own help: `ARTEL_RECORD=1 cargo test -p artel-args reference` writes
//! it anew.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use clap::{Command, CommandFactory as _};

const PAGE: &str = "../../docs/book/src/reference/cli.md";

/// The section of a verb and those of its own verbs; hidden ones are for the program itself.
fn render(command: &mut Command, depth: usize, page: &mut String) {
    let name = command.get_bin_name().unwrap_or("artel").to_owned();
    // The flags of every verb stand in the first section alone, and no value of the environment in any.
    let shown = command.clone().mut_args(|arg| {
        let is_repeated = depth > 2 && arg.is_global_set();
        arg.hide_env_values(true).hide(is_repeated)
    });
    let help = shown.color(clap::ColorChoice::Never).render_long_help().to_string();
    // Clap pads lines of columns with spaces.
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    write!(page, "\n{} `{name}`\n\n```text\n{}\n```\n", "#".repeat(depth.min(4)), help.join("\n").trim_end()).unwrap();
    for verb in command.get_subcommands_mut().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        render(verb, depth + 1, page);
    }
}

#[test]
fn the_page_on_the_command_line_is_the_help() {
    let mut command = crate::Args::command().term_width(100);
    command.build();
    let mut page = String::from(
        "# Command line\n\nThis page is generated from the program's own help: `artel help VERB` prints the same. \
         Every verb takes `--json`, which prints one JSON object per line and nothing else on standard output.\n",
    );
    render(&mut command, 2, &mut page);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    if env::var_os("ARTEL_RECORD").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let recorded = fs::read_to_string(&path).unwrap_or_default();
    assert!(recorded == page, "{PAGE} is not the help: ARTEL_RECORD=1 cargo test -p artel-args reference writes it");
}
