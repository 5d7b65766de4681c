//! Which flags were given, and where: on the command line, or by an environment variable.

use std::collections::{BTreeMap, BTreeSet};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

/// Where a flag was given. Its value is not kept here: it may be secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlagSource {
    /// On the command line, as in `--data`.
    CommandLine(String),
    /// By this environment variable.
    Environment(String),
}

/// The flags that were given, by their names without dashes, as in `log_format`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GivenFlags(BTreeMap<String, FlagSource>);

impl GivenFlags {
    /// The flags of a command line that was parsed.
    pub(crate) fn of(command: &Command, matches: &ArgMatches) -> Self {
        let mut given = Self::default();
        given.add(command, matches);
        given
    }

    /// Where a flag was given; `None` if it was not.
    pub fn source(&self, flag: &str) -> Option<&FlagSource> {
        self.0.get(flag)
    }

    fn add(&mut self, command: &Command, matches: &ArgMatches) {
        for arg in command.get_arguments() {
            let id = arg.get_id().as_str();
            let source = match matches.value_source(id) {
                Some(ValueSource::CommandLine) => {
                    arg.get_long().map(|flag| FlagSource::CommandLine(format!("--{flag}")))
                }
                Some(ValueSource::EnvVariable) => {
                    arg.get_env().map(|name| FlagSource::Environment(name.to_string_lossy().into_owned()))
                }
                _ => None,
            };
            self.0.extend(source.map(|source| (id.to_owned(), source)));
        }
        if let Some((name, inner)) = matches.subcommand() {
            let verb = command.find_subcommand(name).expect("what was parsed is defined");
            self.add(verb, inner);
        }
    }
}

/// Every environment variable that is read as a flag of a verb.
pub(crate) fn variables(command: &Command) -> BTreeSet<String> {
    let mut variables = BTreeSet::new();
    add_variables(command, &mut variables);
    variables
}

fn add_variables(command: &Command, variables: &mut BTreeSet<String>) {
    let names = command.get_arguments().filter_map(|arg| arg.get_env());
    variables.extend(names.map(|name| name.to_string_lossy().into_owned()));
    command.get_subcommands().for_each(|verb| add_variables(verb, variables));
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::Args;

    #[test]
    fn a_flag_is_known_with_its_place() {
        let mut command = Args::command();
        let line = ["artel", "config", "show", "--json", "--data", "d", "--log-format", "json"];
        let matches = command.try_get_matches_from_mut(line).unwrap();
        let given = GivenFlags::of(&command, &matches);
        let flag = |name: &str| Some(FlagSource::CommandLine(name.to_owned()));
        assert_eq!(given.source("data").cloned(), flag("--data"));
        assert_eq!(given.source("log_format").cloned(), flag("--log-format"));
        assert_eq!((given.source("json").cloned(), given.source("catalog")), (flag("--json"), None));
    }

    #[test]
    fn the_variables_of_all_verbs_are_known() {
        let variables = Args::variables();
        for name in ["ARTEL_ADDRESS", "ARTEL_DATA", "ARTEL_LISTEN", "ARTEL_LOG"] {
            assert!(variables.contains(name), "{name} in {variables:?}");
        }
    }
}
