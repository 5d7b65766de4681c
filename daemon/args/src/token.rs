//! `artel token`.

use clap::{Args as Flags, Subcommand};

/// `artel token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print its secret, which is shown this once
    Create(TokenCreateArgs),
    /// List the tokens, without their secrets
    List,
    /// Revoke a token: calls with it are refused at once, and its open streams end
    Revoke {
        /// The name of the token
        name: String,
    },
}

/// `artel token create`.
#[derive(Debug, Flags)]
pub struct TokenCreateArgs {
    /// The name of the caller; tasks carry it
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// What the caller may do, separated by commas: submit, read (its own tasks, the catalog, the state of the daemon), read:all
    /// (everybody's tasks, too), answer, apply, admin (everything)
    #[arg(long, value_name = "SCOPES", value_delimiter = ',', required = true)]
    pub scopes: Vec<String>,
    /// How long the token is valid, such as `12h` or `30d` [default: until it is revoked]
    #[arg(long, value_name = "TIME")]
    pub expires: Option<String>,
    /// Calls that the caller may make in a minute [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub calls_per_minute: Option<u32>,
    /// Streams that the caller may have open at the same time [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub streams: Option<u32>,
    /// Tasks of the caller that may be open at the same time [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub open_tasks: Option<u32>,
    /// Model tokens that the caller's tasks may use in a day, which begins at 00:00 UTC; prompts count with what caches hold
    /// [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub tokens_per_day: Option<u64>,
}
