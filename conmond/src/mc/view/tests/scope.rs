//! What a tenant is shown, with another tenant on the same host: nothing that names the other.

use conmon::api::{Endpoint, EndpointKind};
use serde::Serialize;

use super::*;
use crate::config::MetricsLevel;
use crate::export::prometheus::{Exporter, ExporterSettings};
use crate::http::HttpTotals;

const BLOG: SetId = SetId(4);
/// What only the other tenant may read.
const OTHERS: [&str; 6] = ["blog", "db", "veth8", "pm-s4", "8.8.8.8", "s4"];

/// `web` is shop's, `db` is blog's, each with a monitor of its own. web talks to db, somebody outside to db.
fn two_tenants() -> View {
    let mut p = published();
    Arc::make_mut(&mut p.containers[1]).tenant = "blog".to_owned();
    let ports = Arc::make_mut(&mut p.ports);
    ports[1].tenant = Some("blog".to_owned());
    ports[1].set = BLOG;
    let (_, mut monitor, alive) = p.monitors[1].clone();
    (monitor.name, monitor.tenant) = ("pm-s4".to_owned(), Some("blog".to_owned()));
    Arc::make_mut(&mut p.monitors).push((BLOG, monitor, alive));
    let mut set = p.sets[1].clone();
    (set.id, set.role, set.tenant) = (BLOG, SetRole::Tenant("blog".to_owned()), Some("blog".to_owned()));
    Arc::make_mut(&mut p.sets).push(set);
    p.restarts = BTreeMap::from([("blog".to_owned(), 3), ("shop".to_owned(), 1)]);
    p.problems = vec!["db of blog has no tap".to_owned()];
    let v = view(p);
    let mut all = batch();
    all.events = all.flows.iter().map(ended).collect();
    // what db's own port saw of the same conversation, and of the outside
    let seen_at_db = pair(0, 8, (address(2), address(1)), 6, Role::RemoteOpened, 5, 10);
    let outside = all.pairs.pop().expect("three pairs");
    let at_db = Batch {
        pairs: vec![seen_at_db, outside],
        rtts: Vec::new(),
        flows: Vec::new(),
        events: Vec::new(),
        ..batch()
    };
    let mut flow_at_db = ended(&flow(9, 7));
    (flow_at_db.key.ifindex, flow_at_db.key.local, flow_at_db.key.remote) =
        (8, address(2), IpAddr::from([8, 8, 8, 8]));
    v.shared.store().apply(SHOP, &all);
    v.shared.store().apply(BLOG, &Batch { events: vec![flow_at_db], ..at_db });
    v
}

fn shop() -> Scope {
    Scope::Tenant("shop".into())
}

/// The answer as its reader gets it, held against what is not its reader's.
fn told<A: Serialize>(what: &str, answer: &A) -> String {
    let text = serde_json::to_string(answer).unwrap();
    for word in OTHERS {
        let quoted = format!("\"{word}");
        assert!(!text.contains(&quoted), "{what} tells a tenant of {word}: {text}");
    }
    text
}

#[test]
fn no_answer_names_another_tenant() {
    let v = two_tenants();
    let containers = v.containers(&shop(), &ContainersQuery::default()).unwrap();
    assert!(told("containers", &containers).contains("\"web\""));
    assert!(told("monitors", &v.monitors(&shop()).unwrap()).contains("pm-s2"));
    for level in [Level::Container, Level::Service, Level::Host, Level::Tenant] {
        let pairs = v.pairs(&shop(), &PairsQuery { level: Some(level), ..PairsQuery::default() }).unwrap();
        told("pairs", &pairs);
        assert_eq!(pairs.pairs.len(), 1, "{level:?}");
        let row = &pairs.pairs[0];
        assert_eq!((row.sent.packets, row.received.packets), (12, 6), "as web's own port saw it");
        assert_eq!((row.dst.kind, row.dst.name.as_str()), (EndpointKind::External, Endpoint::ANOTHER_TENANT));
    }
    let flows = v.flows(&shop(), &FlowsQuery::default()).unwrap();
    told("flows", &flows);
    assert_eq!((flows.matched, flows.flows.len()), (3, 3), "what is not the tenant's is not counted either");
    let measurements = v.measurements(&shop(), &MeasurementsQuery::default()).unwrap();
    told("measurements", &measurements);
    assert_eq!(measurements.measurements.len() as u64, measurements.matched);
    let health = v.health(&shop());
    told("health", &health);
    assert_eq!(
        (health.status, health.problems.len()),
        (HealthState::Degraded, 1),
        "that something is wrong is told"
    );
    for refused in [v.status(&shop()).map(|_| ()), v.doctor(&shop()).map(|_| ())] {
        assert_eq!(refused.unwrap_err().status, 403);
    }
}

/// A filter must not tell whether something is there that is not shown.
#[test]
fn filters_find_nothing_that_is_not_shown() {
    let v = two_tenants();
    for dst in ["db", "db-id"] {
        let query = PairsQuery { dst: Some(dst.to_owned()), ..PairsQuery::default() };
        assert!(v.pairs(&shop(), &query).unwrap().pairs.is_empty(), "{dst}");
        let query = FlowsQuery { dst: Some(dst.to_owned()), ..FlowsQuery::default() };
        assert_eq!(v.flows(&shop(), &query).unwrap().matched, 0, "{dst}");
    }
    let query = PairsQuery { tenant: Some("blog".to_owned()), ..PairsQuery::default() };
    assert!(v.pairs(&shop(), &query).unwrap().pairs.is_empty());
    assert_eq!(v.pairs(&Scope::All, &query).unwrap().pairs.len(), 2, "they are there");
    let query = ContainersQuery { tenant: Some("blog".to_owned()) };
    assert!(v.containers(&shop(), &query).unwrap().containers.is_empty());
}

/// The tenant whose own port saw less than the other's is shown its conversation, too.
#[test]
fn the_called_side_sees_the_same_conversation() {
    let v = two_tenants();
    let pairs = v.pairs(&Scope::Tenant("blog".into()), &PairsQuery::default()).unwrap().pairs;
    let names: Vec<_> = pairs.iter().map(|p| (p.src.name.as_str(), p.dst.name.as_str())).collect();
    assert_eq!(names, [("external", "db"), (Endpoint::ANOTHER_TENANT, "db")]);
    assert_eq!(pairs[1].sent.packets, 12);
}

#[test]
fn metrics_are_the_tenants_own() {
    let v = two_tenants();
    let settings = ExporterSettings {
        level: MetricsLevel::Container,
        max_series: 100,
        retention: Duration::from_secs(60),
    };
    let scrape = |scope: &Scope| {
        let totals = HttpTotals::default();
        Exporter::new(settings.clone()).render(&v, scope, totals, jiff::Timestamp::now()).unwrap()
    };
    let (all, own) = (scrape(&Scope::All), scrape(&shop()));
    for word in OTHERS {
        assert!(!own.contains(&format!("\"{word}")), "{word}: {own}");
    }
    assert!(own.contains("conmon_pair_packets_total{src=\"web\",dst=\"external\",tenant=\"shop\""), "{own}");
    assert!(own.contains("conmon_containers{tenant=\"shop\"}") || own.contains("conmon_monitors"), "{own}");
    for host in [
        "conmon_build_info{",
        "conmon_memory_bytes{",
        "conmon_engine_connected 1",
        "conmon_tap_delay_seconds_count",
    ] {
        assert!(!own.contains(host), "{host} is the host's: {own}");
    }
    assert!(all.contains("tenant=\"blog\"") && all.contains("conmon_engine_connected 1"), "{all}");
}
