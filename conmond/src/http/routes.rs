//! The routes, each with what it asks the source.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Extension;
use axum::Router;
use axum::body::Body;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use conmon::api::{
    ApiError, ContainersQuery, EndsQuestion, EventsQuery, FlowsQuery, HealthState, MatrixQuery,
    MeasurementsQuery, NDJSON, PairsQuery, path, protocol_name,
};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use super::connection::Conduct;
use super::gate::Asker;
use super::problem::Problem;
use super::query::{no_such_word, parse, shorten};
use super::server::{MAX_STREAMS, Shared};
use super::{events, source::Scoped};
use crate::config::suggest::nearest;
use crate::export::prometheus::CONTENT_TYPE;
use crate::scope::Scope;
use crate::system::sheet;

/// Longest question of another host that is read, bytes.
const QUESTION_BYTES: usize = 2 << 20;
/// Other hosts' parts of the matrix are waited for so long.
const MATRIX_DEADLINE: Duration = Duration::from_secs(3);

const PATHS: [&str; 16] = [
    path::CONTAINERS,
    path::MONITORS,
    path::PAIRS,
    path::MATRIX,
    path::ENDS,
    path::CLOCKS,
    path::CLOCK_SESSION,
    path::FLOWS,
    path::MEASUREMENTS,
    path::EVENTS,
    path::HEALTH,
    path::LEDGER,
    path::STATUS,
    path::DOCTOR,
    path::OPENAPI,
    path::METRICS,
];

#[derive(Clone)]
struct Api {
    shared: Arc<Shared>,
    shutdown: watch::Receiver<bool>,
}

/// Everything.
pub(super) fn api(shared: Arc<Shared>, shutdown: watch::Receiver<bool>) -> Router {
    let metrics = Router::new().route(path::METRICS, get(metrics)).with_state(Arc::clone(&shared));
    Router::new()
        .route(path::CONTAINERS, get(containers))
        .route(path::MONITORS, get(monitors))
        .route(path::PAIRS, get(pairs))
        .route(path::MATRIX, get(matrix))
        .route(path::ENDS, post(ends).layer(DefaultBodyLimit::max(QUESTION_BYTES)))
        .route(path::CLOCKS, get(clocks))
        .route(path::CLOCK_SESSION, post(clock_session).layer(DefaultBodyLimit::max(QUESTION_BYTES)))
        .route(path::FLOWS, get(flows))
        .route(path::MEASUREMENTS, get(measurements))
        .route(path::EVENTS, get(events))
        .route(path::HEALTH, get(health))
        .route(path::LEDGER, get(ledger))
        .route(path::STATUS, get(status))
        .route(path::DOCTOR, get(doctor))
        .route(path::OPENAPI, get(openapi))
        .with_state(Api { shared, shutdown })
        .merge(metrics)
        .method_not_allowed_fallback(wrong_method)
        .fallback(|uri: Uri| async move { no_such_path(&uri, &PATHS, "the API") })
}

/// The metrics alone, for the loopback port.
pub(super) fn metrics_only(shared: Arc<Shared>) -> Router {
    Router::new()
        .route(path::METRICS, get(metrics))
        .with_state(shared)
        .method_not_allowed_fallback(wrong_method)
        .fallback(|uri: Uri| async move {
            no_such_path(&uri, &[path::METRICS], "this port (the Unix socket serves the whole API)")
        })
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let error = format!("{} cannot be asked with {}", shorten(uri.path()), shorten(method.as_str()));
    let (allowed, remedy) = match uri.path() {
        path::ENDS | path::CLOCK_SESSION => ("POST", "use POST: the question is in the body"),
        _ => ("GET, HEAD", "use GET: the API only reads"),
    };
    let problem = ApiError { status: 405, error, remedy: Some(remedy.to_owned()) };
    ([(header::ALLOW, HeaderValue::from_static(allowed))], Problem(problem)).into_response()
}

fn no_such_path(uri: &Uri, paths: &[&str], what: &str) -> Problem {
    let asked = uri.path();
    let problem = ApiError::not_found(format!("{what} has no path `{}`", shorten(asked)));
    // The version and the slash at the end are the usual slips.
    let whole =
        |one: &&&str| one.trim_start_matches("/v1") == asked.trim_end_matches('/').trim_start_matches("/v1");
    let meant = paths.iter().find(whole).copied().or_else(|| nearest(asked, paths.iter().copied()));
    Problem(problem.with_remedy(match meant {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("there are {}", paths.join(", ")),
    }))
}

/// Calls the source, and writes what it says as a line of JSON.
async fn answer<T: Serialize>(
    api: &Api,
    asker: Asker,
    what: impl FnOnce(Scoped<'_>) -> Result<T, ApiError> + Send + 'static,
) -> Result<Response, Problem> {
    answer_with(api, asker, move |source| what(source).map(|value| (StatusCode::OK, value))).await
}

async fn answer_with<T: Serialize>(
    api: &Api,
    asker: Asker,
    what: impl FnOnce(Scoped<'_>) -> Result<(StatusCode, T), ApiError> + Send + 'static,
) -> Result<Response, Problem> {
    let (status, text) = api
        .shared
        .call(asker.0, move |source, _| {
            let (status, value) = what(source)?;
            let mut text = serde_json::to_vec(&value)
                .map_err(|error| ApiError::internal(format!("the answer cannot be written: {error}")))?;
            text.push(b'\n');
            Ok((status, text))
        })
        .await?;
    Ok((status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response())
}

/// Refuses parameters where there are none.
fn no_parameters(path: &str, query: Option<&str>) -> Result<(), Problem> {
    struct None;
    impl utoipa::IntoParams for None {
        fn into_params(
            _: impl Fn() -> Option<utoipa::openapi::path::ParameterIn>,
        ) -> Vec<utoipa::openapi::path::Parameter> {
            Vec::new()
        }
    }
    impl<'de> serde::Deserialize<'de> for None {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            serde::de::IgnoredAny::deserialize(deserializer).map(|_| None)
        }
    }
    parse::<None>(path, query).map(|_| ()).map_err(Problem)
}

async fn containers(
    State(api): State<Api>,
    asker: Asker,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query: ContainersQuery = parse(path::CONTAINERS, query.as_deref())?;
    answer(&api, asker, move |source| source.containers(&query)).await
}

async fn monitors(
    State(api): State<Api>,
    asker: Asker,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    no_parameters(path::MONITORS, query.as_deref())?;
    answer(&api, asker, |source| source.monitors()).await
}

async fn pairs(
    State(api): State<Api>,
    asker: Asker,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query: PairsQuery = parse(path::PAIRS, query.as_deref())?;
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    // a sheet has no room for distributions
    if accepts.split(',').any(|one| one.trim() == sheet::MEDIA_TYPE) && query.histograms != Some(true) {
        let octets = api
            .shared
            .call(asker.0, move |source, _| {
                let pairs = source.pairs(&query)?;
                sheet::octets_of(&pairs).map_err(|error| ApiError::internal(format!("{error:#}")))
            })
            .await?;
        let media_type = HeaderValue::from_static(sheet::MEDIA_TYPE);
        return Ok(([(header::CONTENT_TYPE, media_type)], octets).into_response());
    }
    answer(&api, asker, move |source| source.pairs(&query)).await
}

async fn matrix(
    State(api): State<Api>,
    asker: Asker,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query: MatrixQuery = parse(path::MATRIX, query.as_deref())?;
    let scope = asker.0.clone();
    let (mine, system) = api
        .shared
        .call(asker.0, |source, _| Ok((source.pairs(&PairsQuery::default())?, source.system())))
        .await?;
    let snapshot = match system {
        Some(system) => system.matrix(&mine, &scope, &query, MATRIX_DEADLINE).await,
        None => crate::system::alone(&mine, &query),
    };
    let snapshot = snapshot.map_err(|error| ApiError::internal(format!("{error:#}")))?;
    drop(mine);
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], Body::from_stream(snapshot.written())).into_response())
}

/// The host that asks, by its certificate.
fn of_host(asker: &Asker) -> Result<String, Problem> {
    match &asker.0 {
        Scope::Host(host) => Ok(host.to_string()),
        _ => Err(ApiError::forbidden("this is for the controllers of other hosts")
            .with_remedy("it takes a host's certificate (`conmonctl ca host NAME`)")
            .into()),
    }
}

fn no_system() -> ApiError {
    ApiError::unavailable("this conmond belongs to no system of several hosts")
        .with_remedy("set `registry` to `gossip` or `etcd` on this host, too")
}

async fn ends(State(api): State<Api>, asker: Asker, body: Bytes) -> Result<Response, Problem> {
    let host = of_host(&asker)?;
    let question: EndsQuestion = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad_request(format!("the question cannot be read: {error}")))?;
    if question.conversations.len() > EndsQuestion::MOST {
        let problem = ApiError::bad_request(format!(
            "{} conversations in one question; at most {} are answered",
            question.conversations.len(),
            EndsQuestion::MOST
        ));
        return Err(problem.with_remedy("ask several questions").into());
    }
    answer(&api, asker, move |source| match source.system() {
        Some(system) => Ok(system.ends(&host, &question)),
        None => Err(no_system()),
    })
    .await
}

async fn clocks(
    State(api): State<Api>,
    asker: Asker,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    no_parameters(path::CLOCKS, query.as_deref())?;
    answer(&api, asker, |source| source.clocks()).await
}

/// There is nothing to ask: who asks is told by its certificate.
async fn clock_session(State(api): State<Api>, asker: Asker, _: Bytes) -> Result<Response, Problem> {
    let host = of_host(&asker)?;
    answer(&api, asker, move |source| source.system().ok_or_else(no_system)?.clock_session(&host)).await
}

async fn flows(State(api): State<Api>, asker: Asker, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let query: FlowsQuery = parse(path::FLOWS, query.as_deref())?;
    answer(&api, asker, move |source| {
        let answer = source.flows(&query)?;
        match &query.protocol {
            Some(protocol) if answer.matched == 0 => {
                let known: Vec<_> = (0..=u8::MAX).map(protocol_name).collect();
                if known.iter().any(|name| name == protocol) {
                    return Ok(answer);
                }
                let plain = known.iter().map(AsRef::as_ref).filter(|name: &&str| !name.starts_with("ip-"));
                let hint = "protocols are written like `tcp`, `udp`, `icmp`, or `ip-N` with the number";
                Err(no_such_word("protocol", protocol, plain, hint))
            }
            _ => Ok(answer),
        }
    })
    .await
}

async fn measurements(
    State(api): State<Api>,
    asker: Asker,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query: MeasurementsQuery = parse(path::MEASUREMENTS, query.as_deref())?;
    answer(&api, asker, move |source| {
        let answer = source.measurements(&query)?;
        match &query.metric {
            Some(metric) if answer.matched == 0 && ippm::catalogue::metric(metric).is_none() => {
                let known = ippm::catalogue::METRICS.iter().map(|metric| metric.name);
                Err(no_such_word("metric", metric, known, "docs/metrics.md lists them"))
            }
            _ => Ok(answer),
        }
    })
    .await
}

async fn events(
    State(api): State<Api>,
    asker: Asker,
    Extension(conduct): Extension<Arc<Conduct>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query: EventsQuery = parse(path::EVENTS, query.as_deref())?;
    let Ok(place) = Arc::clone(&api.shared.streams).try_acquire_owned() else {
        let problem =
            ApiError::unavailable(format!("{MAX_STREAMS} event streams are open, which is the limit"));
        return Err(problem.with_remedy("end one of them").into());
    };
    let subscription = api.shared.call(asker.0, |source, _| Ok(source.subscribe())).await?;
    conduct.streams.store(true, Ordering::Relaxed);
    let body = events::body(subscription, query, api.shutdown.clone(), place);
    // A stream is the last that is served on its connection: the next request could not tell it from others.
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(NDJSON)),
        (header::CONNECTION, HeaderValue::from_static("close")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, body).into_response())
}

async fn health(
    State(api): State<Api>,
    asker: Asker,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    no_parameters(path::HEALTH, query.as_deref())?;
    answer_with(&api, asker, |source| {
        let health = source.health();
        let status = match health.status {
            HealthState::Ok | HealthState::Degraded => StatusCode::OK,
            HealthState::Starting => StatusCode::SERVICE_UNAVAILABLE,
        };
        Ok((status, health))
    })
    .await
    // 503 is for a daemon that starts and says so; one that cannot say anything has failed.
    .map_err(|Problem(problem)| Problem(ApiError { status: 500, ..problem }))
}

async fn ledger(
    State(api): State<Api>,
    asker: Asker,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    no_parameters(path::LEDGER, query.as_deref())?;
    answer(&api, asker, |source| source.ledger()).await
}

async fn status(
    State(api): State<Api>,
    asker: Asker,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    no_parameters(path::STATUS, query.as_deref())?;
    answer(&api, asker, |source| source.status()).await
}

async fn doctor(
    State(api): State<Api>,
    asker: Asker,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    no_parameters(path::DOCTOR, query.as_deref())?;
    answer(&api, asker, |source| source.doctor()).await
}

async fn openapi(
    State(api): State<Api>,
    asker: Asker,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    no_parameters(path::OPENAPI, query.as_deref())?;
    answer(&api, asker, |_| Ok(conmon::openapi())).await
}

async fn metrics(State(shared): State<Arc<Shared>>, asker: Asker) -> Result<Response, Problem> {
    // Parameters are passed over: a scrape job may carry some (`params`), and there is nothing to filter.
    let text = shared
        .call(asker.0, |source, shared| {
            shared.exporters.of(source.scope()).scrape(source, shared.totals(), Timestamp::now())
        })
        .await?;
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE))];
    Ok((headers, Body::from(text)).into_response())
}
