use std::time::Duration;

use super::*;
use crate::mc::view::tests::{published, shared};

fn runs(count: u64, time_ns: u64) -> Runs {
    Runs { count, time_ns }
}

#[test]
fn a_sample_without_packets_does_not_replace_one_with() {
    let mut known = Known::default();
    take_sample(&mut known, Timestamp(1), [runs(0, 0), runs(0, 0)]);
    assert_eq!(known.sample.unwrap().at, Timestamp(1), "no packets is what is known so far");
    take_sample(&mut known, Timestamp(2), [runs(10, 1000), runs(0, 0)]);
    take_sample(&mut known, Timestamp(3), [runs(0, 0), runs(0, 0)]);
    assert_eq!(known.sample.unwrap().at, Timestamp(2));
    take_sample(&mut known, Timestamp(4), [runs(5, 800), runs(1, 50)]);
    let sample = known.sample.unwrap();
    assert_eq!(
        (sample.at, sample.runs[0].ns_per_run()),
        (Timestamp(4), Some(160.0)),
        "means are of one moment"
    );
    assert_eq!(known.totals, [runs(15, 1800), runs(1, 50)], "totals are of all of them");
}

#[test]
fn the_share_of_a_cpu_is_over_the_last_interval() {
    let mut known = Known::default();
    let second = |s: u64| Timestamp(s * 1_000_000_000);
    take_cpu(&mut known, second(10), Duration::from_millis(500));
    assert_eq!(known.cpu_ratio, None, "one reading is no interval");
    take_cpu(&mut known, second(20), Duration::from_millis(700));
    assert!((known.cpu_ratio.unwrap() - 0.02).abs() < 1e-9);
    take_cpu(&mut known, second(30), Duration::from_millis(600));
    assert_eq!(known.cpu_ratio, Some(0.0), "time that went with a monitor is not negative");
}

#[test]
fn mapped_tables_are_not_the_daemons_memory() {
    let smaps = "\
55d0c8a00000-55d0c8b00000 r-xp 00000000 fe:00 123 /usr/bin/conmond
Size:               1024 kB
Rss:                 600 kB
VmFlags: rd ex mr mw me
7f0000000000-7f0000200000 r--s 00000000 00:0e 9 anon_inode:bpf-map
Rss:                2048 kB
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0 [stack]
Rss:                  16 kB
";
    assert_eq!(resident(smaps), Some(616 * 1024));
    assert_eq!(resident(""), None, "nothing read is not zero");
    let own = daemon_memory().unwrap();
    assert!((100 << 10..8 << 30).contains(&own), "{own}");
    assert!(daemon_cpu().unwrap() > Duration::ZERO);
}

#[test]
fn monitors_count_with_those_that_are_gone_but_without_our_own_thread() {
    let mut p = published();
    p.gone_monitors_cpu = Duration::from_secs(5);
    for (_, monitor, alive) in Arc::make_mut(&mut p.monitors) {
        alive.cpu_ns = 1_000_000_000;
        alive.memory_bytes = Some(if monitor.mode == api::MonitorMode::Host { 1 << 30 } else { 4 << 20 });
    }
    let of_containers = p.monitors.iter().filter(|(_, m, _)| m.mode != api::MonitorMode::Host).count() as u64;
    assert!(of_containers > 0 && p.monitors.len() as u64 > of_containers, "both kinds are there");
    let usage = monitors_usage(&p);
    assert_eq!(usage.cpu, Some(Duration::from_secs(5 + of_containers)));
    assert_eq!(usage.memory_bytes, Some(of_containers * (4 << 20)));
    Arc::make_mut(&mut p.monitors)[1].2.memory_bytes = Some(u64::MAX);
    assert_eq!(monitors_usage(&p).memory_bytes, Some(u64::MAX), "what a monitor says does not overflow");
}

#[test]
fn starts_looks_and_stops() {
    let cost = Cost::start(Arc::new(shared(published())));
    let end = Instant::now() + Duration::from_secs(10);
    while cost.controller().memory_bytes.is_none() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    let status = cost.status(Wall::now());
    assert!(status.memory_bytes.is_some_and(|b| b > 0));
    assert_eq!(status.kernel_memory_bytes, Some(0), "no set is loaded");
    let began = Instant::now();
    cost.stop();
    cost.stop();
    assert!(began.elapsed() < Duration::from_secs(2), "a stop does not wait for the next look");
}

#[test]
fn root_run_times_and_kernel_memory_are_the_kernels() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CONMON_TEST_REQUIRE_ROOT").is_none(), "this test needs root");
        eprintln!("SKIPPED: needs root (CAP_BPF)");
        return;
    }
    let spec = tap::SetSpec {
        flows: 64,
        pairs: 16,
        ports: 16,
        hists: 16,
        ring_bytes: 64 << 10,
        ..Default::default()
    };
    let set = Arc::new(Set::create(spec).unwrap());
    let sets = BTreeMap::from([(SetId(1), set.clone())]);
    let frame = crate::mc::view::tests::udp(5000, 6000, 10);
    // packets before statistics are on do not count
    set.test_run(Direction::Tx, &frame, 1, 0).unwrap();
    let runs = sample(&sets, None, |_| {
        for _ in 0..20 {
            set.test_run(Direction::Tx, &frame, 1, 0).unwrap();
        }
        true
    })
    .unwrap();
    assert_eq!((runs[0].count, runs[1].count), (20, 0));
    let mean = runs[0].ns_per_run().unwrap();
    assert!(mean > 5.0 && mean < 1e6, "{mean} ns");
    let memory = kernel_memory(&set);
    assert!(memory >= spec.kernel_bytes() && memory < 4 * spec.kernel_bytes() + (1 << 20), "{memory}");
    let reader = tap::Reader::new(set.descriptors().unwrap()).unwrap();
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    assert!(smaps.contains(TABLE_MAPPING), "tables are known by this name");
    drop(reader);
}
