//! What one row of the table is: its identity over time, and what a filter finds it by.

use std::cell::OnceCell;

use conmon::api::{Endpoint, EndpointKind, Pair};
use unicode_width::UnicodeWidthStr;

use crate::format::harmless;
use crate::order::by_name;
use crate::view::endpoint;

/// What makes a row the same row in the next answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey {
    src: EndKey,
    dst: EndKey,
}

type EndKey = (EndpointKind, String, Option<String>);

impl RowKey {
    /// A pair's.
    pub fn of(pair: &Pair) -> Self {
        let end = |end: &Endpoint| (end.kind, end.name.clone(), end.id.clone());
        Self { src: end(&pair.src), dst: end(&pair.dst) }
    }

    /// Whether it is this pair's, found out without a copy.
    pub fn is(&self, pair: &Pair) -> bool {
        self.has(&pair.src, &pair.dst)
    }

    /// Whether these are its ends.
    pub fn has(&self, src: &Endpoint, dst: &Endpoint) -> bool {
        let same = |key: &EndKey, end: &Endpoint| key.0 == end.kind && key.1 == end.name && key.2 == end.id;
        same(&self.src, src) && same(&self.dst, dst)
    }

    /// What the API finds the two ends by.
    pub fn handles(&self) -> (String, String) {
        let handle = |key: &EndKey| key.2.clone().unwrap_or_else(|| key.1.clone());
        (handle(&self.src), handle(&self.dst))
    }
}

/// Whether a pair of containers is part of a pair of services, tenants or hosts.
pub fn is_part(part: &Pair, whole: &Pair) -> bool {
    let within = |part: &Endpoint, whole: &Endpoint| match whole.kind {
        EndpointKind::Service => {
            part.kind == EndpointKind::Container
                && part.service.as_ref() == Some(&whole.name)
                && part.tenant == whole.tenant
        }
        EndpointKind::Tenant => {
            part.kind == EndpointKind::Container && part.tenant.as_ref() == Some(&whole.name)
        }
        // At another level the containers of a host are it, too.
        EndpointKind::Host => {
            matches!(part.kind, EndpointKind::Container | EndpointKind::Host)
                && part.host.as_ref().unwrap_or(&part.name) == &whole.name
        }
        EndpointKind::Container | EndpointKind::External | EndpointKind::Dns => {
            part.kind == whole.kind && part.name == whole.name
        }
    };
    within(&part.src, &whole.src) && within(&part.dst, &whole.dst)
}

/// What is known of an answer's pairs beside the pairs.
#[derive(Debug, Default)]
pub struct Rows {
    /// One for each pair, in the answer's order.
    all: Vec<Row>,
    /// Their ranks by name.
    pub names: Vec<u32>,
}

#[derive(Debug)]
struct Row {
    multicast: bool,
    /// The columns its two names take.
    widths: [usize; 2],
    /// All words of a row, lower case; made when a filter first asks.
    text: OnceCell<String>,
}

impl Rows {
    /// Of these pairs.
    pub fn of(pairs: &[Pair]) -> Self {
        let width = |end: &Endpoint| harmless(&endpoint(end)).width();
        let row = |pair: &Pair| Row {
            multicast: pair.src.is_multicast() || pair.dst.is_multicast(),
            widths: [width(&pair.src), width(&pair.dst)],
            text: OnceCell::new(),
        };
        Self { all: pairs.iter().map(row).collect(), names: by_name(pairs) }
    }

    /// The columns that the widest names of some take.
    pub fn widest(&self, rows: &[usize]) -> [usize; 2] {
        rows.iter().map(|at| self.all[*at].widths).fold([0; 2], |a, b| [a[0].max(b[0]), a[1].max(b[1])])
    }

    /// Whether one of them is multicast or link-local traffic.
    pub fn is_multicast(&self, at: usize) -> bool {
        self.all[at].multicast
    }

    /// Whether one has all words of a filter (lower case), and none of those after a `!`, in a name, tenant, service,
    /// host, protocol or address.
    pub fn admits(&self, at: usize, pair: &Pair, filter: &str) -> bool {
        let text = self.all[at].text.get_or_init(|| words(pair));
        filter.split_whitespace().all(|word| match word.strip_prefix('!') {
            Some("") => true,
            Some(unwanted) => !text.contains(unwanted),
            None => text.contains(word),
        })
    }
}

fn words(pair: &Pair) -> String {
    let mut text = pair.protocols.join("\n");
    for end in [&pair.src, &pair.dst] {
        text.push('\n');
        text.push_str(&endpoint(end));
        for word in [&end.tenant, &end.service, &end.host].into_iter().flatten() {
            text.push('\n');
            text.push_str(word);
        }
        for address in &end.addresses {
            text.push('\n');
            text.push_str(&address.to_string());
        }
    }
    text.to_lowercase()
}
