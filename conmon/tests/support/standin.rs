//! A stand-in for conmond: it listens on a Unix socket and answers every route with made-up traffic. Shared by
//! inclusion with the tests; needs `answers` beside it.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use conmon::api::{self, ApiError, EventKind, path};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Channel, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::UnixListener;

use super::answers;

/// How the stand-in behaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Behaviour {
    /// A doctor's check fails.
    pub ill: bool,
    /// It accepts and never answers.
    pub mute: bool,
    /// It answers pairs with something that is none.
    pub nonsense: bool,
    /// It has no pairs but this many made-up ones.
    pub many: Option<usize>,
}

type Body = BoxBody<Bytes, Infallible>;

/// Serves until it is dropped or aborted.
pub async fn serve(socket: &Path, behaviour: Behaviour) -> std::io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    let begin = Arc::new(Instant::now());
    loop {
        let (stream, _) = listener.accept().await?;
        let begin = Arc::clone(&begin);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let seconds = begin.elapsed().as_secs_f64() + 300.0;
                async move { Ok::<_, Infallible>(answer(request, behaviour, seconds).await) }
            });
            // A client that breaks off is not our trouble.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(request: Request<Incoming>, behaviour: Behaviour, seconds: f64) -> Response<Body> {
    if behaviour.mute {
        std::future::pending::<()>().await;
    }
    if request.method() != Method::GET {
        return refuse(ApiError { status: 405, error: "only GET is understood".to_owned(), remedy: None });
    }
    let query = request.uri().query().unwrap_or_default();
    match request.uri().path() {
        path::PAIRS if behaviour.nonsense => json(StatusCode::OK, &["not pairs"]),
        path::PAIRS => match serde_urlencoded::from_str::<api::PairsQuery>(query) {
            Ok(query) => {
                let mut answer = match behaviour.many {
                    Some(number) => answers::many_pairs(number),
                    None => answers::pairs_at_level(query.level.unwrap_or_default(), seconds),
                };
                answer.pairs.retain(|pair| query.admits(&pair.src, &pair.dst));
                if query.histograms == Some(true) {
                    answer.pairs = answer.pairs.into_iter().map(answers::with_histograms).collect();
                }
                json(StatusCode::OK, &answer)
            }
            Err(error) => unreadable(&error),
        },
        path::FLOWS => match serde_urlencoded::from_str::<api::FlowsQuery>(query) {
            Ok(query) => {
                let mut answer = answers::flows(seconds);
                answer.flows.retain(|flow| query.admits(flow));
                answer.matched = answer.flows.len() as u64;
                answer.flows.truncate(query.limit.unwrap_or(api::FlowsQuery::DEFAULT_LIMIT) as usize);
                json(StatusCode::OK, &answer)
            }
            Err(error) => unreadable(&error),
        },
        path::EVENTS => match serde_urlencoded::from_str::<api::EventsQuery>(query) {
            Ok(query) => events(query),
            Err(error) => unreadable(&error),
        },
        path::CONTAINERS => json(StatusCode::OK, &answers::containers(seconds)),
        path::MONITORS => json(StatusCode::OK, &answers::monitors(seconds)),
        path::CLOCKS => json(StatusCode::OK, &answers::clocks()),
        path::MEASUREMENTS => json(StatusCode::OK, &answers::measurements(seconds)),
        path::HEALTH => json(StatusCode::OK, &answers::health()),
        path::LEDGER => json(StatusCode::OK, &answers::ledger()),
        path::STATUS => json(StatusCode::OK, &answers::status(seconds)),
        path::DOCTOR => json(StatusCode::OK, &answers::doctor(!behaviour.ill)),
        path::METRICS => Response::new(Full::from("# no metrics\n").boxed()),
        other => {
            refuse(ApiError::not_found(format!("there is no {other}")).with_remedy("see /v1/openapi.json"))
        }
    }
}

fn events(query: api::EventsQuery) -> Response<Body> {
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(4);
    tokio::spawn(async move {
        let kinds = [EventKind::ContainerStarted, EventKind::PortTapped, EventKind::PortNamed];
        for sequence in 1.. {
            let event = answers::event(sequence, kinds[sequence as usize % kinds.len()]);
            if query.admits(&event) {
                let Ok(mut line) = serde_json::to_vec(&event) else { return };
                line.push(b'\n');
                // Lines come in pieces, as they may from any server.
                let rest = line.split_off(line.len() / 2);
                if sender.send_data(line.into()).await.is_err()
                    || sender.send_data(rest.into()).await.is_err()
                {
                    return;
                }
            }
            if sequence >= 3 {
                if query.follow != Some(true) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    });
    Response::new(body.boxed())
}

fn unreadable(error: &serde_urlencoded::de::Error) -> Response<Body> {
    refuse(ApiError::bad_request(format!("cannot read the query: {error}")))
}

fn refuse(problem: ApiError) -> Response<Body> {
    json(StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &problem)
}

fn json<A: Serialize>(status: StatusCode, answer: &A) -> Response<Body> {
    let text = serde_json::to_vec(answer).expect("answers are serialisable");
    let mut response = Response::new(Full::from(text).boxed());
    *response.status_mut() = status;
    response
}
