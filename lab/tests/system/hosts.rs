//! Two hosts as one system, over etcd and over gossip: every conversation between them is named at both ends, on either
//! host, soon after its first packet; routed, through a published port behind a masquerade, over IPv4 and IPv6.

use crate::figures::Figures;
use crate::support::*;
use anyhow::{Context, Result, ensure};
use lab::traffic::UdpSent;
use lab::{App, Conmond, Container, Host, Meeting, ROUTED, Site, Spec, output_text, root_test, wait_for};
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Datagrams of a conversation.
const COUNT: u64 = 100;
/// Sinks of each kind; the long form takes more.
const SINKS: u64 = 6;
/// From a conversation's first packet to both ends' names on a host, p99.
const NAMED_WITHIN: Duration = Duration::from_millis(100);
/// What the bound of a clock's offset is below on a way of some microseconds, however busy the machine is, in seconds.
const CLOCK_BOUND: f64 = 0.02;
/// Packets of neighbour discovery beside a conversation over IPv6, at most.
const NEIGHBOUR_DISCOVERY: u64 = 16;
/// The allowance of a machine on which other tests run.
const BUSY: u32 = 10;

/// Two hosts with conmond on each, that know each other.
pub struct Two<'a> {
    pub site: &'a mut Site,
    pub conmonds: Vec<Conmond>,
}

impl Two<'_> {
    pub fn host(&self, number: usize) -> &Host {
        &self.site.hosts()[number - 1]
    }

    /// Waits until each host's matrix has all hosts in it, with all they know.
    pub fn are_whole(&self) -> Result<()> {
        for conmond in &self.conmonds {
            conmond.wait_ctl("a whole matrix", END, &["matrix"], |answer| {
                let hosts = rows(answer, "hosts");
                (hosts.len() == self.conmonds.len() && hosts.iter().all(|h| h["complete"] == true))
                    .then_some(())
            })?;
        }
        Ok(())
    }
}

pub fn with_two(name: &str, meeting: Meeting, body: impl FnOnce(&mut Two<'_>) -> Result<()>) -> Result<()> {
    with_two_that((name, ["h1", "h2"]), meeting, &[], body)
}

/// Two hosts of other names, whose conmonds have more in their environment.
pub fn with_two_that(
    (name, hosts): (&str, [&str; 2]),
    meeting: Meeting,
    env: &[(&str, &str)],
    body: impl FnOnce(&mut Two<'_>) -> Result<()>,
) -> Result<()> {
    if !built(name, &["conmond", "conmonctl", "labgen"])? {
        return Ok(());
    }
    root_test(name, |lab| {
        let mut site = Site::start(lab, &hosts)?;
        site.network()?;
        if meeting == Meeting::Etcd {
            site.start_etcd()?;
        }
        let mut conmonds = Vec::new();
        for (i, host) in site.hosts().iter().enumerate() {
            // the same addresses on both
            host.network(NET, None)?;
            let mut options = site.options(i + 1, meeting)?;
            options.env.extend(env.iter().map(|(key, value)| (key.to_string(), value.to_string())));
            conmonds.push(Conmond::start(host, options)?);
        }
        let mut two = Two { site: &mut site, conmonds };
        two.are_whole()?;
        body(&mut two)?;
        for conmond in &two.conmonds {
            // a connection that was lost is made anew in its own time
            let mut last = Value::Null;
            wait_for("the doctor to be content with the other hosts", END, || {
                let checks = doctor(conmond)?;
                let of = |name| row(&checks, "checks", "name", name).cloned().unwrap_or_default();
                last = Value::Array(["registry", "far ends"].map(of).into());
                Ok(["registry", "far ends"].iter().all(|name| of(name)["ok"] == true).then_some(()))
            })
            .with_context(|| last.to_string())?;
            balanced(conmond)?;
        }
        Ok(())
    })
}

/// A container of the traffic generator on a network, of a service of its own name.
pub fn on(network: &str, name: &str, words: &str) -> Spec {
    let spec = Spec::app(name, App::Labgen).network(network).compose(TENANT, name);
    spec.command(words.split_ascii_whitespace())
}

/// A sink on the second host, and how it is called from the first.
pub struct Called {
    pub name: String,
    pub to: String,
}

/// What is called from a container of the first host's network.
pub struct Way {
    pub name: &'static str,
    pub network: &'static str,
    pub called: Vec<Called>,
}

/// Starts sinks on the second host.
pub fn ways(two: &Two<'_>, sinks: u64) -> Result<Vec<Way>> {
    let host = two.host(2);
    let mut ways = [("routed", ROUTED), ("six", ROUTED), ("published", NET)].map(|(name, network)| Way {
        name,
        network,
        called: Vec::new(),
    });
    for way in &mut ways {
        for i in 0..sinks {
            let (name, port) = (format!("{}-sink{i}", way.name), 7000 + i);
            let mut spec = on(way.network, &name, "udp-sink");
            if way.name == "published" {
                spec = spec.publish(&format!("{port}:9000/udp"));
            }
            let sink = host.run(&spec)?;
            let to = match way.name {
                "routed" => format!("{}:9000", sink.ipv4(ROUTED)?),
                "six" => format!("[{}]:9000", sink.ipv6(ROUTED)?),
                _ => format!("{}:{port}", two.site.address(2)),
            };
            sink.wait_line("listening", READY)?;
            way.called.push(Called { name, to });
        }
    }
    Ok(ways.into())
}

/// Nanoseconds since 1970 UTC, as the generator tells its first datagram.
fn now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// When a host first showed the pair of two names.
type Shown = BTreeMap<(String, String), u64>;

/// Looks at a host's pairs all the time.
fn watch(conmond: &Conmond, stop: &AtomicBool, shown: &Mutex<Shown>) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let answer = conmond.get("/v1/pairs")?;
        let at = now();
        let mut shown = shown.lock().unwrap_or_else(|e| e.into_inner());
        for pair in rows(&answer, "pairs") {
            let name = |end: &str| {
                let container = pair[end]["kind"] == "container";
                container.then(|| pair[end]["name"].as_str().unwrap_or_default().to_owned())
            };
            if let (Some(src), Some(dst)) = (name("src"), name("dst")) {
                shown.entry((src, dst)).or_insert(at);
            }
        }
        drop(shown);
        std::thread::sleep(Duration::from_millis(4));
    }
    Ok(())
}

/// A pair's traffic as the sender tells it.
struct Sent {
    src: String,
    dst: String,
    said: UdpSent,
}

/// The generator's words for one conversation.
fn to_send(to: &str) -> String {
    format!("udp-send --to {to} --rate 1000 --count {COUNT}")
}

/// Has one conversation from a container that runs.
fn send(from: &Container, to: &str) -> Result<UdpSent> {
    let words = to_send(to);
    let said = from.exec(&["/labgen"].into_iter().chain(words.split(' ')).collect::<Vec<_>>())?;
    serde_json::from_str(&said).context(said)
}

/// Calls all that is there to be called, one after another: from a container that runs already, and from one that is made for it.
fn call_all(two: &Two<'_>, ways: &[Way]) -> Result<Vec<Sent>> {
    let host = two.host(1);
    let mut all = Vec::new();
    for way in ways {
        let src = format!("{}-caller", way.name);
        let caller = host.run(&on(way.network, &src, "idle"))?;
        for called in &way.called {
            let said = send(&caller, &called.to)?;
            all.push(Sent { src: src.clone(), dst: called.name.clone(), said });
            let fresh = format!("{}-fresh-{}", way.name, called.name);
            let words = format!("{} --hold 1", to_send(&called.to));
            let container = host.run(&on(way.network, &fresh, &words))?;
            all.push(Sent { src: fresh, dst: called.name.clone(), said: report_of(&container)? });
            container.remove()?;
        }
    }
    Ok(all)
}

fn named_in_time(meeting: Meeting, sent: &[Sent], shown: &[Mutex<Shown>]) -> Result<()> {
    for (number, shown) in shown.iter().enumerate() {
        let shown = shown.lock().unwrap_or_else(|e| e.into_inner());
        let (mut by_way, mut all) = (BTreeMap::<String, Figures>::new(), Figures::default());
        for one in sent {
            let at = shown.get(&(one.src.clone(), one.dst.clone()));
            let at =
                at.with_context(|| format!("h{} never showed {} to {}", number + 1, one.src, one.dst))?;
            let late = Duration::from_nanos(at.saturating_sub(one.said.first_ns)).as_secs_f64();
            all.push(late);
            let kind = if one.src.contains("fresh") { "from a new container" } else { "from a running one" };
            let way = one.dst.split('-').next().unwrap_or_default();
            by_way.entry(format!("{way}, {kind}")).or_default().push(late);
        }
        for (way, times) in &by_way {
            let host = number + 1;
            eprintln!("{} h{host} {way}: both ends named after the first packet: {times}", meeting.name());
        }
        let p99 = all.per_mille(990);
        ensure!(p99 < (NAMED_WITHIN * BUSY).as_secs_f64(), "h{}: p99 {p99} s", number + 1);
    }
    Ok(())
}

/// The matrix of each host shows each conversation once, with both hosts' counters, which are the sender's own.
fn counted_alike(two: &Two<'_>, sent: &[Sent]) -> Result<()> {
    for conmond in &two.conmonds {
        for one in sent {
            let what = format!("{} packets of {} to {} on both hosts", one.said.sent, one.src, one.dst);
            let row = conmond.wait_ctl(&what, END, &["matrix"], |answer| {
                let all: Vec<&Value> = rows(answer, "pairs")
                    .iter()
                    .filter(|p| p["src"]["name"] == one.src && p["dst"]["name"] == one.dst)
                    .collect();
                let whole = all.first().is_some_and(|p| {
                    ["src", "dst"].iter().all(|end| packets(&p["views"][end]["sent"]) >= one.said.sent)
                });
                whole.then(|| (all.len(), all[0].clone()))
            })?;
            let (rows, row) = row;
            ensure!(rows == 1, "{rows} rows: {row}");
            let [src, dst] = ["src", "dst"].map(|end| &row["views"][end]);
            ensure!(src["host"] == "h1" && dst["host"] == "h2", "{row}");
            // on one link, neighbour discovery goes between addresses of which some are no container's to the other host
            let neighbours = crate::support::rows(&row, "protocols").iter().any(|p| p == "icmpv6");
            let allowed = if neighbours { NEIGHBOUR_DISCOVERY } else { 0 };
            for way in ["sent", "received"] {
                let [a, b] = [src, dst].map(|view| packets(&view[way]));
                ensure!(a.abs_diff(b) <= allowed && (allowed > 0 || src[way] == dst[way]), "{row}");
            }
            ensure!(packets(&src["sent"]).abs_diff(one.said.sent) <= allowed, "{row}");
            ensure!(row["src"]["host"] == "h1" && row["dst"]["host"] == "h2", "{row}");
            ensure!(row["src"]["tenant"] == TENANT && row["dst"]["service"] == one.dst, "{row}");
        }
    }
    Ok(())
}

/// Has all that is there called, and looks whether each conversation is named in time, and counted alike, on both hosts.
pub fn named_and_counted(two: &Two<'_>, meeting: Meeting, ways: &[Way]) -> Result<()> {
    let stop = AtomicBool::new(false);
    let shown = [Mutex::default(), Mutex::default()];
    let sent = std::thread::scope(|scope| {
        let watchers: Vec<_> = two
            .conmonds
            .iter()
            .zip(&shown)
            .map(|(conmond, shown)| scope.spawn(|| watch(conmond, &stop, shown)))
            .collect();
        let sent = call_all(two, ways).and_then(|sent| {
            wait_for("all to be shown on both hosts", END, || {
                let has = |shown: &Mutex<Shown>| {
                    let shown = shown.lock().unwrap_or_else(|e| e.into_inner());
                    sent.iter().all(|s| shown.contains_key(&(s.src.clone(), s.dst.clone())))
                };
                Ok(shown.iter().all(has).then_some(()))
            })
            .or_else(|error| named_in_time(meeting, &sent, &shown).and(Err(error)))?;
            Ok(sent)
        });
        stop.store(true, Ordering::Relaxed);
        for watcher in watchers {
            watcher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        sent
    })?;
    named_in_time(meeting, &sent, &shown)?;
    counted_alike(two, &sent)
}

fn every_pair_is_named(meeting: Meeting) -> Result<()> {
    with_two(&format!("two hosts, {}", meeting.name()), meeting, |two| {
        let ways = ways(two, setting("CONMON_HOSTS_SINKS", SINKS)?)?;
        named_and_counted(two, meeting, &ways)?;
        clocks_are_compared(two)?;
        nothing_else_is_shown(two)
    })
}

/// Each host knows the other's clock, which is its own: both are of one kernel.
fn clocks_are_compared(two: &Two<'_>) -> Result<()> {
    for (conmond, other) in two.conmonds.iter().zip(["h2", "h1"]) {
        let clock = conmond.wait_ctl(&format!("{other}'s clock"), END, &["clocks"], |answer| {
            let clock = row(answer, "clocks", "host", other)?;
            clock["skew_bound_ppm"].is_number().then(|| clock.clone())
        })?;
        let value = |name: &str| clock[name].as_f64().with_context(|| format!("{name}: {clock}"));
        let (offset, bound) = (value("offset_seconds")?, value("bound_seconds")?);
        eprintln!(
            "{other}'s clock: ahead by {:.1} us, for certain within {:.1} us",
            offset * 1e6,
            bound * 1e6
        );
        ensure!(offset.abs() <= bound && bound < CLOCK_BOUND, "{clock}");
        ensure!(
            value("skew_ppm")?.abs() <= value("skew_bound_ppm")? && clock["problem"].is_null(),
            "{clock}"
        );
    }
    Ok(())
}

/// No end of a conversation between containers of the two hosts is left with its address.
pub fn nothing_else_is_shown(two: &Two<'_>) -> Result<()> {
    for conmond in &two.conmonds {
        let answer = conmond.ctl(&["pairs"])?;
        for pair in rows(&answer, "pairs") {
            let unnamed = ["src", "dst"].iter().any(|end| pair[end]["kind"] == "external");
            let to_all = pair["dst"]["name"] == "multicast";
            ensure!(!unnamed || to_all || pair["protocols"] == serde_json::json!(["icmpv6"]), "{pair}");
        }
    }
    Ok(())
}

#[test]
fn root_every_pair_across_two_hosts_is_named_at_both_ends_by_etcd() -> Result<()> {
    every_pair_is_named(Meeting::Etcd)
}

#[test]
fn root_every_pair_across_two_hosts_is_named_at_both_ends_by_gossip() -> Result<()> {
    every_pair_is_named(Meeting::Gossip)
}

/// Waits until a command in a container succeeds.
fn is_up(container: &Container, check: &[&str]) -> Result<()> {
    wait_for(&format!("{} to answer", container.name()), READY, || Ok(container.exec(check).ok().map(drop)))
}

/// Real servers on the second host, real clients on the first.
#[test]
fn root_real_applications_on_two_hosts() -> Result<()> {
    with_two("applications on two hosts", Meeting::Etcd, |two| {
        let (near, far) = (two.host(1), two.host(2));
        let app =
            |app, name: &str, network: &str| Spec::app(name, app).network(network).compose(TENANT, name);
        let web = far.run(&app(App::Nginx, "web", NET).publish("8080:80"))?;
        let cache = far.run(&app(App::Redis, "cache", ROUTED))?;
        is_up(&web, &["wget", "-q", "-O", "/dev/null", "http://127.0.0.1/"])?;
        is_up(&cache, &["redis-cli", "ping"])?;
        let url = format!("http://{}:8080/", two.site.address(2));
        near.run(&app(App::Wrk, "visitors", NET).command(["wrk", "-t1", "-c4", "-d3", &url]))?;
        for (name, to) in [("cart", cache.ipv4(ROUTED)?), ("cart6", cache.ipv6(ROUTED)?)] {
            let script = format!("redis-benchmark -h {to} -t set,get -n 20000 -c 4 -q; exec sleep 600");
            near.run(&app(App::Redis, name, ROUTED).option("--entrypoint=").shell(&script))?;
        }
        for (src, dst) in [("visitors", "web"), ("cart", "cache"), ("cart6", "cache")] {
            let mut last = 0;
            let row =
                two.conmonds[1].wait_ctl(&format!("{src} to {dst}, ended"), END, &["matrix"], |answer| {
                    let row = pair(answer, src, dst)?.clone();
                    let [a, b] = ["src", "dst"].map(|end| &row["views"][end]);
                    let segments = |view: &Value| view["sent"]["segments"].as_u64();
                    let still = segments(a)? == std::mem::replace(&mut last, segments(a)?);
                    (still && segments(a) == segments(b) && last > 1000).then_some(row)
                })?;
            let [a, b] = ["src", "dst"].map(|end| &row["views"][end]);
            ensure!(a["received"]["segments"] == b["received"]["segments"], "{row}");
            ensure!(row["rtt_seconds"]["count"].as_u64().is_some_and(|n| n > 100), "{row}");
        }
        // the same from outside, over TLS
        let mut ask = near.command(lab::program("conmonctl")?);
        ask.args(two.site.as_operator(2)?).args(["matrix", "-o", "json"]);
        let answer: Value = serde_json::from_str(&output_text(&mut ask)?)?;
        ensure!(pair(&answer, "visitors", "web").is_some(), "{answer}");
        let text = two.conmonds[0].ctl_text(&["matrix"])?;
        eprintln!("{text}");
        ensure!(text.contains("visitors") && text.contains("cache"), "{text}");
        Ok(())
    })
}

/// The matrix as a host tells it says of another host that it is not in it, and why.
fn misses(conmond: &Conmond, host: &str) -> Result<()> {
    conmond.wait_ctl(&format!("{host} to be missed"), END, &["matrix"], |answer| {
        let row = row(answer, "hosts", "name", host)?;
        (row["complete"] == false && row["problem"].is_string()).then_some(())
    })
}

/// Sends to a sink on the other host and waits until both ends are named with all of it on both hosts that are asked.
fn heard(sender: &Container, to: &str, sink: &str, conmonds: &[&Conmond], already: u64) -> Result<u64> {
    let all = already + send(sender, to)?.sent;
    for conmond in conmonds {
        let pair = pair_with(conmond, sender.name(), sink, all)?;
        ensure!(packets(&pair["sent"]) == all, "{all} were sent: {pair}");
    }
    Ok(all)
}

/// Waits until something that an address sent is shown.
fn begins(conmond: &Conmond, from: IpAddr) -> Result<()> {
    conmond.wait_ctl(&format!("what {from} sends"), END, &["pairs"], |answer| {
        let is_from = |pair: &Value| rows(&pair["src"], "addresses").iter().any(|a| *a == from.to_string());
        rows(answer, "pairs").iter().any(is_from).then_some(())
    })
}

/// One address of three containers, one after the other: what each said is its own, on both hosts.
fn changes_hands(two: &Two<'_>, to: &str) -> Result<()> {
    let names = ["first", "second", "third"];
    for name in names {
        let owner = two.host(1).run(&on(ROUTED, name, &to_send(to)).option("--ip=10.91.1.77"))?;
        report_of(&owner)?;
        owner.remove()?;
    }
    for conmond in &two.conmonds {
        for name in names {
            let pair = pair_with(conmond, name, "sink", COUNT)?;
            ensure!(packets(&pair["sent"]) == COUNT, "{pair}");
        }
    }
    Ok(())
}

/// What begins while the registry is away is named when it is back, also if it is over by then.
fn begins_meanwhile(
    two: &mut Two<'_>,
    to: &str,
    (name, fresh): (&str, u8),
    back: impl FnOnce(&mut Site) -> Result<()>,
) -> Result<()> {
    // addresses that nobody had before: while the registry is away others do not hear that one has another owner
    let ip = |last: u8| format!("--ip=10.91.1.{last}");
    let words = format!("udp-send --to {to} --rate 100 --count 100000");
    let lasts = two.host(1).run(&on(ROUTED, name, &words).option(ip(fresh)))?;
    for conmond in &two.conmonds {
        begins(conmond, lasts.ipv4(ROUTED)?)?;
    }
    let over = on(ROUTED, &format!("{name}-over"), &to_send(to)).option(ip(fresh + 1));
    let over = two.host(1).run(&over)?;
    report_of(&over)?;
    over.remove()?;
    back(two.site)?;
    two.are_whole()?;
    for conmond in &two.conmonds {
        pair_with(conmond, name, "sink", 1)?;
        pair_with(conmond, over.name(), "sink", COUNT)?;
    }
    lasts.remove()
}

/// Conversations through a published port, of which the one host's tables are read while the other's controller stands still. They are silent
/// when that can tell who it was: no reading tells of them again.
fn is_silent_when_told_of(two: &Two<'_>) -> Result<()> {
    let sink = two.host(2).run(&on(NET, "published", "udp-sink").publish("7100:9000/udp"))?;
    sink.wait_line("listening", READY)?;
    let caller = two.host(1).run(&on(NET, "caller", "idle"))?;
    let to = format!("{}:7100", two.site.address(2));
    for (round, (still, other)) in (1..).zip([(1, 0), (0, 1)]) {
        let [still, other] = [still, other].map(|i: usize| &two.conmonds[i]);
        still.standing_still(|| {
            let sent = send(&caller, &to)?.sent;
            ensure!(sent == COUNT, "{sent} were sent");
            other.wait_ctl("the half of it that is known", END, &["pairs"], |answer| {
                let is_half = |pair: &Value| {
                    (pair["src"]["name"] == "caller") != (pair["dst"]["name"] == "published")
                        && packets(&pair["sent"]) == COUNT
                };
                rows(answer, "pairs").iter().any(is_half).then_some(())
            })
        })?;
        let begun = Instant::now();
        for conmond in &two.conmonds {
            let pair = pair_with(conmond, "caller", "published", round * COUNT)?;
            ensure!(packets(&pair["sent"]) == round * COUNT, "{pair}");
        }
        // it would be known at its end, too
        ensure!(begun.elapsed() < UDP_IDLE / 2, "known after {:?}", begun.elapsed());
    }
    Ok(())
}

/// Each fault of what binds hosts together: counting goes on exactly, names that are known stay, and afterwards all is as if
/// nothing had been.
fn faults(meeting: Meeting) -> Result<()> {
    with_two(&format!("faults of two hosts, {}", meeting.name()), meeting, |two| {
        let sink = two.host(2).run(&on(ROUTED, "sink", "udp-sink"))?;
        sink.wait_line("listening", READY)?;
        let to = format!("{}:9000", sink.ipv4(ROUTED)?);
        let sender = two.host(1).run(&on(ROUTED, "sender", "idle"))?;
        let both =
            |two: &Two<'_>, sent| heard(&sender, &to, "sink", &[&two.conmonds[0], &two.conmonds[1]], sent);
        let mut sent = both(two, 0)?;
        changes_hands(two, &to)?;

        // The other host's controller dies: its kernel counts on, and it knows all when it is back.
        two.conmonds[1].kill9()?;
        misses(&two.conmonds[0], "h2")?;
        sent = heard(&sender, &to, "sink", &[&two.conmonds[0]], sent)?;
        two.conmonds[1].up()?;
        two.are_whole()?;
        sent = both(two, sent)?;

        // It stands still for longer than its lease.
        two.conmonds[1].standing_still(|| misses(&two.conmonds[0], "h2"))?;
        two.are_whole()?;
        sent = both(two, sent)?;
        is_silent_when_told_of(two)?;

        // The cable between them is pulled.
        two.site.plug(2, false)?;
        misses(&two.conmonds[0], "h2")?;
        misses(&two.conmonds[1], "h1")?;
        two.site.plug(2, true)?;
        two.are_whole()?;
        sent = both(two, sent)?;

        if meeting == Meeting::Etcd {
            // The registry is gone, stands still, or is out of reach: what is known is known.
            two.site.kill_etcd()?;
            sent = both(two, sent)?;
            begins_meanwhile(two, &to, ("dead", 100), Site::start_etcd)?;
            two.site.signal_etcd(Signal::SIGSTOP)?;
            begins_meanwhile(two, &to, ("still", 102), |site| site.signal_etcd(Signal::SIGCONT))?;
            two.site.reach_etcd(false)?;
            begins_meanwhile(two, &to, ("apart", 104), |site| site.reach_etcd(true))?;
            sent = both(two, sent)?;

            // It comes back with an older memory, which knows nothing of one that talks.
            two.site.kill_etcd()?;
            two.site.back_etcd_up(false)?;
            two.site.start_etcd()?;
            two.are_whole()?;
            let newer = two.host(1).run(&on(ROUTED, "newer", "idle"))?;
            heard(&newer, &to, "sink", &[&two.conmonds[0], &two.conmonds[1]], 0)?;
            two.site.kill_etcd()?;
            two.site.back_etcd_up(true)?;
            begins_meanwhile(two, &to, ("older", 106), Site::start_etcd)?;
            heard(&newer, &to, "sink", &[&two.conmonds[0], &two.conmonds[1]], COUNT)?;
            sent = both(two, sent)?;

            // It comes back without its memory.
            two.site.kill_etcd()?;
            two.site.wipe_etcd()?;
            two.site.start_etcd()?;
            two.are_whole()?;
            sent = both(two, sent)?;
        }
        // a host that an etcd without memory does not tell of yet is not in the matrix until it is told of again
        let row = two.conmonds[1].wait_ctl("both hosts' counters", END, &["matrix"], |answer| {
            let row = pair(answer, "sender", "sink")?;
            ["src", "dst"].iter().all(|end| row["views"][end].is_object()).then(|| row.clone())
        })?;
        for end in ["src", "dst"] {
            ensure!(packets(&row["views"][end]["sent"]) == sent, "{sent} were sent: {row}");
        }
        Ok(())
    })
}

#[test]
fn root_faults_between_two_hosts_that_meet_by_etcd() -> Result<()> {
    faults(Meeting::Etcd)
}

#[test]
fn root_faults_between_two_hosts_that_gossip() -> Result<()> {
    faults(Meeting::Gossip)
}
