use std::collections::HashMap;

use conmon::api::EndpointKind;

use super::*;
use crate::nat::{Connection, Translations};
use crate::netlink::Ear;
use crate::store::{ContainerName, Names};
use crate::system::ends;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> Place {
    let at: std::net::SocketAddr = text.parse().unwrap();
    (at.ip(), at.port())
}

fn ms(n: u64) -> Timestamp {
    Timestamp(1_000_000_000 + n * 1_000_000)
}

/// A host with one container, of a name that tells the two apart, on an address that both have.
struct Site {
    names: Names,
    translations: Translations,
    resolver: Resolver,
    hosts: HashMap<IpAddr, Vec<String>>,
}

impl Known for (&Names, &Translations, &HashMap<IpAddr, Vec<String>>) {
    fn hosts(&self, address: IpAddr) -> Vec<String> {
        let all = self.2.get(&address).cloned().unwrap_or_default();
        all.into_iter().filter(|host| host != self.0.host()).collect()
    }

    fn is_known(&self, seen: &Seen, at: Timestamp) -> bool {
        self.1.abroad.knows(seen, at)
    }

    fn has_heard(&self, first: Timestamp, now: Timestamp) -> bool {
        ends::has_heard(self.1, first, now)
    }

    fn wire(&self, seen: Seen, side: Side, first: Timestamp, last: Timestamp) -> Wire {
        self.1.wire(seen, side, first, last)
    }

    fn near(&self, key: &FlowKey) -> Option<End> {
        let end = self.0.end_during(key.local, ms(0), ms(0))?;
        Some(End {
            kind: end.kind,
            name: end.name,
            id: end.id,
            service: end.service,
            tenant: end.tenant,
            at: socket((key.local, key.local_port)),
        })
    }
}

impl Site {
    fn new(host: &str, own: &str) -> Self {
        let mut names = Names::new(host, vec![]);
        names.set_container(ContainerName {
            id: format!("{host}-id"),
            name: format!("app-{host}"),
            tenant: "t".into(),
            service: None,
        });
        names.set_address(address("172.17.0.2"), &format!("{host}-id"), Timestamp::ZERO);
        names.set_host_addresses(vec![address(own)]);
        let hosts = [("192.0.2.1", "a"), ("192.0.2.2", "b")];
        let hosts = hosts.map(|(addr, name)| (address(addr), vec![name.to_owned()])).into();
        Self { names, translations: Translations::default(), resolver: Resolver::default(), hosts }
    }

    fn see(&mut self, flow: Flow, now: Timestamp) {
        self.resolver.seen(flow, now, &(&self.names, &self.translations, &self.hosts));
    }

    /// Asks `other` what is due; how many conversations that were.
    fn ask(&mut self, other: &mut Self, now: Timestamp) -> usize {
        let asked = self.resolver.questions(now, &(&self.names, &self.translations, &self.hosts));
        let host = self.names.host().to_owned();
        for asking in &asked {
            let is_askers = |a: IpAddr| other.hosts.get(&a).is_some_and(|all| all.contains(&host));
            let answer =
                ends::answer(&other.names, &mut other.translations, &host, is_askers, &asking.question, now);
            for learnt in self.resolver.answered(asking, Some(&answer), now) {
                self.translations.abroad.insert(learnt.seen, learnt.place, learnt.end, learnt.since);
            }
        }
        asked.iter().map(|a| a.seen.len()).sum()
    }

    fn far(&self, key: &FlowKey, at: Timestamp) -> Option<String> {
        self.translations.real(key, at, at)?.abroad.map(|end| format!("{}@{}", end.name, end.host))
    }
}

fn flow(near: &str, far: &str, role: Role, first: Timestamp) -> Flow {
    let ((local, local_port), (remote, remote_port)) = (at(near), at(far));
    let key = FlowKey { local, remote, local_port, remote_port, proto: 6, vlan: 0, ifindex: 1 };
    Flow { key, role, first, last: first }
}

fn connection(from: &str, to: &str, answering: &str, answered: &str) -> Connection {
    Connection { proto: 6, original: (at(from), at(to)), reply: (at(answering), at(answered)) }
}

#[test]
fn a_masqueraded_call_of_a_published_port_names_both_ends_by_one_question() {
    let (mut a, mut b) = (Site::new("a", "192.0.2.1"), Site::new("b", "192.0.2.2"));
    let caller = flow("172.17.0.2:4000", "192.0.2.2:8080", Role::LocalOpened, ms(0));
    let called = flow("172.17.0.2:80", "192.0.2.1:61000", Role::RemoteOpened, ms(0));
    a.translations
        .open(&connection("172.17.0.2:4000", "192.0.2.2:8080", "192.0.2.2:8080", "192.0.2.1:61000"), ms(0));
    b.translations
        .open(&connection("192.0.2.1:61000", "192.0.2.2:8080", "172.17.0.2:80", "192.0.2.1:61000"), ms(0));
    a.see(caller, ms(1));
    assert_eq!(a.ask(&mut b, ms(1)), 1);
    assert_eq!(a.far(&caller.key, ms(2)).as_deref(), Some("app-b@b"));
    assert_eq!(b.far(&called.key, ms(2)).as_deref(), Some("app-a@a"), "it was told with the question");
    // nothing is left to ask, on either side
    b.see(called, ms(3));
    assert_eq!((b.ask(&mut a, ms(3)), a.ask(&mut b, ms(100)), a.resolver.waiting()), (0, 0, 0));
}

#[test]
fn a_translation_that_is_heard_of_late_is_waited_for() {
    let (mut a, mut b) = (Site::new("a", "192.0.2.1"), Site::new("b", "192.0.2.2"));
    let caller = flow("172.17.0.2:4000", "192.0.2.2:8080", Role::LocalOpened, ms(0));
    a.see(caller, ms(1));
    assert_eq!(a.ask(&mut b, ms(1)), 1, "neither knows: as it is seen here it is nobody's");
    assert_eq!(a.far(&caller.key, ms(1)), None, "the host itself would be a guess");
    a.translations
        .open(&connection("172.17.0.2:4000", "192.0.2.2:8080", "192.0.2.2:8080", "192.0.2.1:61000"), ms(0));
    b.translations
        .open(&connection("192.0.2.1:61000", "192.0.2.2:8080", "172.17.0.2:80", "192.0.2.1:61000"), ms(0));
    assert_eq!(a.ask(&mut b, ms(5)), 0, "not yet due");
    assert_eq!(a.resolver.due(), Some(ms(11)));
    assert_eq!(a.ask(&mut b, ms(11)), 1);
    assert_eq!(a.far(&caller.key, ms(11)).as_deref(), Some("app-b@b"));
}

/// Who was kept from running for a while has the kernel's word of a translation before him yet, however long ago that was given.
#[test]
fn nobody_speaks_of_the_host_who_has_not_heard_all() {
    for is_asker in [true, false] {
        let (mut a, mut b) = (Site::new("a", "192.0.2.1"), Site::new("b", "192.0.2.2"));
        let caller = flow("172.17.0.2:4000", "192.0.2.2:8080", Role::LocalOpened, ms(0));
        let (socket, _teller) = std::io::pipe().unwrap();
        let ear = Arc::new(Ear::new(socket.into()));
        ear.heard(ms(0));
        let of_a = connection("172.17.0.2:4000", "192.0.2.2:8080", "192.0.2.2:8080", "192.0.2.1:61000");
        let of_b = connection("192.0.2.1:61000", "192.0.2.2:8080", "172.17.0.2:80", "192.0.2.1:61000");
        if is_asker {
            a.translations.hear_by(&ear);
            b.translations.open(&of_b, ms(0));
        } else {
            b.translations.hear_by(&ear);
            a.translations.open(&of_a, ms(0));
        }
        a.see(caller, ms(2000));
        let mut now = ms(2000);
        for _ in 0..3 {
            assert_eq!(a.ask(&mut b, now), usize::from(!is_asker));
            assert_eq!(a.far(&caller.key, now), None, "{is_asker}");
            now = a.resolver.due().unwrap();
        }
        if is_asker {
            a.translations.open(&of_a, ms(0));
        } else {
            b.translations.open(&of_b, ms(0));
        }
        ear.heard(now);
        assert_eq!(a.ask(&mut b, now), 1);
        assert_eq!(a.far(&caller.key, now).as_deref(), Some("app-b@b"));
    }
}

#[test]
fn who_calls_a_process_of_the_host_is_told_so_once_it_can_be_nothing_else() {
    let (mut a, mut b) = (Site::new("a", "192.0.2.1"), Site::new("b", "192.0.2.2"));
    let caller = flow("172.17.0.2:4000", "192.0.2.2:22", Role::LocalOpened, ms(0));
    a.translations
        .open(&connection("172.17.0.2:4000", "192.0.2.2:22", "192.0.2.2:22", "192.0.2.1:61000"), ms(0));
    a.see(caller, ms(1));
    let mut now = ms(1);
    while let Some(due) = a.resolver.due() {
        now = due;
        a.ask(&mut b, now);
    }
    assert!(now > ms(500) && now < ms(3000), "{now}");
    assert_eq!(a.far(&caller.key, now).as_deref(), Some("b@b"));
}

#[test]
fn of_several_hosts_with_the_address_the_one_that_has_the_conversation_answers() {
    let (mut a, mut b) = (Site::new("a", "192.0.2.1"), Site::new("b", "192.0.2.2"));
    let routed = address("10.9.0.7");
    b.names.set_address(routed, "b-id", Timestamp::ZERO);
    a.hosts.insert(routed, vec!["c".into(), "b".into()]);
    let caller = flow("172.17.0.2:4000", "10.9.0.7:80", Role::LocalOpened, ms(0));
    a.see(caller, ms(1));
    let known = (&a.names, &a.translations, &a.hosts);
    let asked = a.resolver.questions(ms(1), &known);
    assert_eq!(asked[0].host, "c");
    let nobody = EndsAnswer { host: "c".into(), ends: vec![None] };
    assert!(a.resolver.answered(&asked[0], Some(&nobody), ms(1)).is_empty());
    assert_eq!(a.ask(&mut b, ms(1)), 1, "the next host at once");
    assert_eq!(a.far(&caller.key, ms(2)).as_deref(), Some("app-b@b"));
}

#[test]
fn nobody_s_conversation_is_given_up_and_left_alone_for_a_while() {
    let (mut a, mut b) = (Site::new("a", "192.0.2.1"), Site::new("b", "192.0.2.2"));
    b.names.set_host_addresses(vec![]);
    let caller = flow("172.17.0.2:4000", "192.0.2.2:8080", Role::LocalOpened, ms(0));
    a.see(caller, ms(0));
    let (mut now, mut questions) = (ms(0), 0);
    while a.resolver.counters.given_up == 0 {
        now = a.resolver.due().unwrap();
        questions += a.ask(&mut b, now);
    }
    assert_eq!(questions, AGAIN.len() + 1);
    a.see(caller, now);
    assert_eq!(a.ask(&mut b, now + Duration::from_secs(59)), 0);
    let later = now + Duration::from_secs(61);
    assert_eq!((a.ask(&mut b, later), a.resolver.waiting()), (0, 0), "forgotten");
    a.see(caller, later);
    assert_eq!(a.ask(&mut b, later), 1, "and asked for again, while it goes on");
}

#[test]
fn a_host_speaks_for_itself_alone() {
    let (a, mut b) = (Site::new("a", "192.0.2.1"), Site::new("b", "192.0.2.2"));
    b.translations
        .open(&connection("192.0.2.1:61000", "192.0.2.2:8080", "172.17.0.2:80", "192.0.2.1:61000"), ms(0));
    let called = flow("172.17.0.2:80", "192.0.2.1:61000", Role::RemoteOpened, ms(0));
    let asker = End {
        kind: EndpointKind::Container,
        name: "liar".into(),
        id: Some("x".into()),
        service: None,
        tenant: None,
        at: socket(at("10.0.0.1:1")),
    };
    let question = |asker: End| EndsQuestion {
        conversations: vec![Conversation {
            protocol: 6,
            opener: socket(at("192.0.2.1:61000")),
            called: socket(at("192.0.2.2:8080")),
            asker_opened: true,
            first_seen_age_seconds: 0.0,
            last_seen_age_seconds: 0.0,
            asker,
        }],
    };
    let is_of = |host: &'static str| {
        let hosts = a.hosts.clone();
        move |address: IpAddr| hosts.get(&address).is_some_and(|all| all.contains(&host.to_owned()))
    };
    // host c says that a conversation of host a is its own
    ends::answer(&b.names, &mut b.translations, "c", is_of("c"), &question(asker.clone()), ms(1));
    assert_eq!(b.far(&called.key, ms(1)), None);
    // an end that cannot be
    let dns = End { kind: EndpointKind::Dns, ..asker.clone() };
    ends::answer(&b.names, &mut b.translations, "a", is_of("a"), &question(dns), ms(1));
    assert_eq!(b.far(&called.key, ms(1)), None);
    // a host that gives another's name is itself all the same
    let host = End { kind: EndpointKind::Host, name: "z".into(), ..asker.clone() };
    ends::answer(&b.names, &mut b.translations, "a", is_of("a"), &question(host), ms(1));
    assert_eq!(b.far(&called.key, ms(1)).as_deref(), Some("a@a"));
    // times that no clock has
    let mut odd = question(asker);
    odd.conversations[0].first_seen_age_seconds = f64::NAN;
    assert_eq!(ends::answer(&b.names, &mut b.translations, "a", is_of("a"), &odd, ms(1)).ends, [None]);
}

#[test]
fn what_waits_is_bounded_and_answers_must_fit() {
    let mut a = Site::new("a", "192.0.2.1");
    a.resolver = Resolver::new(2);
    for port in 1..=3 {
        a.see(flow(&format!("172.17.0.2:{port}"), "192.0.2.2:80", Role::LocalOpened, ms(0)), ms(0));
    }
    assert_eq!((a.resolver.waiting(), a.resolver.counters.full), (2, 1));
    let asked = a.resolver.questions(ms(0), &(&a.names, &a.translations, &a.hosts));
    let short = EndsAnswer { host: "b".into(), ends: vec![None] };
    let other = EndsAnswer { host: "c".into(), ends: vec![None, None] };
    for answer in [short, other] {
        assert!(a.resolver.answered(&asked[0], Some(&answer), ms(0)).is_empty());
    }
    assert_eq!(a.resolver.counters.refused, 2);
}
