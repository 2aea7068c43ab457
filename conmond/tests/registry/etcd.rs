//! The backend with a real etcd: the contract, and faults.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use conmond::registry::etcd::{Etcd, EtcdSettings};
use conmond::registry::{Registry, WriterSettings};

use super::contract::{Backend, contract};
use super::etcd_process::EtcdProcess;
use super::support::*;

pub fn settings(url: String) -> EtcdSettings {
    let mut settings = EtcdSettings::new(vec![url]);
    // The shortest that etcd grants.
    settings.writer = WriterSettings { ttl_ns: 2 * S, ..WriterSettings::default() };
    settings
}

pub fn join(etcd: &EtcdProcess, seed: u64) -> Etcd {
    Etcd::start(settings(etcd.url()), seed)
}

impl Backend for EtcdProcess {
    fn join<'a>(&'a self, name: &'a str) -> Pin<Box<dyn Future<Output = Arc<dyn Registry>> + 'a>> {
        let seed = name.bytes().fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        Box::pin(async move { Arc::new(join(self, seed)) as Arc<dyn Registry> })
    }

    fn many(&self) -> bool {
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_keeps_the_contract() {
    let etcd = EtcdProcess::start("contract");
    contract(&etcd).await;
}
