//! Tokens.

use artel_proto::v1::AccessToken;
use artel_terminal::{BAD, BOLD, DIM, StyledText, TextTable, cell};

/// The tokens of the daemon.
pub(crate) fn tokens(tokens: &[AccessToken], out: &mut StyledText) {
    if tokens.is_empty() {
        out.push("no tokens: `artel token create` makes one; the owner needs none").newline();
        return;
    }
    let mut table = TextTable::new(&["NAME", "SCOPES", "CREATED", "EXPIRES", "LIMITS"]);
    for token in tokens {
        let time = |time: &Option<prost_types::Timestamp>| time.as_ref().map(ToString::to_string);
        let expires = match (time(&token.expire_time), token.expired) {
            _ if token.revoked => (BAD, "revoked, not on disk: revoke it again".to_owned()),
            (None, _) => (DIM, "never".to_owned()),
            (Some(end), false) => cell(end),
            (Some(end), true) => (BAD, format!("expired {end}")),
        };
        let created = (DIM, time(&token.create_time).unwrap_or_default());
        table.row(vec![
            (BOLD, token.name.clone()),
            cell(token.scopes.join(",")),
            created,
            expires,
            cell(limits(token)),
        ]);
    }
    table.render(out);
}

fn limits(token: &AccessToken) -> String {
    let limits = token.limits.unwrap_or_default();
    let limit = |number: u64, of: &str| (number > 0).then(|| format!("{number} {of}"));
    let parts = [
        limit(limits.calls_per_minute.into(), "calls a minute"),
        limit(limits.streams.into(), "streams"),
        limit(limits.open_tasks.into(), "open tasks"),
        limit(limits.tokens_per_day, "tokens a day"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use artel_proto::v1::AccessLimits;
    use prost_types::Timestamp;

    use super::*;

    #[test]
    fn tokens_are_listed_with_what_they_may() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let token = |name: &str, scopes: &[&str], expire_time, expired, limits| AccessToken {
            name: name.to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            create_time: at(1_767_225_600),
            expire_time,
            expired,
            limits,
            revoked: name == "lost",
        };
        let limits = Some(AccessLimits { calls_per_minute: 600, streams: 4, open_tasks: 8, tokens_per_day: 2_000_000 });
        let mut out = StyledText::new(false);
        tokens(
            &[
                token("ci", &["submit", "read"], at(1_769_817_600), false, limits),
                token("grafana", &["read"], None, false, None),
                token("intern", &["read"], at(1_767_312_000), true, None),
                token("lost", &["read"], None, false, None),
            ],
            &mut out,
        );
        tokens(&[], &mut out);
        insta::assert_snapshot!(out.take());
    }
}
