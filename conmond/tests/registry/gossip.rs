//! The backend without a database: the contract, and who is not heard.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use conmond::registry::gossip::frame::ClusterKey;
use conmond::registry::gossip::mesh::MeshSettings;
use conmond::registry::gossip::wire::Life;
use conmond::registry::gossip::{Gossip, GossipSettings};
use conmond::registry::{Limits, Registry};

use super::contract::{Backend, contract};
use super::support::*;

fn settings(name: &str, key: u8, join: &[SocketAddr]) -> GossipSettings {
    GossipSettings {
        name: name.to_owned(),
        life: Life { start_ns: wall(), epoch: 1 },
        listen: ([127, 0, 0, 1], 0).into(),
        advertise: None,
        join: join.iter().map(ToString::to_string).collect(),
        key: ClusterKey::new(&[key; 32]),
        mesh: MeshSettings { ttl_ns: 3 * S, round_ns: S / 20, grace_ns: 120 * S },
        limits: Limits::default(),
    }
}

/// The first host is joined by all others.
#[derive(Default)]
struct Cluster {
    first: Mutex<Option<Arc<Gossip>>>,
}

impl Backend for Cluster {
    fn join<'a>(&'a self, name: &'a str) -> Pin<Box<dyn Future<Output = Arc<dyn Registry>> + 'a>> {
        Box::pin(async move {
            let first = self.first.lock().unwrap().clone();
            let first = match first {
                Some(first) => first,
                None => {
                    let first = Arc::new(Gossip::start(settings("first", 1, &[])).await.unwrap());
                    first.publish(own(&host("first", 1), &[]));
                    *self.first.lock().unwrap() = Some(Arc::clone(&first));
                    first
                }
            };
            let joins = settings(name, 1, &[first.address()]);
            Arc::new(Gossip::start(joins).await.unwrap()) as Arc<dyn Registry>
        })
    }

    fn many(&self) -> bool {
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_keeps_the_contract() {
    contract(&Cluster::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_another_key_is_not_heard_and_hears_nothing() {
    let cluster = Cluster::default();
    let member = cluster.join("member").await;
    let first = cluster.first.lock().unwrap().clone().unwrap();
    let t = wall() - S;
    member.publish(own(&host("member", 1), &[("a", "10.0.0.1", t, None)]));
    names(&*first, "10.0.0.1", t, &["member/a"]).await;

    let stranger = Gossip::start(settings("stranger", 2, &[first.address()])).await.unwrap();
    stranger.publish(own(&host("stranger", 1), &[("evil", "10.0.0.1", t, None)]));
    until("it was turned away", || first.health().reader.refused > 5).await;
    assert_eq!(hosts(&*first), ["first", "member"]);
    assert_eq!(named(&first.find(ip("10.0.0.1"), t).await), ["member/a"]);
    let health = stranger.health();
    assert!(!health.reachable && health.problem.is_some(), "{health:?}");
    assert_eq!(named(&stranger.find(ip("10.0.0.1"), t).await), ["stranger/evil"], "itself alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_hosts_with_many_rows_all_know_all() {
    let cluster = Cluster::default();
    let t = wall() - S;
    let mut members = Vec::new();
    for i in 0..8 {
        let name = format!("m{i}");
        let member = cluster.join(&name).await;
        let texts: Vec<_> =
            (0..300).map(|c| (format!("c{c}"), format!("10.{i}.{}.{}", c / 250, c % 250))).collect();
        let rows: Vec<_> = texts.iter().map(|(c, a)| (c.as_str(), a.as_str(), t, None)).collect();
        member.publish(own(&host(&name, i), &rows));
        members.push(member);
    }
    for (of, member) in members.iter().enumerate() {
        for i in 0..8 {
            names(&**member, &format!("10.{i}.1.49"), t, &[&format!("m{i}/c299")]).await;
        }
        until("all hosts are known", || hosts(&**member).len() == 9).await;
        until(&format!("m{of} has all"), || member.health().rows >= 8 * 300).await;
        assert_eq!(member.health().rows, 8 * 300, "m{of}: nothing lost, nothing doubled");
    }
}
