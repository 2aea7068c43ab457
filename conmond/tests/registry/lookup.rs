//! How quick look-ups are with a full etcd. `CONMON_REGISTRY_ENDPOINTS=1000000` is the long form (`make bench`), which holds the times to
//! their goals (cold ones to twice what etcd takes by itself, where that is longer); the short form looks at what is answered, and prints the times.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use conmond::registry::etcd::Etcd;
use conmond::registry::{EndpointRow, Registry, keys};
use etcd_client::{Client, GetOptions, PutOptions, Txn, TxnOp};

use super::etcd::settings;
use super::etcd_process::EtcdProcess;
use super::support::*;

const PER_HOST: u32 = 200;
/// From one cold look-up to the next.
const PACE: Duration = Duration::from_millis(5);
/// Peers whose memory is measured, and whose answers are asked for again.
const PEERS: usize = 1000;
/// Cold look-ups, the peers' among them: thirty are slower than the 99th percentile.
const COLD: u32 = 3000;
/// In the short form.
const FEW: u32 = 300;

fn address(i: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + i))
}

fn row(i: u32, since_ns: u64) -> EndpointRow {
    let host = format!("host-{:04}", i / PER_HOST);
    let mut row = endpoint(&host, &format!("service-{}-{}", i % 17, i), "10.0.0.1", since_ns, None);
    row.address = address(i);
    row.container_id = format!("{i:064x}");
    row
}

/// Writes all rows, as 5,000 hosts would have.
async fn fill(etcd: &EtcdProcess, count: u32, since_ns: u64) {
    let client = Client::connect([etcd.url()], None).await.unwrap();
    let lease = client.clone().lease_grant(3600, None).await.unwrap().id();
    let mut tasks = Vec::new();
    for worker in 0..8 {
        let mut client = client.clone();
        tasks.push(tokio::spawn(async move {
            let put = |key: String, value| TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)));
            for batch in (worker * 100..count).step_by(800) {
                let end = (batch + 100).min(count);
                let mut ops: Vec<TxnOp> = (batch..end)
                    .map(|i| {
                        let row = row(i, since_ns);
                        put(keys::endpoint(&row.id()), row.encode())
                    })
                    .collect();
                if batch % PER_HOST == 0 {
                    let host = host(&row(batch, since_ns).host, u64::from(batch));
                    ops.push(put(keys::host(&host.name), host.encode()));
                }
                client.txn(Txn::new().and_then(ops)).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

/// Starts etcd over what was written, and waits until it is at rest. Hosts write some rows at a time: a million writes at once leave what no
/// system of theirs has, a heap full of garbage and a buffer of the newest writes, as large as the largest burst, that etcd 3.4
/// copies for each reading. All keys and their lease are as they were.
async fn settle(etcd: &mut EtcdProcess) {
    etcd.stop();
    etcd.run();
    let begin = Instant::now();
    let mut calm = 0;
    while calm < 3 {
        let before = etcd.processor_time();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let is_calm = etcd.processor_time() - before < Duration::from_millis(50);
        calm = if is_calm { calm + 1 } else { 0 };
        assert!(begin.elapsed() < Duration::from_secs(120), "etcd does not come to rest");
    }
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[times.len() * percent / 100]
}

fn rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn look_ups_are_quick_with_a_full_etcd() {
    let count: u32 = std::env::var("CONMON_REGISTRY_ENDPOINTS").map_or(20_000, |text| text.parse().unwrap());
    let long = count >= 1_000_000;
    // In memory: what is measured is the look-up, not a disk.
    let flags = ["--quota-backend-bytes", "8589934592", "--snapshot-count", "10000"];
    let mut etcd = EtcdProcess::start_with(
        "lookup",
        std::path::Path::new("/dev/shm"),
        flags.map(str::to_owned).to_vec(),
        "http",
    );
    let (t, begin) = (wall() - S, Instant::now());
    fill(&etcd, count, t).await;
    println!("{count} endpoints of {} hosts written in {:.1?}", count.div_ceil(PER_HOST), begin.elapsed());
    let begin = Instant::now();
    settle(&mut etcd).await;
    println!("etcd started anew and at rest after {:.1?}", begin.elapsed());
    let before = rss_bytes();

    let begin = Instant::now();
    let registry = Etcd::start(settings(etcd.url()), 7);
    registry.publish(own(&host("measured", 1), &[("x", "192.0.2.7", t, None)]));
    let mut hosts = registry.hosts();
    hosts.wait_for(|hosts| hosts.complete).await.unwrap();
    names_now(&registry, &address(count - 1).to_string(), &[&named_row(count - 1)]).await;
    let start = begin.elapsed();
    assert!(hosts.borrow().rows.len() as u32 >= count.div_ceil(PER_HOST));

    // Peers spread over all that there is.
    let mut peers: Vec<u32> = (0..if long { COLD } else { FEW }).map(|i| (i * 7919 + 13) % count).collect();
    let (mut cold, mut bare, mut memory) = (Vec::new(), Vec::new(), 0);
    let mut client = Client::connect([etcd.url()], None).await.unwrap();
    for i in &peers {
        // one conversation at a time: etcd has begun to watch the last one's address
        tokio::time::sleep(PACE).await;
        let begin = Instant::now();
        let answer = registry.find(address(*i), t + S / 2).await;
        cold.push(begin.elapsed());
        assert_eq!(named(&answer), [named_row(*i)]);
        // and what etcd takes for another one, so that what holds it up holds up both
        bare.push(bare_read(&mut client, (i + 5) % count).await);
        if cold.len() == PEERS.min(peers.len()) {
            memory = rss_bytes().saturating_sub(before);
        }
    }
    peers.truncate(PEERS);
    // Watches are being made while the rest is asked for; let them settle.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut cached = Vec::with_capacity(1_000_000);
    for round in 0..1_000_000 {
        let i = peers[(round * 37) % peers.len()];
        let begin = Instant::now();
        let answer = registry.cached(address(i), t + S / 2);
        cached.push(begin.elapsed());
        assert!(answer.is_some_and(|answer| answer.candidates.len() == 1));
    }
    let absent = {
        let begin = Instant::now();
        let answer = registry.find(ip("203.0.113.9"), wall()).await;
        assert!(answer.candidates.is_empty() && answer.known_as_of_ns.is_some());
        begin.elapsed()
    };
    let [cold50, cold90, cold99] = [50, 90, 99].map(|percent| percentile(&mut cold, percent));
    let (cached50, cached99) = (percentile(&mut cached, 50), percentile(&mut cached, 99));
    println!(
        "start {start:.1?}; cold p50 {cold50:.1?} p90 {cold90:.1?} p99 {cold99:.1?}; nobody {absent:.1?}"
    );
    let [bare50, bare90, bare99] = [50, 90, 99].map(|percent| percentile(&mut bare, percent));
    println!("etcd alone p50 {bare50:.1?} p90 {bare90:.1?} p99 {bare99:.1?}");
    println!("cached p50 {cached50:.1?} p99 {cached99:.1?}; 1,000 peers take {} kB", memory / 1024);
    assert!(memory < 64 << 20, "{memory} bytes");
    if long {
        assert!(start < Duration::from_secs(1), "start {start:?}");
        // where etcd itself takes longer than the goal, nobody can be quicker
        let goal = Duration::from_millis(2).max(2 * bare99);
        assert!(cold99 < goal, "cold p99 {cold99:?}, etcd alone {bare99:?}");
        assert!(cached99 < Duration::from_micros(1), "cached p99 {cached99:?}");
    }
}

/// How long etcd itself takes for such a reading, with nothing around it.
async fn bare_read(client: &mut Client, i: u32) -> Duration {
    tokio::time::sleep(PACE).await;
    let key = keys::address(address(i));
    let begin = Instant::now();
    let answer = client.get(key, Some(GetOptions::new().with_prefix())).await.unwrap();
    let took = begin.elapsed();
    assert_eq!(answer.kvs().len(), 1);
    took
}

fn named_row(i: u32) -> String {
    let row = row(i, 0);
    format!("{}/{}", row.host, row.container)
}
