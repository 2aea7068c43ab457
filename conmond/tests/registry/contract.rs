//! What every backend must do.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use conmond::registry::embedded::Embedded;
use conmond::registry::{Limits, Registry};

use super::support::*;

/// A backend, and a system of hosts that use it.
pub trait Backend {
    /// A registry for one more host.
    fn join<'a>(&'a self, name: &'a str) -> Pin<Box<dyn Future<Output = Arc<dyn Registry>> + 'a>>;

    /// Whether hosts know of each other.
    fn many(&self) -> bool;
}

struct OneHost;

impl Backend for OneHost {
    fn join<'a>(&'a self, _: &'a str) -> Pin<Box<dyn Future<Output = Arc<dyn Registry>> + 'a>> {
        Box::pin(async { Arc::new(Embedded::new(Limits::default())) as Arc<dyn Registry> })
    }

    fn many(&self) -> bool {
        false
    }
}

/// One writes, another one asks; of one host alone it is the same.
async fn two(backend: &dyn Backend, name: &str) -> (Arc<dyn Registry>, Arc<dyn Registry>) {
    let writer = backend.join(name).await;
    if !backend.many() {
        return (Arc::clone(&writer), writer);
    }
    let asker = backend.join(&format!("{name}-asker")).await;
    asker.publish(own(&host(&format!("{name}-asker"), 1), &[]));
    (writer, asker)
}

/// Each part uses hosts and addresses of its own, so that they can go on at the same time.
pub async fn contract(backend: &dyn Backend) {
    tokio::join!(
        an_address_used_again(backend),
        nobody(backend),
        the_same_again(backend),
        many_at_once(backend),
        rows_that_cannot_be(backend),
    );
    if backend.many() {
        tokio::join!(
            two_hosts_with_one_address(backend),
            a_host_that_is_lost(backend),
            a_host_that_starts_anew(backend),
            a_host_that_leaves(backend),
        );
    }
}

async fn an_address_used_again(backend: &dyn Backend) {
    let (writer, asker) = two(backend, "reuse").await;
    let row = host("reuse", 1);
    for address in ["10.1.0.1", "2001:db8:1::1"] {
        let t = wall() - 10 * S;
        writer.publish(own(&row, &[("a", address, t, None)]));
        names(&*asker, address, t, &["reuse/a"]).await;
        names(&*asker, address, t + 5 * S, &["reuse/a"]).await;
        names(&*asker, address, t - 1, &[]).await;
        let mut changes = asker.changes();
        writer.publish(own(&row, &[("a", address, t, Some(t + S)), ("b", address, t + 2 * S, None)]));
        let changed = async { while changes.recv().await.unwrap() != ip(address) {} };
        tokio::time::timeout(Duration::from_secs(10), changed).await.expect("whoever listens is told");
        names(&*asker, address, t + 2 * S, &["reuse/b"]).await;
        for (at, expected) in [
            (t, &["reuse/a"][..]),
            (t + S - 1, &["reuse/a"]),
            (t + S, &[]),
            (t + 2 * S - 1, &[]),
            (t + 9 * S, &["reuse/b"]),
        ] {
            names(&*asker, address, at, expected).await;
        }
        let near = asker.find(ip(address), t + S + 7).await;
        assert_eq!(
            near.candidates[0].margin_ns, -7,
            "who had it just before is told of, and how long before"
        );
        // The row of one that ended may be forgotten by its host; who asked before knows still.
        writer.publish(own(&row, &[("b", address, t + 2 * S, None)]));
        tokio::time::sleep(Duration::from_millis(300)).await;
        names(&*asker, address, t, &["reuse/a"]).await;
        names(&*asker, address, t + 3 * S, &["reuse/b"]).await;
        assert!(asker.cached(ip(address), t).is_some_and(|answer| answer.from_cache));
    }
}

async fn nobody(backend: &dyn Backend) {
    let (writer, asker) = two(backend, "nobody").await;
    writer.publish(own(&host("nobody", 1), &[]));
    // Once the registry has been heard.
    until("the asker is connected", || asker.health().reachable).await;
    let begin = std::time::Instant::now();
    while asker.find(ip("10.9.9.9"), wall()).await.known_as_of_ns.is_none() {
        assert!(begin.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answer = asker.find(ip("10.9.9.9"), wall()).await;
    assert_eq!(answer.candidates, []);
    assert!(answer.known_as_of_ns.is_some_and(|known| wall() - known < 10 * S));
}

async fn the_same_again(backend: &dyn Backend) {
    let (writer, asker) = two(backend, "again").await;
    let row = host("again", 1);
    let t = wall() - S;
    let all = own(&row, &[("a", "10.2.0.1", t, None), ("b", "10.2.0.2", t, None)]);
    writer.publish(all.clone());
    names(&*asker, "10.2.0.1", t, &["again/a"]).await;
    until("all is written", || writer.health().pending_rows == 0).await;
    // what the asker is told of the first time is on its way still
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (before, mut changes) = (writer.health().writer, asker.changes());
    for _ in 0..20 {
        writer.publish(all.clone());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(writer.health().writer.rows, before.rows, "what is there is not written again");
    while let Ok(changed) = changes.try_recv() {
        assert!(!changed.to_string().starts_with("10.2."), "what is the same is no change");
    }
    names(&*asker, "10.2.0.2", t, &["again/b"]).await;
}

async fn many_at_once(backend: &dyn Backend) {
    let (writer, asker) = two(backend, "many").await;
    let row = host("many", 1);
    let t = wall() - S;
    let texts: Vec<(String, String)> =
        (0..600).map(|i| (format!("c{i}"), format!("10.3.{}.{}", i / 200, i % 200))).collect();
    let all: Vec<_> =
        texts.iter().map(|(name, address)| (name.as_str(), address.as_str(), t, None)).collect();
    writer.publish(own(&row, &all));
    names(&*asker, "10.3.2.199", t, &["many/c599"]).await;
    for (name, address) in &texts {
        names(&*asker, address, t, &[&format!("many/{name}")]).await;
    }
    // Far fewer writes than rows.
    let writes = writer.health().writer.writes;
    assert!(writes <= 12, "{writes}");
}

async fn rows_that_cannot_be(backend: &dyn Backend) {
    let (writer, asker) = two(backend, "bad").await;
    let t = wall() - S;
    let mut all = own(&host("bad", 1), &[("a", "10.4.0.1", t, None), ("", "10.4.0.2", t, None)]);
    all.endpoints.push(endpoint("someone-else", "x", "10.4.0.1", t, None));
    writer.publish(all);
    names(&*asker, "10.4.0.1", t, &["bad/a"]).await;
    names(&*asker, "10.4.0.2", t, &[]).await;
    assert_eq!(writer.health().writer.refused_rows, 2);
}

async fn two_hosts_with_one_address(backend: &dyn Backend) {
    let (one, two) = (backend.join("one").await, backend.join("two").await);
    let t = wall() - 10 * S;
    one.publish(own(&host("one", 1), &[("a", "172.17.0.2", t, None)]));
    two.publish(own(&host("two", 1), &[("b", "172.17.0.2", t + S, Some(t + 2 * S))]));
    names(&*one, "172.17.0.2", t + S, &["one/a", "two/b"]).await;
    names(&*two, "172.17.0.2", t + S, &["one/a", "two/b"]).await;
    names(&*two, "172.17.0.2", t, &["one/a"]).await;
    names(&*two, "172.17.0.2", t + 9 * S, &["one/a"]).await;
    let knows_both = |asker: &dyn Registry| {
        let known = hosts(asker);
        ["one", "two"].iter().all(|name| known.iter().any(|one| one == name))
    };
    until("both know both", || knows_both(&*one) && knows_both(&*two)).await;
    let receiver = two.hosts();
    let found: Vec<String> = receiver.borrow().at(ip("192.0.2.1")).map(|row| row.name.clone()).collect();
    assert!(found.contains(&"one".to_owned()), "{found:?}");
}

async fn a_host_that_is_lost(backend: &dyn Backend) {
    let (lost, asker) = two(backend, "lost").await;
    let t = wall() - S;
    lost.publish(own(&host("lost", 1), &[("a", "10.5.0.1", t, None)]));
    names(&*asker, "10.5.0.1", t, &["lost/a"]).await;
    until("its host is known", || hosts(&*asker).contains(&"lost".to_owned())).await;
    let end = wall();
    drop(lost);
    until("its host is lost", || !hosts(&*asker).contains(&"lost".to_owned())).await;
    names(&*asker, "10.5.0.1", wall() + 5 * S, &[]).await;
    names(&*asker, "10.5.0.1", end, &["lost/a"]).await;
}

async fn a_host_that_starts_anew(backend: &dyn Backend) {
    let (before, asker) = two(backend, "anew").await;
    let t = wall() - 10 * S;
    before.publish(own(&host("anew", 1), &[("a", "10.6.0.1", t, None), ("b", "10.6.0.2", t, None)]));
    names(&*asker, "10.6.0.1", t, &["anew/a"]).await;
    names(&*asker, "10.6.0.2", t, &["anew/b"]).await;
    drop(before);
    let after = backend.join("anew").await;
    after.publish(own(&host("anew", 2), &[("b", "10.6.0.2", t, None), ("c", "10.6.0.1", t + 5 * S, None)]));
    names(&*asker, "10.6.0.1", t + 5 * S, &["anew/c"]).await;
    names(&*asker, "10.6.0.1", t + 4 * S, &["anew/a"]).await;
    names(&*asker, "10.6.0.2", t + 9 * S, &["anew/b"]).await;
    let epoch = || asker.hosts().borrow().rows.get("anew").map(|row| row.epoch);
    until("its new start is known", || epoch() == Some(2)).await;
}

async fn a_host_that_leaves(backend: &dyn Backend) {
    let (leaves, asker) = two(backend, "leaves").await;
    let t = wall() - S;
    leaves.publish(own(&host("leaves", 1), &[("a", "10.7.0.1", t, None)]));
    names(&*asker, "10.7.0.1", t, &["leaves/a"]).await;
    until("its host is known", || hosts(&*asker).contains(&"leaves".to_owned())).await;
    leaves.close().await;
    until("it has left", || !hosts(&*asker).contains(&"leaves".to_owned())).await;
}

#[tokio::test]
async fn embedded_keeps_the_contract() {
    contract(&OneHost).await;
}
