//! What befalls a real etcd, and the way to it. Nothing that is known is lost meanwhile, all is right after.

use std::time::{Duration, Instant};

use conmond::registry::etcd::Etcd;
use conmond::registry::{HostRow, Registry};
use nix::sys::signal::Signal;

use super::etcd::{join, settings};
use super::etcd_process::EtcdProcess;
use super::proxy::Proxy;
use super::support::*;

/// A host with a container `a` that ended and a `b` that took its address, and one who asked for it.
struct System {
    etcd: EtcdProcess,
    writer: Etcd,
    asker: Etcd,
    row: HostRow,
    t: u64,
}

const ADDRESS: &str = "10.0.0.1";

impl System {
    async fn new(name: &str) -> Self {
        let etcd = EtcdProcess::start(name);
        let (writer, asker) = (join(&etcd, 3), join(&etcd, 5));
        let (row, t) = (host("w", 1), wall() - 10 * S);
        asker.publish(own(&host("asker", 2), &[]));
        writer.publish(own(&row, &[("a", ADDRESS, t, None)]));
        names(&asker, ADDRESS, t, &["w/a"]).await;
        until("all is written", || writer.health().pending_rows == 0 && asker.health().pending_rows == 0)
            .await;
        Self { etcd, writer, asker, row, t }
    }

    /// `b` takes the address, `c` another one.
    fn change(&self) {
        let Self { writer, row, t, .. } = self;
        writer.publish(own(
            row,
            &[
                ("a", ADDRESS, *t, Some(t + S)),
                ("b", ADDRESS, t + 2 * S, None),
                ("c", "10.0.0.3", t + S, None),
            ],
        ));
    }

    async fn all_right(&self) {
        let t = self.t;
        names(&self.asker, ADDRESS, t + 2 * S, &["w/b"]).await;
        names_now(&self.asker, ADDRESS, &["w/b"]).await;
        names(&self.asker, ADDRESS, t + S - 1, &["w/a"]).await;
        names(&self.asker, ADDRESS, t + S, &[]).await;
        names_now(&self.asker, "10.0.0.3", &["w/c"]).await;
        until("both hosts are known", || hosts(&self.asker) == ["asker", "w"]).await;
        until("all is written", || self.writer.health().pending_rows == 0).await;
        let rows = self.etcd.keys("/conmon/1/at/");
        assert_eq!(rows.len(), 3, "nothing lost, nothing doubled: {rows:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_gone_what_is_known_goes_on_and_what_is_new_lands_after() {
    let mut system = System::new("gone").await;
    system.etcd.kill();
    until("it is noticed", || !system.asker.health().reachable).await;
    system.change();
    let begin = Instant::now();
    let answer = system.asker.find(ip(ADDRESS), system.t).await;
    assert_eq!(named(&answer), ["w/a"]);
    assert!(answer.known_as_of_ns.is_some_and(|known| known < wall()));
    let nobody = system.asker.find(ip("10.8.8.8"), system.t).await;
    assert_eq!((nobody.candidates.len(), nobody.known_as_of_ns), (0, None), "nothing is known of it");
    assert!(begin.elapsed() < Duration::from_millis(500), "nobody waits for what is not there");
    until("the writer says what is wrong", || {
        let health = system.writer.health();
        health.pending_rows == 3 && health.problem.is_some()
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    system.etcd.run();
    system.all_right().await;
    assert!(system.writer.health().problem.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_stands_still() {
    let system = System::new("still").await;
    system.etcd.signal(Signal::SIGSTOP);
    system.change();
    let begin = Instant::now();
    let answer = system.asker.find(ip(ADDRESS), system.t).await;
    assert_eq!(named(&answer), ["w/a"]);
    let _ = system.asker.find(ip("10.8.8.8"), system.t).await;
    assert!(begin.elapsed() < Duration::from_secs(2));
    // Longer than leases, calls and the patience with a silent stream.
    tokio::time::sleep(Duration::from_secs(7)).await;
    system.etcd.signal(Signal::SIGCONT);
    system.all_right().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_loses_its_memory() {
    let mut system = System::new("wiped").await;
    system.change();
    system.all_right().await;
    let rewrites = system.writer.health().writer.rewrites;
    system.etcd.kill();
    system.etcd.wipe();
    system.etcd.run();
    until("all is written anew", || system.writer.health().writer.rewrites > rewrites).await;
    system.all_right().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_comes_back_with_an_older_memory() {
    let mut system = System::new("older").await;
    system.etcd.snapshot("before");
    system.change();
    system.all_right().await;
    system.etcd.kill();
    system.etcd.restore("before");
    system.etcd.run();
    // More writes than were lost: the revision alone would not tell.
    for i in 0..50 {
        system.etcd.etcdctl(&["put", "/other", &i.to_string()]);
    }
    until("all is written anew", || system.writer.health().writer.rewrites > 1).await;
    system.all_right().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_asker_is_cut_off_while_etcd_forgets_what_happened() {
    let system = System::new("compacted").await;
    let proxy = Proxy::to(system.etcd.client_port).await;
    let far = Etcd::start(settings(proxy.url()), 11);
    far.publish(own(&host("far", 3), &[("x", "10.0.9.9", system.t, None)]));
    names(&far, ADDRESS, system.t, &["w/a"]).await;
    names(&system.asker, "10.0.9.9", system.t, &["far/x"]).await;
    proxy.block();
    system.change();
    names_now(&system.asker, ADDRESS, &["w/b"]).await;
    let status = system.etcd.etcdctl(&["get", "/", "-w", "json"]);
    let revision = serde_json::from_str::<serde_json::Value>(&status).unwrap()["header"]["revision"].clone();
    system.etcd.etcdctl(&["compact", &revision.to_string()]);
    // It is lost to the others, and knows what it knew.
    until("it is lost", || !hosts(&system.asker).contains(&"far".to_owned())).await;
    names(&system.asker, "10.0.9.9", wall() + 5 * S, &[]).await;
    assert_eq!(named(&far.find(ip(ADDRESS), system.t).await), ["w/a"]);
    until("it notices", || !far.health().reachable).await;
    proxy.unblock();
    names_now(&far, ADDRESS, &["w/b"]).await;
    names(&far, ADDRESS, system.t, &["w/a"]).await;
    names_now(&system.asker, "10.0.9.9", &["far/x"]).await;
    assert!(far.health().reader.resyncs > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_take_themselves_for_one_host_the_later_one_speaks() {
    let system = System::new("double").await;
    let other = join(&system.etcd, 13);
    other.publish(own(&host("w", 9), &[("z", ADDRESS, system.t + 5 * S, None)]));
    names_now(&system.asker, ADDRESS, &["w/z"]).await;
    until("the earlier one is silent", || system.writer.health().superseded).await;
    system.change();
    tokio::time::sleep(Duration::from_secs(1)).await;
    names_now(&system.asker, ADDRESS, &["w/z"]).await;
    assert!(!other.health().superseded);
    // It leaves: the earlier one speaks again.
    other.close().await;
    names_now(&system.asker, ADDRESS, &["w/b"]).await;
    until("it is not silent any more", || !system.writer.health().superseded).await;
}
