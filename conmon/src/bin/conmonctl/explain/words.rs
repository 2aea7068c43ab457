//! The words. Each paragraph says what was measured, by what definition and how exactly; what is not known is a paragraph
//! of its own, with the reason.

use std::fmt::Write as _;

use conmon::api::{Container, DelaySummary, Endpoint, EndpointKind, Network, Pair};
use jiff::Timestamp;

use super::Explanation;
use crate::format::{
    age, byte_rate, bytes, count, counted, delay, harmless, moment, packet_rate, percent, share,
};
use crate::judge;
use crate::legs::{legs, observed, remote};
use crate::look::{Look, glued, wrap};
use crate::order;
use crate::tone::Tone;
use crate::view::{View, endpoint};

/// The paragraphs' names stand left of them.
const INDENT: usize = 12;
/// How many port numbers are listed.
const PORTS: usize = 5;

/// The explanation.
pub fn explain(of: &Explanation, look: Look) -> View {
    let pair = &of.pair;
    let mut page = Page { look, text: String::new() };
    page.title(pair);
    page.say("Who", Tone::Plain, &who(of));
    page.say("Opened by", Tone::Plain, &opened(of));
    page.say("How much", Tone::Plain, &volume(of));
    page.say("How fast", Tone::Plain, &speed(pair));
    if let Some(method) = method(pair) {
        page.say("Method", Tone::Plain, &method);
    }
    page.say("Where", Tone::Plain, &place(of));
    if let Some((text, tone)) = resent(pair) {
        page.say("Sent again", tone, &text);
    }
    page.list("Not known", &unknown(of));
    page.list("Next", &next(of));
    View { text: page.text, notes: Vec::new() }
}

struct Page {
    look: Look,
    text: String,
}

impl Page {
    fn title(&mut self, pair: &Pair) {
        let title = format!("{} → {}", name(&pair.src), name(&pair.dst));
        self.text.push_str(&self.look.paint(Tone::Strong, &title));
        self.text.push('\n');
    }

    /// A paragraph, its name left of it.
    fn say(&mut self, label: &str, tone: Tone, text: &str) {
        self.text.push('\n');
        self.lines(label, tone, text);
    }

    fn list(&mut self, label: &str, items: &[String]) {
        let items: Vec<String> = items.iter().map(|item| format!("- {item}")).collect();
        self.say(label, Tone::Plain, &items.join("\n"));
    }

    /// Each line of the text begins anew; what does not fit in it goes on indented.
    fn lines(&mut self, label: &str, tone: Tone, text: &str) {
        let mut before = self.look.paint(Tone::Strong, &format!("{label:INDENT$}"));
        let width = self.look.prose().max(INDENT + 20) - INDENT;
        let hanging = if text.contains('\n') { 2 } else { 0 };
        for line in text.lines().flat_map(|line| {
            let lines: Vec<String> = wrap(&glued(line), width, hanging).lines().map(str::to_owned).collect();
            lines
        }) {
            let _ = writeln!(self.text, "{before}{}", self.look.paint(tone, &line));
            before = " ".repeat(INDENT);
        }
    }
}

fn name(end: &Endpoint) -> String {
    harmless(&endpoint(end)).into_owned()
}

/// An end with all that is known of it.
fn described(end: &Endpoint) -> String {
    let what = match end.kind {
        EndpointKind::Container => "container",
        EndpointKind::Host => "the host itself",
        EndpointKind::External if end.is_multicast() => "multicast and link-local addresses",
        EndpointKind::External => "neither a container nor a host that ConMon knows",
        EndpointKind::Dns => "name servers",
        EndpointKind::Service => "service",
        EndpointKind::Tenant => "tenant",
    };
    let mut facts = what.to_owned();
    if let Some(tenant) = &end.tenant {
        let _ = write!(facts, " of tenant {}", harmless(tenant));
    }
    if let Some(service) = &end.service {
        let _ = write!(facts, ", service {}", harmless(service));
    }
    let some: Vec<String> = end.addresses.iter().take(3).map(ToString::to_string).collect();
    if !some.is_empty() {
        let more = end.addresses.len() - some.len();
        let _ = write!(facts, ", {}", some.join(" "));
        if more > 0 {
            let _ = write!(facts, " and {more} more");
        }
    }
    format!("{} ({facts})", name(end))
}

fn who(of: &Explanation) -> String {
    let pair = &of.pair;
    let mut text = format!(
        "{} talks with {} over {}",
        described(&pair.src),
        described(&pair.dst),
        harmless(&pair.protocols.join(", "))
    );
    let mut ports: Vec<u16> = of.flows.flows.iter().filter_map(|flow| flow.dst_port).collect();
    ports.sort_unstable();
    ports.dedup();
    if !ports.is_empty() {
        let some: Vec<String> = ports.iter().take(PORTS).map(u16::to_string).collect();
        let more = if ports.len() > PORTS { " and others" } else { "" };
        let _ = write!(text, " to port {}{more}", some.join(", "));
    }
    let _ = write!(
        text,
        ". {} since {} ({}), {} open now. The last packet passed {}.",
        counted(pair.flows, "flow", "flows"),
        moment(pair.first_seen),
        ago(pair.first_seen, of.generated_at),
        count(pair.active_flows),
        ago(pair.last_seen, of.generated_at)
    );
    text
}

fn ago(then: Timestamp, now: Timestamp) -> String {
    match age(now.duration_since(then).as_secs_f64()).as_str() {
        "now" => "less than a second ago".to_owned(),
        age => format!("{age} ago"),
    }
}

fn opened(of: &Explanation) -> String {
    let pair = &of.pair;
    let src = name(&pair.src);
    let mut text = if pair.role_guessed {
        // Only TCP has a beginning that looks like one.
        let why = if pair.protocols.iter().all(|protocol| protocol == "tcp") {
            "the beginning was not seen, so this is inferred from port numbers"
        } else {
            "no beginning was seen that tells, so this is inferred from port numbers and from who sent first"
        };
        format!("Probably {src}: {why}. It may be the other way round.")
    } else {
        format!("{src}: the conversation's first packets were seen.")
    };
    if of.opposite.is_some() {
        let dst = name(&pair.dst);
        let _ = write!(text, " {dst} also opens conversations with {src}; these are the pair {dst} → {src}.");
    }
    text
}

fn volume(of: &Explanation) -> String {
    let pair = &of.pair;
    let way = |count_of: &conmon::api::Count| {
        let mut text = format!("{} in {}", bytes(count_of.bytes), packets(count_of.packets));
        if count_of.segments != count_of.packets {
            let _ = write!(text, " ({} on a wire)", count(count_of.segments));
        }
        text
    };
    let mut text = format!(
        "{} sent {} and got back {}, in whole frames as interface counters have them.",
        name(&pair.src),
        way(&pair.sent),
        way(&pair.received)
    );
    if let (Some(out), Some(back), Some(interval)) =
        (pair.sent_bytes_per_second, pair.received_bytes_per_second, of.rate_interval_seconds)
    {
        let each =
            |rate: Option<f64>| rate.map_or_else(String::new, |rate| format!(" ({})", packet_rate(rate)));
        let _ = write!(
            text,
            " Now {} there and {} back, over {}.",
            byte_rate(out) + &each(pair.sent_packets_per_second),
            byte_rate(back) + &each(pair.received_packets_per_second),
            delay(interval)
        );
    }
    text
}

fn packets(number: u64) -> String {
    if number == 1 { "1 packet".to_owned() } else { format!("{} packets", count(number)) }
}

fn speed(pair: &Pair) -> String {
    let here = name(observed(pair));
    let mut lines = Vec::new();
    for leg in legs(pair) {
        let Some(summary) = leg.summary else { continue };
        let (to, spread) = (name(leg.to), spread(summary));
        lines.push(match (leg.away, leg.handshake) {
            (true, false) => format!("Away leg, {here}'s port over the network to {to} and back: {spread}."),
            (false, false) => format!("Near leg, the port to {to}'s own stack and back: {spread}."),
            (true, true) => format!("TCP handshakes, away leg: {spread}."),
            (false, true) => continue,
        });
    }
    if lines.is_empty() { "Not measured; the reason is below.".to_owned() } else { lines.join("\n") }
}

/// `median 83.1 µs, 90 % below 150 µs, 99 % below 332 µs (41.5 µs to 1.75 ms, 271 k singletons)`
fn spread(summary: &DelaySummary) -> String {
    let [min, p50, p90, p99, max] =
        [summary.min, summary.p50, summary.p90, summary.p99, summary.max].map(delay);
    match summary.count {
        1 => format!("{p50}, one singleton"),
        number => format!(
            "median {p50}, 90 % below {p90}, 99 % below {p99} ({min} to {max}, {} singletons)",
            count(number)
        ),
    }
}

/// What the values mean and how exact they are.
fn method(pair: &Pair) -> Option<String> {
    let mut summaries: Vec<&DelaySummary> = legs(pair).into_iter().filter_map(|leg| leg.summary).collect();
    summaries.sort_by(|a, b| a.method.cmp(&b.method));
    summaries.dedup_by(|a, b| a.method == b.method);
    let first = summaries.first()?;
    let is = |kind: &str| summaries.iter().any(|summary| summary.method.starts_with(kind));
    let mut text = String::new();
    if is(PASSIVE) {
        text.push_str("Passive (RFC 7799): nothing is sent. ");
    }
    if is(DATA) {
        text.push_str(
            "A round-trip delay (RFC 2681) is the time from a TCP segment with data passing the port until its \
             acknowledgement passes in return; a segment that was sent again gives none (Karn, RFC 6298). It contains \
             the acknowledging stack, and with it delayed acknowledgements of up to 40 ms. ",
        );
    }
    if is(SHAKE) {
        text.push_str(
            "A handshake's is the time from SYN to SYN/ACK: no delayed acknowledgement, no application. ",
        );
    }
    if !is(PASSIVE) {
        text.push_str("docs/metrics.md has the definition. ");
    }
    text.push_str(&match first.relative_error_ratio {
        Some(ratio) => {
            // Relative to less than this a bucket is wider.
            let mins = legs(pair).into_iter().filter_map(|leg| leg.summary).map(|summary| summary.min);
            let tiny = mins.min_by(f64::total_cmp).is_some_and(|least| least < FINE_SECONDS);
            let below = if tiny { ", below 1 µs within 32 ns" } else { "" };
            format!("Percentiles are within ±{}{below} (half a bucket), extremes exact. ", percent(ratio))
        }
        None => "No error bound is stated. ".to_owned(),
    });
    let names: Vec<_> = summaries.iter().map(|summary| harmless(&summary.method)).collect();
    Some(format!("{text}In the API: {}.", names.join(", ")))
}

/// From here on the histogram's relative error holds.
const FINE_SECONDS: f64 = 1.024e-6;
/// What names of methods begin with.
const PASSIVE: &str = "passive_";
const DATA: &str = "passive_tcp_ack";
const SHAKE: &str = "passive_tcp_handshake";

fn place(of: &Explanation) -> String {
    let pair = &of.pair;
    let here = observed(pair);
    let at = of.containers.iter().find(|container| here.id.as_ref() == Some(&container.id));
    let mut text = format!("Counted at {}'s port", name(here));
    if let Some(container) = at {
        let networks: Vec<String> = networks(pair, container)
            .into_iter()
            .map(|network| match &network.interface {
                Some(interface) => format!("{} on {}", harmless(interface), harmless(&network.name)),
                None => harmless(&network.name).into_owned(),
            })
            .collect();
        if !networks.is_empty() {
            let _ = write!(text, " ({})", networks.join(", "));
        }
    }
    text.push_str(", both directions");
    let tapped = |container: &Container| container.networks.iter().any(|network| network.tapped_at.is_some());
    let other = of.containers.iter().find(|container| remote(pair).id.as_ref() == Some(&container.id));
    if other.is_some_and(tapped) {
        let _ = write!(text, ", and not a second time at {}'s", name(remote(pair)));
    }
    match at.map(|container| container.monitor.as_ref()) {
        Some(Some(monitor)) => {
            let _ = write!(text, ". Read by the monitoring container {}.", harmless(monitor));
        }
        Some(None) => {
            text.push_str(". Read by conmond itself: no monitoring container serves this port yet.")
        }
        None if here.kind == EndpointKind::Container => {
            text.push_str(". The container has gone, or the engine has not named it yet.");
        }
        None => text.push('.'),
    }
    for network in at.map(|container| networks(pair, container)).unwrap_or_default() {
        match (network.tapped_at, network.link_up_at) {
            (Some(tapped), Some(up)) if tapped <= up => {
                text.push_str(" The tap was in place before the link came up: nothing passed unseen.");
            }
            (Some(tapped), _) => {
                let _ = write!(
                    text,
                    " The tap is there since {}; what passed before is not counted.",
                    moment(tapped)
                );
            }
            (None, _) => {}
        }
    }
    text
}

/// The container's networks that this pair can have used: those with an address seen in it.
fn networks<'a>(pair: &Pair, container: &'a Container) -> Vec<&'a Network> {
    let seen = &observed(pair).addresses;
    let used = |network: &&Network| network.addresses.iter().any(|address| seen.contains(address));
    let some: Vec<&Network> = container.networks.iter().filter(used).collect();
    if some.is_empty() { container.networks.iter().collect() } else { some }
}

fn resent(pair: &Pair) -> Option<(String, Tone)> {
    let retransmitted = pair.retransmitted_segments?;
    let segments = judge::segments(pair);
    let mut text = if retransmitted == 0 {
        "No TCP segment was sent again.".to_owned()
    } else {
        let mut text = format!(
            "{} of {} segments ({})",
            count(retransmitted),
            count(segments),
            share(retransmitted, segments)
        );
        if let (Some(sent), Some(received)) =
            (pair.sent_retransmitted_segments, pair.received_retransmitted_segments)
        {
            let _ = write!(
                text,
                ": {} by {}, {} by {}",
                count(sent),
                name(&pair.src),
                count(received),
                name(&pair.dst)
            );
        }
        text + "."
    };
    if let Some(reordered) = pair.reordered_segments.filter(|number| *number > 0) {
        let _ = write!(text, " {} arrived after ones sent later.", count(reordered));
    }
    text.push_str(
        " Counted is data that passed this port a second time. That is not loss: TCP's own probes, early timeouts and \
         duplicates look the same, and what was lost on its way to the port passes it once.",
    );
    Some((text, judge::resent(retransmitted, segments)))
}

fn unknown(of: &Explanation) -> Vec<String> {
    let pair = &of.pair;
    let tcp = pair.protocols.iter().any(|protocol| protocol == "tcp");
    let mut items = Vec::new();
    let [away, near, shake, _] = legs(pair);
    if away.summary.is_none() && near.summary.is_none() && shake.summary.is_none() {
        items.push(if tcp {
            "The round-trip delay: no TCP data was acknowledged while the tap was there.".to_owned()
        } else {
            format!(
                "The round-trip delay: {} has no acknowledgement in its packets that could be timed.",
                harmless(&pair.protocols.join(", "))
            )
        });
    } else if away.summary.is_none() {
        items.push(format!(
            "The round trip over the network: {} has acknowledged no data of {} yet.",
            name(away.to),
            name(observed(pair))
        ));
    } else if near.summary.is_none() {
        items.push(format!("The near leg: {} has acknowledged no data yet.", name(near.to)));
    }
    if tcp && pair.protocols.len() > 1 {
        items.push(format!("Delay and retransmission of what is not TCP ({}).", not_tcp(pair)));
    }
    if !tcp {
        items.push("Whether anything was sent again: only TCP tells.".to_owned());
    }
    items.push(
        "How many packets were lost, and each direction's own delay: one port alone cannot tell; that takes both ends."
            .to_owned(),
    );
    items.push("What was said: ConMon reads headers, never payload.".to_owned());
    if pair.role_guessed {
        items.push("Who opened it, for certain: see above.".to_owned());
    }
    if pair.sent_bytes_per_second.is_none() {
        items.push("The present rates: they need two readings, a second apart.".to_owned());
    }
    for end in [&pair.src, &pair.dst] {
        if end.kind == EndpointKind::External && !end.is_multicast() {
            items.push(format!(
                "Who {} is: {} no container's here. Behind NAT or Docker's proxy it is the translator's, not the \
                 peer's.",
                name(end),
                if end.addresses.len() == 1 { "the address is" } else { "the addresses are" }
            ));
        }
    }
    for host in of.hosts.iter().filter(|host| !host.complete) {
        items.push(format!("All of it: host {} did not answer in full.", harmless(&host.name)));
    }
    items
}

fn not_tcp(pair: &Pair) -> String {
    let others: Vec<&str> =
        pair.protocols.iter().map(String::as_str).filter(|protocol| *protocol != "tcp").collect();
    harmless(&others.join(", ")).into_owned()
}

fn next(of: &Explanation) -> Vec<String> {
    let pair = &of.pair;
    let (src, dst) = (harmless(&pair.src.name), harmless(&pair.dst.name));
    let mut items = vec![
        format!(
            "`conmonctl flows --src {src} --dst {dst}`: {}",
            match pair.flows {
                1 => "its flow".to_owned(),
                flows => format!("its {} flows", count(flows)),
            }
        ),
        format!(
            "`conmonctl explain {src} {dst} --watch`: this, live; `conmonctl top` and Enter: with the distribution"
        ),
    ];
    if order::total_bytes(pair) > 0
        && judge::resent(pair.retransmitted_segments.unwrap_or(0), judge::segments(pair)) == Tone::Bad
    {
        items.push("`conmonctl pairs --sort retr`: whether others are hit too".to_owned());
    }
    if of.opposite.is_some() {
        items.push(format!("`conmonctl explain {dst} {src}`: the other way"));
    }
    items.push("`conmonctl doctor`: whether what is counted can be trusted".to_owned());
    items
}
