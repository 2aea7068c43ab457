//! Asks other hosts over TLS, where each is who its certificate says.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use conmon::api::{ClockSession, EndsAnswer, EndsQuestion, PairsAnswer};
use conmon::client::{Client, PairsForm};

use super::sheet::{self, Sheet};
use super::{BoxFuture, Peers};
use crate::http::Tls;
use crate::registry::HostRow;

/// Longest wait for an answer; who asks may give up before.
const PATIENCE: Duration = Duration::from_secs(10);
/// Hosts of which a connection is kept, as many as the registry tells of.
const HOSTS: usize = 16_384;

/// Other hosts by their APIs' addresses.
pub struct OverTls {
    own: String,
    tls: Arc<Tls>,
    /// By name, each with the address it is of: keys and certificates are read again at each new connection only.
    clients: Mutex<HashMap<String, (String, Client)>>,
}

impl OverTls {
    /// As the host of this name, with its keys and certificates.
    pub fn new(own: &str, tls: Arc<Tls>) -> Self {
        Self { own: own.to_owned(), tls, clients: Mutex::default() }
    }

    fn client(&self, host: &HostRow) -> anyhow::Result<Client> {
        let Some(api) = &host.api else {
            bail!("{} does not serve its API to other hosts: set `listen` there", host.name);
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = clients.get(&host.name).filter(|(at, _)| at == api) {
            return Ok(client.clone());
        }
        let address: SocketAddr = api.strip_prefix("https://").unwrap_or(api).parse().with_context(|| {
            format!("{} gives `{api}` as its API, which is no https://ADDRESS:PORT", host.name)
        })?;
        let client = Client::peer(&host.name, address, &self.tls.credentials())?
            .with_timeout(PATIENCE)
            .speaking_for(&self.own);
        if clients.len() >= HOSTS {
            clients.clear();
        }
        clients.insert(host.name.clone(), (api.clone(), client.clone()));
        Ok(client)
    }

    /// The next question finds keys and certificates as they are then.
    fn forget(&self, host: &str) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
    }
}

impl Peers for Arc<OverTls> {
    fn ends(&self, host: Arc<HostRow>, question: EndsQuestion) -> BoxFuture<anyhow::Result<EndsAnswer>> {
        let this = self.clone();
        Box::pin(async move {
            let answer = this.client(&host)?.ends(&question).await;
            answer.inspect_err(|_| this.forget(&host.name)).map_err(Into::into)
        })
    }

    fn clock_session(&self, host: Arc<HostRow>) -> BoxFuture<anyhow::Result<ClockSession>> {
        let this = self.clone();
        Box::pin(async move {
            let answer = this.client(&host)?.clock_session().await;
            answer.inspect_err(|_| this.forget(&host.name)).map_err(Into::into)
        })
    }

    fn pairs(&self, host: Arc<HostRow>, tenant: Option<Arc<str>>) -> BoxFuture<anyhow::Result<Sheet>> {
        let this = self.clone();
        Box::pin(async move {
            let client = this.client(&host)?;
            let client = match tenant {
                Some(tenant) => client.for_tenant(&tenant),
                None => client,
            };
            let answer = client.pairs_as(sheet::MEDIA_TYPE).await;
            let (form, body) = answer.inspect_err(|_| this.forget(&host.name))?;
            // some hosts' answers are read while those of others are put together
            let read = tokio::task::spawn_blocking(move || match form {
                PairsForm::AsAsked => Sheet::from_octets(&body),
                PairsForm::Json => {
                    let answer: PairsAnswer =
                        serde_json::from_slice(&body).context("the pairs cannot be read")?;
                    Sheet::of(&answer)
                }
            });
            read.await.context("the pairs were not read")?
        })
    }
}
