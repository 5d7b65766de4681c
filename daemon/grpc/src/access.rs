//! `artel.v1.Access`.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use artel_access::{AccessToken, Error, NewToken, ScopeSet, TokenLimits, TokenStore};
use artel_proto::v1::{self, ErrorReason, access_server};
use artel_task::CallerName;
use artel_task::event::Timestamp;
use tonic::{Code, Request, Response, Status};

use crate::audit::CallObject;
use crate::page::{self, PageFilters};
use crate::state::ServiceState;
use crate::status::{RpcResponse, Violations, internal, invalid_field, not_found, status};
use crate::value::timestamp;

#[tonic::async_trait]
impl access_server::Access for ServiceState {
    async fn create_token(&self, request: Request<v1::CreateTokenRequest>) -> RpcResponse<v1::CreateTokenResponse> {
        CallObject::of(&request).name(&request.get_ref().name);
        let new = parse(request.into_inner())?;
        let (token, secret) = self.change_tokens(move |tokens| tokens.create(new)).await?;
        let token = Some(self.token(&token, false));
        Ok(Response::new(v1::CreateTokenResponse { token, secret: secret.expose().to_owned() }))
    }

    async fn list_tokens(&self, request: Request<v1::ListTokensRequest>) -> RpcResponse<v1::ListTokensResponse> {
        let v1::ListTokensRequest { page_size, page_token } = request.into_inner();
        let all = self.access.tokens().list();
        let filters = PageFilters::of(&"tokens");
        let name = |(token, _): &(AccessToken, bool)| token.name.to_string();
        let (page, next_page_token) = page::slice_by_name(all, name, page::size(page_size)?, &filters, &page_token)?;
        let tokens = page.iter().map(|(token, revoked)| self.token(token, *revoked)).collect();
        Ok(Response::new(v1::ListTokensResponse { tokens, next_page_token }))
    }

    async fn revoke_token(&self, request: Request<v1::RevokeTokenRequest>) -> RpcResponse<v1::RevokeTokenResponse> {
        CallObject::of(&request).name(&request.get_ref().name);
        let name = request.into_inner().name;
        let token = self.change_tokens(move |tokens| tokens.revoke(&name)).await?;
        Ok(Response::new(v1::RevokeTokenResponse { token: Some(self.token(&token, true)) }))
    }
}

impl ServiceState {
    /// Changes the tokens, which waits for the disk. If the call is cancelled, the change happens all the same.
    async fn change_tokens<T: Send + 'static>(
        &self,
        change: impl FnOnce(&TokenStore) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        let tokens = self.access.tokens().clone();
        let changed = tokio::task::spawn_blocking(move || change(&tokens)).await;
        changed.map_err(|_| internal())?.map_err(|error| self.token_error(&error))
    }

    fn token(&self, token: &AccessToken, revoked: bool) -> v1::AccessToken {
        let count = |limit: Option<NonZeroU32>| limit.map_or(0, NonZeroU32::get);
        v1::AccessToken {
            name: token.name.to_string(),
            scopes: token.scopes.into(),
            create_time: Some(timestamp(token.created)),
            expire_time: token.expires.map(|end| timestamp(end.min(LAST_TIME))),
            expired: token.has_expired(self.runtime.clock().now()),
            limits: Some(v1::AccessLimits {
                calls_per_minute: count(token.limits.calls_per_minute),
                streams: count(token.limits.streams),
                open_tasks: count(token.limits.open_tasks),
                tokens_per_day: token.limits.tokens_per_day.map_or(0, NonZeroU64::get),
            }),
            revoked,
        }
    }

    fn token_error(&self, error: &Error) -> Status {
        let message = error.to_string();
        match error {
            Error::NoToken(name) => {
                let tokens = self.access.tokens().list();
                let names = tokens.iter().map(|(token, _)| token.name.as_str());
                not_found(ErrorReason::TokenNotFound, "token", name, &message, names)
            }
            Error::NameTaken(_) => status(Code::AlreadyExists, ErrorReason::TokenExists, message),
            Error::ReservedName(_) => invalid_field("name", message),
            Error::NoScopes => invalid_field("scopes", message),
            Error::NoLifetime => invalid_field("lifetime", message),
            Error::TooManyTokens(_) => status(Code::ResourceExhausted, ErrorReason::TooManyTokens, message),
            fault => {
                let cause = std::error::Error::source(fault).map(ToString::to_string);
                tracing::error!(error = %fault, cause, "failed to change the tokens");
                let message = match fault {
                    Error::NotDurable { .. } => &message,
                    _ => "the daemon's tokens cannot be written; see its log",
                };
                status(Code::Unavailable, ErrorReason::Internal, message)
            }
        }
    }
}

/// The last moment that a timestamp of protobuf can say: the end of the year 9999.
const LAST_TIME: Timestamp = Timestamp(253_402_300_799_000);

fn parse(request: v1::CreateTokenRequest) -> Result<NewToken, Status> {
    let v1::CreateTokenRequest { name, scopes, lifetime, limits } = request;
    let mut violations = Violations::default();
    let name = violations.check("name", CallerName::parse(&name));
    let scopes = violations.check("scopes", ScopeSet::parse(scopes.iter().map(String::as_str)));
    let lifetime = lifetime
        .and_then(|lifetime| violations.check("lifetime", Duration::try_from(lifetime).map_err(|_| "is below 0")));
    let v1::AccessLimits { calls_per_minute, streams, open_tasks, tokens_per_day } = limits.unwrap_or_default();
    let limits = TokenLimits {
        calls_per_minute: NonZeroU32::new(calls_per_minute),
        streams: NonZeroU32::new(streams),
        open_tasks: NonZeroU32::new(open_tasks),
        tokens_per_day: NonZeroU64::new(tokens_per_day),
    };
    violations.finish()?;
    let (Some(name), Some(scopes)) = (name, scopes) else { return Err(internal()) };
    Ok(NewToken { name, scopes, lifetime, limits })
}
