//! Who asks. Every request passes here before any route is looked at: what comes in over TLS needs a certificate with a
//! role or a tenant's token, what comes in over the Unix socket was let in by its permissions.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use conmon::api::{self, ApiError, Protocol};
use conmon::tls::{Role, RoleError};
use conmon::token::Tokens;

use super::problem::Problem;
use super::query::shorten;
use super::refusal::Reason;
use crate::scope::Scope;

/// How a connection came in.
#[derive(Debug, Clone)]
pub(super) enum Door {
    /// By a socket of this host.
    Local,
    /// By TLS.
    Tls {
        /// What the client's certificate says, where it showed one. The chain was judged already.
        role: Option<Result<Role, RoleError>>,
        /// The tokens that are good.
        tokens: Arc<Tokens>,
    },
}

/// Why a request goes no further.
#[derive(Debug)]
pub(super) struct Refused {
    /// For the counter.
    pub(super) reason: Reason,
    /// For who asked.
    pub(super) error: ApiError,
}

fn refused(reason: Reason, error: ApiError, remedy: &str) -> Refused {
    Refused { reason, error: error.with_remedy(remedy) }
}

impl Door {
    /// What a request with these headers may see.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<Scope, Refused> {
        let scope = match self {
            Self::Local => Scope::All,
            Self::Tls { role, tokens } => remote(role.as_ref(), tokens, headers)?,
        };
        common_protocol(headers)?;
        let not_allowed = |error| Refused { reason: Reason::NotAllowed, error };
        if let Some(host) = one(headers, api::header::HOST)? {
            scope.speaks_for(host).map_err(not_allowed)?;
        }
        match one(headers, api::header::TENANT)? {
            Some(tenant) => scope.narrowed(tenant).map_err(not_allowed),
            None => Ok(scope),
        }
    }
}

/// The only value of a header.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refused> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (None, _) => Ok(None),
        (Some(value), None) if value.to_str().is_ok_and(|text| !text.is_empty()) => Ok(value.to_str().ok()),
        _ => Err(refused(
            Reason::NotAllowed,
            ApiError::bad_request(format!("the header `{name}` cannot be read")),
            "give it once, with one value",
        )),
    }
}

fn remote(
    role: Option<&Result<Role, RoleError>>,
    tokens: &Tokens,
    headers: &HeaderMap,
) -> Result<Scope, Refused> {
    if let Some(token) = bearer(headers)? {
        // Where there is a certificate, too, the token counts: it is the narrower of the two.
        return match tokens.tenant(token) {
            Some(tenant) => Ok(Scope::Tenant(tenant)),
            None => Err(refused(
                Reason::BadToken,
                ApiError::unauthorized("this token is not known here"),
                "it may have been replaced; `conmonctl ca tenant-token TENANT` makes a new one",
            )),
        };
    }
    match role {
        Some(Ok(Role::Operator(_))) => Ok(Scope::All),
        Some(Ok(Role::Host(name))) => Ok(Scope::Host(name.as_str().into())),
        Some(Err(error)) => Err(refused(
            Reason::NotAllowed,
            ApiError::forbidden(error.to_string()),
            "use a certificate of `conmonctl ca host` or `conmonctl ca operator`, or a tenant's token",
        )),
        None => Err(refused(
            Reason::NoCredentials,
            ApiError::unauthorized(
                "nobody is answered here without a client certificate or a tenant's token",
            ),
            "give a certificate (conmonctl --cert and --key), or a token (conmonctl --token-file, or the header `authorization: Bearer TOKEN`)",
        )),
    }
}

/// The token of a request. It belongs into one header and nowhere else: addresses end up in logs.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refused> {
    let Some(value) = one(headers, header::AUTHORIZATION.as_str())? else { return Ok(None) };
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Err(refused(
            Reason::BadToken,
            ApiError::unauthorized("only tokens are taken in the header `authorization`"),
            "write `authorization: Bearer TOKEN`",
        )),
    }
}

fn common_protocol(headers: &HeaderMap) -> Result<(), Refused> {
    let Some(text) = one(headers, api::header::PROTOCOL)? else { return Ok(()) };
    if text.parse::<Protocol>().is_ok_and(|theirs| theirs.common(Protocol::OURS).is_some()) {
        return Ok(());
    }
    let who = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("who asks");
    let error = format!(
        "{} speaks protocol {}, and this conmond ({}) {}",
        shorten(who),
        shorten(text),
        api::PRODUCT,
        Protocol::OURS
    );
    let error = ApiError { status: 426, error, remedy: None };
    Err(refused(Reason::Protocol, error, "update the older of the two"))
}

/// Who asks, for a route. There is no other way for a route to have a [`Scope`], and without one it gets no answers.
#[derive(Debug, Clone)]
pub(super) struct Asker(pub(super) Scope);

impl<S: Sync> FromRequestParts<S> for Asker {
    type Rejection = Problem;

    fn from_request_parts(
        parts: &mut Parts,
        _state: &S,
    ) -> impl Future<Output = Result<Self, Problem>> + Send {
        let asker = parts.extensions.get::<Self>().cloned();
        let missing = || Problem(ApiError::unauthorized("nobody knows who asks"));
        std::future::ready(asker.ok_or_else(missing))
    }
}

#[cfg(test)]
mod tests;
