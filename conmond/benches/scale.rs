//! What many hosts cost an etcd, and each other: `cargo bench -p conmond --bench scale`. The product's own writers and readers in
//! virtual time, a plain store that counts in the place of etcd; no network, no root. All hosts' writers, of some hosts also the readers, whose figures
//! stand for those of all. `--test` runs it small, so that it cannot rot; `CONMON_SCALE_PLANS` picks plans, such as `5000x1,1000x10`.

#![allow(clippy::disallowed_methods, reason = "a bench measures time")]

#[path = "../tests/scale/cast.rs"]
mod cast;
#[path = "../tests/scale/events.rs"]
mod events;
#[path = "../tests/scale/figures.rs"]
mod figures;
#[path = "../tests/scale/host.rs"]
mod host;
#[path = "../tests/scale/plan.rs"]
mod plan;
#[path = "../tests/scale/service.rs"]
mod service;
#[path = "../tests/scale/store.rs"]
mod store;
#[path = "../tests/scale/truth.rs"]
mod truth;
#[path = "../tests/scale/world.rs"]
mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use figures::{Figures, Restart, table};
use plan::{MIN, MS, Plan, S};
use world::World;

/// Counts bytes that are held.
struct Counting;

static HELD: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is handed on to `System` as it came; counting touches nothing of it. `realloc` is the default, which goes by these two.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract, which is the same here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: `at` came from `System` by `alloc` here, with this layout.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// By then as many watches end, of addresses that nobody asked for in ten minutes, as begin.
const STEADY_NS: u64 = 11 * MIN;
/// So long before that all hosts' containers begin to be replaced: after two minutes as many rows are deleted as end.
const ALL_NS: u64 = 130 * S;
const WINDOW_NS: u64 = 2 * MIN;
const DOWN_NS: u64 = 5 * S;

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        let small = Plan { hosts: 20, readers: 10, containers: 10, peers: 30, ..Plan::goal(20, 10.0) };
        let figures = run(small, 3 * MIN, MIN, &[(None, 20 * S), (Some(2_000), MIN)]);
        return println!("{}", table(&[figures]));
    }
    let wanted = std::env::var("CONMON_SCALE_PLANS").unwrap_or_default();
    let busy = [(None, 20 * S), (Some(200_000), 3 * MIN), (Some(50_000), 3 * MIN)];
    let plans = [(5_000, 1.0), (1_000, 1.0), (1_000, 10.0)];
    let all: Vec<Figures> = plans
        .into_iter()
        .filter(|(hosts, churn)| {
            wanted.is_empty() || wanted.split(',').any(|plan| format!("{hosts}x{churn}") == plan)
        })
        .map(|(hosts, churn)| {
            run(Plan { readers: 100, ..Plan::goal(hosts, churn) }, STEADY_NS, WINDOW_NS, &busy)
        })
        .collect();
    println!("{}", table(&all));
}

fn run(plan: Plan, steady_ns: u64, window_ns: u64, restarts: &[(Option<u32>, u64)]) -> Figures {
    let begin = Instant::now();
    let mut world = World::new(plan);
    world.only_talked_to = true;
    world.run_until(steady_ns.saturating_sub(ALL_NS));
    world.only_talked_to = false;
    world.run_until(steady_ns);
    let mut figures = Figures::of(&mut world, window_ns);
    world.churning = false;
    world.run_until(world.now_ns + 5 * S);
    let named = truth::everybody_knows(&mut world);
    truth::watches_are_needed(&world);
    eprintln!("{} hosts at {} %: {named} answers were right", plan.hosts, plan.churn_percent);
    world.churning = true;
    // Writers have little part in what follows.
    world.only_talked_to = true;
    for (calls, patience_ns) in restarts {
        let look_ns = if calls.is_none() { MS } else { 100 * MS };
        figures.restarts.push(Restart::watch(&mut world, DOWN_NS, *calls, look_ns, *patience_ns));
        world.service.calls_per_second = None;
        world.run_until(world.now_ns + MIN / 2);
    }
    // What is free without it was held by it.
    let reader = world.readers().next().and_then(|host| world.hosts[host as usize].far.take());
    figures.held_bytes = reader.map(|far| {
        let before = HELD.load(Ordering::Relaxed);
        drop(far.reader);
        before - HELD.load(Ordering::Relaxed)
    });
    eprintln!("{} hosts at {} %: {:.0?}", plan.hosts, plan.churn_percent, begin.elapsed());
    figures
}
