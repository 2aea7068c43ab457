//! Which logged step is which message between whom, and what leads to it.

use super::steps::Step;
use anyhow::{Result, ensure};
use lab::sequence::Message;
use std::net::IpAddr;

/// The hosts, in the order of their numbers.
const HOSTS: [&str; 2] = ["west", "east"];

/// A message, and the step that tells of it.
pub struct Rule {
    pub id: &'static str,
    /// Whose log has it.
    host: usize,
    step: &'static str,
    /// Values that its fields must have.
    with: Vec<(&'static str, String)>,
    /// The field with its time.
    time: &'static str,
    from: &'static str,
    to: &'static str,
    text: String,
    reply: bool,
    optional: bool,
    /// Messages that lead to it.
    pub after: Vec<&'static str>,
}

/// A message of host 0 or 1.
fn rule(
    id: &'static str,
    (host, step): (usize, &'static str),
    (from, to): (&'static str, &'static str),
    text: impl Into<String>,
) -> Rule {
    Rule {
        id,
        host,
        step,
        with: Vec::new(),
        time: "at_ns",
        from,
        to,
        text: text.into(),
        reply: false,
        optional: false,
        after: Vec::new(),
    }
}

impl Rule {
    fn with(mut self, field: &'static str, value: impl ToString) -> Self {
        self.with.push((field, value.to_string()));
        self
    }

    fn at(mut self, field: &'static str) -> Self {
        self.time = field;
        self
    }

    fn after(mut self, ids: &[&'static str]) -> Self {
        self.after.extend(ids);
        self
    }

    fn reply(mut self) -> Self {
        self.reply = true;
        self
    }

    fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// The first step that it is, and when that was.
    pub fn find(&self, steps: &[Step], after_ns: u64) -> Option<u64> {
        let fits = |step: &&Step| {
            step.is(self.step)
                && step.at("at_ns") >= Some(after_ns)
                && self.with.iter().all(|(field, value)| step.text(field).as_ref() == Some(value))
        };
        steps.iter().find(fits)?.at(self.time)
    }
}

/// What was found of some rules.
pub struct Found {
    /// In the order of their times.
    pub messages: Vec<Message>,
    /// What every run must have, and this one has not yet.
    pub missing: Vec<&'static str>,
}

/// Finds messages in what the two hosts logged after a time. Their times are since `first_ns`.
pub fn find(rules: &[Rule], logged: &[Vec<Step>; 2], after_ns: u64, first_ns: u64) -> Found {
    let mut found = Found { messages: Vec::new(), missing: Vec::new() };
    for rule in rules {
        match rule.find(&logged[rule.host], after_ns) {
            Some(at_ns) => found.messages.push(Message {
                id: rule.id.to_owned(),
                from: rule.from.to_owned(),
                to: rule.to.to_owned(),
                text: rule.text.clone(),
                // whole microseconds: what is written into a document is readable
                at_ms: (at_ns as f64 - first_ns as f64).div_euclid(1e3) / 1e3,
                reply: rule.reply,
                optional: rule.optional,
            }),
            None if rule.optional => {}
            None => found.missing.push(rule.id),
        }
    }
    found.messages.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
    found
}

/// One at least of some messages came before another.
pub fn is_led_to(messages: &[Message], id: &str, by: &[&str]) -> Result<()> {
    let at = |id: &str| messages.iter().find(|message| message.id == id).map(|message| message.at_ms);
    let first = by.iter().filter_map(|id| at(id)).reduce(f64::min);
    ensure!(
        first.is_some_and(|first| Some(first) <= at(id)),
        "nothing of {by:?} leads to {id}: {messages:#?}"
    );
    Ok(())
}

/// A flow's first packet at either end, and that its monitor tells of it. `far` is what the caller sees, `near` where the called one is.
fn flow_begins(far: &str, near: &str) -> Vec<Rule> {
    let begun = |id: &'static str, from_to: (&'static str, &'static str), text: &str, host: usize| {
        let (field, value) = if host == 0 { ("far", far) } else { ("near", near) };
        rule(id, (host, "flow_begun"), from_to, text).with(field, value)
    };
    vec![
        begun("first-west", ("caller", "pm-west"), "first packet: counted", 0).at("first_packet_ns"),
        begun("first-east", ("pm-east", "called"), "first packet: counted", 1)
            .at("first_packet_ns")
            .after(&["first-west"]),
        begun("begun-west", ("pm-west", "mc-west"), "a flow has begun", 0).after(&["first-west"]),
        begun("begun-east", ("pm-east", "mc-east"), "a flow has begun", 1).after(&["first-east"]),
    ]
}

/// web, which has the address `from`, sends to db, which has `to`.
pub fn by_address(from: IpAddr, to: IpAddr) -> Vec<Rule> {
    let db = format!("{to}:9000");
    let mut rules = flow_begins(&db, &db);
    let ask = |host: usize,
               ids: [&'static str; 3],
               mc: &'static str,
               address: IpAddr,
               who: &str,
               begun: &'static str| {
        let end = format!("{who} of {}", HOSTS[1 - host]);
        [
            rule(ids[0], (host, "registry_asked"), (mc, "registry"), format!("who has {address}?"))
                .with("address", address)
                .after(&[begun]),
            rule(ids[1], (host, "registry_answered"), ("registry", mc), format!("{end}; follows it"))
                .with("address", address)
                .with("who", &end)
                .after(&[ids[0]])
                .reply(),
            rule(ids[2], (host, "far_end_named"), (mc, mc), format!("far end named: {who}"))
                .with("address", address)
                .with("end", &end)
                .after(&[ids[1]]),
        ]
    };
    rules.extend(ask(0, ["asked-west", "answered-west", "named-west"], "mc-west", to, "db", "begun-west"));
    rules.extend(ask(1, ["asked-east", "answered-east", "named-east"], "mc-east", from, "web", "begun-east"));
    rules.extend(session(0, ("mc-west", "mc-east"), "named-west", SESSION_WEST));
    rules.extend(session(1, ("mc-east", "mc-west"), "named-east", SESSION_EAST));
    rules
}

const SESSION_WEST: [&str; 4] = ["session-west", "given-west", "opened-west", "probed-west"];
const SESSION_EAST: [&str; 4] = ["session-east", "given-east", "opened-east", "probed-east"];

/// A host asks the other for a session of test packets.
fn session(
    host: usize,
    (own, other): (&'static str, &'static str),
    named: &'static str,
    [asked, given, opened, probed]: [&'static str; 4],
) -> [Rule; 4] {
    let (us, them) = (HOSTS[host], HOSTS[1 - host]);
    [
        rule(asked, (host, "session_asked"), (own, other), "POST /v1/clock-session")
            .with("host", them)
            .after(&[named]),
        rule(given, (1 - host, "session_given"), (other, other), format!("session and key for {us}"))
            .with("asker", us)
            .after(&[asked]),
        rule(opened, (host, "session_opened"), (other, own), "its number and key")
            .with("host", them)
            .after(&[given])
            .reply(),
        rule(probed, (host, "test_packet_answered"), (other, own), "first test packet answered (UDP)")
            .after(&[opened])
            .reply(),
    ]
}

/// web, whose port is an interface, ends while it sends to db, which has the address `to`.
pub fn caller_stops(to: IpAddr, interface: &str) -> Vec<Rule> {
    vec![
        rule("port-gone", (0, "port_gone"), ("pm-west", "mc-west"), "its port is gone")
            .with("interface", interface),
        rule("ended", (0, "container_ended"), ("caller", "mc-west"), "has ended, says the engine")
            .with("container", "web"),
        rule("flow-ended-west", (0, "flow_ended"), ("pm-west", "mc-west"), "the flow has ended")
            .with("far", format!("{to}:9000")),
    ]
}

/// Nothing comes to db any more.
pub fn flow_expires(to: IpAddr) -> Vec<Rule> {
    vec![
        rule("flow-ended-east", (1, "flow_ended"), ("pm-east", "mc-east"), "the flow has ended")
            .with("near", format!("{to}:9000"))
            .with("reason", "idle_timeout"),
    ]
}

/// The address `from` is web's no more.
pub fn address_is_given_up(from: IpAddr) -> Vec<Rule> {
    let had = format!("web of west had {from}");
    vec![
        rule("row-sent", (0, "row_sent"), ("mc-west", "registry"), format!("web had {from}"))
            .with("says", &had)
            .after(&["ended"]),
        rule("row-written", (0, "row_written"), ("registry", "mc-west"), "written")
            .with("says", &had)
            .after(&["row-sent"])
            .reply(),
        rule("row-heard", (1, "row_heard"), ("registry", "mc-east"), format!("web had {from}"))
            .with("says", &had)
            .after(&["row-sent"]),
        rule(
            "records-end",
            (1, "address_changed_hands"),
            ("mc-east", "mc-east"),
            "what is counted with it ends",
        )
        .with("address", from)
        .after(&["row-heard"]),
    ]
}

/// cart sends to a published port `to` of east, behind which is stock, at the address `here`.
pub fn by_published_port(to: &str, here: IpAddr) -> Vec<Rule> {
    let mut rules = flow_begins(to, &format!("{here}:9000"));
    let offer =
        |host: usize, ids: [&'static str; 3], mc: [&'static str; 2], ends: [&str; 2], begun: &'static str| {
            let other = HOSTS[1 - host];
            [
                // what is asked first is answered first: the other host may have been quicker
                rule(
                    ids[0],
                    (host, "ends_asked"),
                    (mc[0], mc[1]),
                    format!("POST /v1/ends: {} is here; who is there?", ends[0]),
                )
                .with("host", other)
                .with("near", ends[0])
                .with("called", to)
                .after(&[begun])
                .optional(),
                rule(ids[1], (host, "ends_answered"), (mc[1], mc[0]), format!("{} is here", ends[1]))
                    .with("host", other)
                    .with("named", 1)
                    .after(&[ids[0]])
                    .reply()
                    .optional(),
                rule(ids[2], (host, "far_end_named"), (mc[0], mc[0]), format!("far end named: {}", ends[1]))
                    .with("end", format!("{} of {other}", ends[1])),
            ]
        };
    let (west, east) = (["mc-west", "mc-east"], ["mc-east", "mc-west"]);
    rules.extend(offer(
        0,
        ["offer-west", "answer-west", "named-west"],
        west,
        ["cart", "stock"],
        "begun-west",
    ));
    rules.extend(offer(
        1,
        ["offer-east", "answer-east", "named-east"],
        east,
        ["stock", "cart"],
        "begun-east",
    ));
    rules
}
