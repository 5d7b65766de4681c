//! `artel token`.

use artel_access::ScopeSet;
use artel_args::{TokenCommand, TokenCreateArgs};
use artel_proto::v1::{AccessLimits, AccessToken, CreateTokenRequest, ListTokensRequest, RevokeTokenRequest};
use artel_roles::parse_duration;
use artel_terminal::CommandOutcome;

use crate::connect::with_deadline;
use crate::error::Error;
use crate::json::ToJson as _;
use crate::render::token as render;
use crate::session::ClientSession;

/// Tokens of one page, the maximum that the daemon allows.
const PAGE_ITEMS: i32 = 1000;

/// Runs a command.
pub(super) async fn run(session: &mut ClientSession, command: TokenCommand) -> Result<CommandOutcome, Error> {
    match command {
        TokenCommand::Create(create) => self::create(session, create).await,
        TokenCommand::List => list(session).await,
        TokenCommand::Revoke { name } => revoke(session, name).await,
    }
}

/// Prints the secret alone, for use in a shell.
async fn create(session: &mut ClientSession, create: TokenCreateArgs) -> Result<CommandOutcome, Error> {
    let request = with_deadline(request(create)?);
    let answer = session.daemon.access().create_token(request).await?.into_inner();
    session.output.show(&answer.to_json(), |out| {
        out.push(&answer.secret).newline();
    })?;
    Ok(CommandOutcome::Done)
}

/// The request of a command line; what is wrong with it is said without the daemon.
pub(crate) fn request(create: TokenCreateArgs) -> Result<CreateTokenRequest, Error> {
    let TokenCreateArgs { name, scopes, expires, calls_per_minute, streams, open_tasks, tokens_per_day } = create;
    ScopeSet::parse(scopes.iter().map(String::as_str)).map_err(|error| Error::Usage(format!("--scopes: {error}")))?;
    let lifetime = expires.map(|text| {
        let lifetime = parse_duration(&text).and_then(|time| prost_types::Duration::try_from(time).ok());
        lifetime.ok_or_else(|| {
            Error::Usage(format!(
                "--expires: `{text}` is no time: write a whole number and a unit, such as `12h` or `30d`"
            ))
        })
    });
    let limits = Some(AccessLimits {
        calls_per_minute: calls_per_minute.unwrap_or(0),
        streams: streams.unwrap_or(0),
        open_tasks: open_tasks.unwrap_or(0),
        tokens_per_day: tokens_per_day.unwrap_or(0),
    });
    Ok(CreateTokenRequest { name, scopes, lifetime: lifetime.transpose()?, limits })
}

async fn list(session: &mut ClientSession) -> Result<CommandOutcome, Error> {
    let mut request = ListTokensRequest { page_size: PAGE_ITEMS, page_token: String::new() };
    let mut tokens: Vec<AccessToken> = Vec::new();
    loop {
        let page = session.daemon.access().list_tokens(with_deadline(request.clone())).await?.into_inner();
        tokens.extend(page.tokens);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    if session.output.is_json() {
        tokens.iter().try_for_each(|token| session.output.object(&token.to_json()))?;
    } else {
        session.output.render(|out| render::tokens(&tokens, out))?;
    }
    Ok(CommandOutcome::Done)
}

async fn revoke(session: &mut ClientSession, name: String) -> Result<CommandOutcome, Error> {
    let request = with_deadline(RevokeTokenRequest { name });
    let token = session.daemon.access().revoke_token(request).await?.into_inner().token;
    let token = token.ok_or(Error::IncompleteAnswer("the token"))?;
    session.output.show(&token.to_json(), |out| {
        out.push(format_args!("{}: revoked", token.name)).newline();
    })?;
    Ok(CommandOutcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(scopes: &str, expires: Option<&str>) -> Result<CreateTokenRequest, String> {
        let scopes = scopes.split(',').map(str::to_owned).collect();
        let (name, expires) = ("ci".to_owned(), expires.map(str::to_owned));
        let (calls_per_minute, streams, open_tasks, tokens_per_day) = (None, Some(3), None, Some(5_000_000_000));
        let create = TokenCreateArgs { name, scopes, expires, calls_per_minute, streams, open_tasks, tokens_per_day };
        request(create).map_err(|error| error.to_string())
    }

    #[test]
    fn a_request_has_a_lifetime_in_the_units_of_the_settings() {
        let request = create("read,read:all", Some("30d")).unwrap();
        assert_eq!(request.lifetime.map(|time| time.seconds), Some(30 * 86_400));
        let limits = AccessLimits { calls_per_minute: 0, streams: 3, open_tasks: 0, tokens_per_day: 5_000_000_000 };
        assert_eq!(request.limits, Some(limits));
        assert_eq!(create("admin", None).unwrap().lifetime, None);
        let error = create("read", Some("a month")).unwrap_err();
        assert!(error.contains("`a month` is no time"), "{error}");
        let error = create("read,write", None).unwrap_err();
        assert!(error.contains("there is no scope `write`"), "{error}");
    }
}
