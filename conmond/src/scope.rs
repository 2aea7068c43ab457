//! Who asks, and so what may be answered. A [`Scope`] goes with every question from the connection it came on to where the
//! answer is put together; rows that are not the asker's are left out there, before anything is counted, cut or summed.
//!
//! A tenant sees its own rows. A conversation with somebody else's container is its row, too, but who that container is
//! is not its business: of the far end it is told what its own container sees, the address.

use std::sync::Arc;

use conmon::api::{ApiError, Endpoint, EndpointKind, Event, Flow, Measurement, ObservedAt};

/// What an asker may see, and for whom it may speak.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything: root on this host, or an operator.
    All,
    /// Everything, and it may speak for this host: the conmond there.
    Host(Arc<str>),
    /// This tenant's rows.
    Tenant(Arc<str>),
}

impl Scope {
    /// The tenant whose rows alone may be seen; none where all may.
    pub fn tenant(&self) -> Option<&Arc<str>> {
        match self {
            Self::All | Self::Host(_) => None,
            Self::Tenant(tenant) => Some(tenant),
        }
    }

    /// Whether what belongs to `tenant` may be seen; none is what belongs to no tenant, or to one that is not known.
    pub fn admits(&self, tenant: Option<&str>) -> bool {
        self.tenant().is_none_or(|own| tenant == Some(&**own))
    }

    /// The same, and no more than `tenant` may see.
    pub fn narrowed(self, tenant: &str) -> Result<Self, ApiError> {
        match self {
            Self::All | Self::Host(_) => Ok(Self::Tenant(tenant.into())),
            Self::Tenant(own) if *own == *tenant => Ok(Self::Tenant(own)),
            Self::Tenant(own) => Err(ApiError::forbidden(format!("this token is tenant {own}'s"))
                .with_remedy("ask with the other tenant's token, or an operator's certificate")),
        }
    }

    /// Refuses who is not the conmond of `host`.
    pub fn speaks_for(&self, host: &str) -> Result<(), ApiError> {
        let who = match self {
            Self::Host(name) if **name == *host => return Ok(()),
            Self::Host(name) => format!("the certificate is host {name}'s"),
            Self::Tenant(tenant) => format!("the token is tenant {tenant}'s"),
            Self::All => "who asks is no host".to_owned(),
        };
        Err(ApiError::forbidden(format!("{who}, and the request speaks for host {host}")).with_remedy(
            "a conmond speaks for the host that its certificate names: `host_name` must be the same",
        ))
    }

    /// Refuses tenants what is the host's alone.
    pub fn whole(&self, what: &str) -> Result<(), ApiError> {
        match self.tenant() {
            None => Ok(()),
            Some(_) => {
                Err(ApiError::forbidden(format!("{what} is about the whole host, not about a tenant"))
                    .with_remedy(
                        "it takes an operator's certificate; docs/security.md lists what a tenant may see",
                    ))
            }
        }
    }

    /// The ends of a conversation as the asker may see them; none when neither is its own.
    pub fn ends(&self, src: Endpoint, dst: Endpoint) -> Option<(Endpoint, Endpoint)> {
        if self.tenant().is_none() {
            return Some((src, dst));
        }
        if !self.owns(&src) && !self.owns(&dst) {
            return None;
        }
        Some((self.shown(src), self.shown(dst)))
    }

    fn owns(&self, end: &Endpoint) -> bool {
        self.admits(end.tenant.as_deref())
    }

    /// An end as it is shown beside one of the asker's own.
    fn shown(&self, end: Endpoint) -> Endpoint {
        let somebodys =
            matches!(end.kind, EndpointKind::Container | EndpointKind::Service | EndpointKind::Tenant);
        if !somebodys || self.owns(&end) {
            return end;
        }
        Endpoint {
            kind: EndpointKind::External,
            name: Endpoint::ANOTHER_TENANT.to_owned(),
            id: None,
            service: None,
            tenant: None,
            host: None,
            addresses: end.addresses,
        }
    }

    /// A flow as the asker may see it.
    pub fn flow(&self, mut flow: Flow) -> Option<Flow> {
        let at_own_port = self.owns(observer(flow.observed_at, &flow.src, &flow.dst));
        (flow.src, flow.dst) = self.ends(flow.src, flow.dst)?;
        flow.interface = flow.interface.filter(|_| at_own_port);
        Some(flow)
    }

    /// A measurement as the asker may see it.
    pub fn measurement(&self, mut one: Measurement) -> Option<Measurement> {
        let at_own_port = self.owns(observer(one.observed_at, &one.src, &one.dst));
        (one.src, one.dst) = self.ends(one.src, one.dst)?;
        one.monitor = one.monitor.filter(|_| at_own_port);
        Some(one)
    }

    /// Whether an event is the asker's business.
    pub fn admits_event(&self, event: &Event) -> bool {
        self.admits(event.tenant.as_deref())
    }
}

/// The end at whose port something was seen.
fn observer<'a>(at: ObservedAt, src: &'a Endpoint, dst: &'a Endpoint) -> &'a Endpoint {
    match at {
        ObservedAt::Src => src,
        ObservedAt::Dst => dst,
    }
}

#[cfg(test)]
mod tests;
