//! What another host is told of a conversation with it: the end that is here.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use conmon::api::{Conversation, End, EndpointKind, EndsAnswer, EndsQuestion, Socket};
use ippm::time::Timestamp;

use crate::discovery;
use crate::nat::{Place, RemoteEnd, Seen, Side, Translations, Wire};
use crate::store::Names;

/// A connection's translation was told this long after its first packet, at the latest; until then a host's own address may
/// be a container's mask.
const SETTLED: Duration = Duration::from_millis(500);
/// Who hears of connections so much later is late: what he has not heard of yet may be a mask after any time.
const LATE: Duration = Duration::from_millis(250);
/// Longest text that is taken from another host, bytes.
const MAX_TEXT_BYTES: usize = 256;

pub(super) fn place(at: Socket) -> Place {
    (at.address.to_canonical(), at.port)
}

pub(super) fn socket((address, port): Place) -> Socket {
    Socket { address, port }
}

/// Whether the translation of a conversation with this first packet is known here, if it has one and is old enough.
pub(super) fn has_heard(translations: &Translations, first: Timestamp, now: Timestamp) -> bool {
    translations.heard_until() >= now.min(first + SETTLED).before(LATE)
}

/// Answers what the host of this name asks, and takes its word for its own ends. `is_askers` tells whether an address is one of the
/// asking host's: of conversations that are not its own nothing is learnt.
pub fn answer(
    names: &Names,
    translations: &mut Translations,
    asker: &str,
    is_askers: impl Fn(IpAddr) -> bool,
    question: &EndsQuestion,
    now: Timestamp,
) -> EndsAnswer {
    let one = |conversation: &Conversation| {
        let (seen, here, first) = end(names, translations, conversation, now)?;
        let theirs = if conversation.asker_opened { conversation.opener } else { conversation.called };
        if is_askers(theirs.address.to_canonical())
            && let Some((place, end)) = taken(asker, &conversation.asker)
        {
            discovery::named(&seen, &end);
            translations.abroad.insert(seen, place, Arc::new(end), first);
        }
        Some(End {
            kind: here.kind,
            name: here.name,
            id: here.id,
            service: here.service,
            tenant: here.tenant,
            at: socket(seen.near),
        })
    };
    let ends = question.conversations.iter().take(EndsQuestion::MOST).map(one).collect();
    EndsAnswer { host: names.host().to_owned(), ends }
}

/// The end here of a conversation with another host, how it sees it, and since when.
fn end(
    names: &Names,
    translations: &Translations,
    conversation: &Conversation,
    now: Timestamp,
) -> Option<(Seen, RemoteEnd, Timestamp)> {
    let age = |seconds: f64| Duration::try_from_secs_f64(seconds).ok();
    let first = now.before(age(conversation.first_seen_age_seconds)?);
    let last = now.before(age(conversation.last_seen_age_seconds)?);
    let wire = Wire {
        proto: conversation.protocol,
        opener: place(conversation.opener),
        called: place(conversation.called),
    };
    let side = if conversation.asker_opened { Side::Called } else { Side::Opener };
    let translated = translations.end(wire, side, first, last);
    let seen = translated.unwrap_or(Seen {
        proto: wire.proto,
        near: wire.place(side),
        far: wire.place(side.other()),
    });
    let end = names.end_during(seen.near.0, first, last)?;
    let may_be_masked = translated.is_none()
        && end.kind == EndpointKind::Host
        && (now - first < SETTLED || !has_heard(translations, first, now));
    (!may_be_masked).then_some((seen, end, first))
}

/// What a host says of its own end; none if it cannot be.
pub(super) fn taken(host: &str, end: &End) -> Option<(Place, RemoteEnd)> {
    let fits =
        |text: &str| !text.is_empty() && text.len() <= MAX_TEXT_BYTES && !text.chars().any(char::is_control);
    let all = [Some(&end.name), end.id.as_ref(), end.service.as_ref(), end.tenant.as_ref()];
    if !all.into_iter().flatten().all(|text| fits(text)) {
        return None;
    }
    let remote = match end.kind {
        EndpointKind::Container => RemoteEnd {
            kind: EndpointKind::Container,
            host: host.to_owned(),
            name: end.name.clone(),
            id: Some(end.id.clone()?),
            service: end.service.clone(),
            tenant: end.tenant.clone(),
        },
        // it is who its certificate says, whatever it calls itself
        EndpointKind::Host => RemoteEnd::of_host(host),
        _ => return None,
    };
    Some((place(end.at), remote))
}
