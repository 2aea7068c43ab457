//! The OpenAPI document, from the types and from one undone function for each route. The server mounts the same paths
//! (`super::path`); a test holds each constant against this document, and the document against the golden file.
#![expect(
    dead_code,
    reason = "the functions carry the routes' documentation; the macros read them, nobody calls them"
)]

use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::{
    ApiError, ClockSession, ClocksAnswer, ContainersAnswer, ContainersQuery, DoctorAnswer, EndsAnswer,
    EndsQuestion, Event, EventsQuery, FlowsAnswer, FlowsQuery, Health, LedgerAnswer, MatrixAnswer,
    MatrixQuery, MeasurementsAnswer, MeasurementsQuery, MonitorsAnswer, PairsAnswer, PairsQuery, Status,
};

/// The OpenAPI document of the API this version of ConMon serves.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "ConMon",
        description = "Which container talks to which, how much, and how fast the network answers. \
            Base units, with the unit in the name; times in RFC 3339, UTC; what was not measured is absent. \
            On the host's own Unix socket nobody is asked who they are. Over TLS a client certificate or a tenant's \
            token is needed; with a token there is nothing in the answers but that tenant's rows.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
        contact(name = "ConMon", url = "https://github.com/conmon/conmon"),
    ),
    modifiers(&Security),
    paths(
        containers,
        monitors,
        pairs,
        matrix,
        ends,
        clocks,
        clock_session,
        flows,
        measurements,
        events,
        health,
        ledger,
        status,
        doctor,
        openapi_document,
        metrics
    )
)]
struct Document;

/// Who may ask, over TLS.
struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let mut token = Http::new(HttpAuthScheme::Bearer);
        token.description = Some(
            "A tenant's token (`conmonctl ca tenant-token`). Answers hold that tenant's rows only; what is about the \
             whole host is refused with 403."
                .to_owned(),
        );
        let certificate = SecurityScheme::MutualTls {
            description: Some(
                "A client certificate whose subject alternative names hold `conmon://host/NAME` (a host's conmond) or \
                 `conmon://operator/NAME`. Both see everything."
                    .to_owned(),
            ),
            deprecated: None,
            extensions: None,
        };
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(CERTIFICATE, certificate);
        components.add_security_scheme(TOKEN, SecurityScheme::Http(token));
        let either =
            [CERTIFICATE, TOKEN].map(|name| SecurityRequirement::new::<_, [&str; 0], &str>(name, []));
        for item in document.paths.paths.values_mut() {
            for operation in
                [&mut item.get, &mut item.post, &mut item.put, &mut item.delete].into_iter().flatten()
            {
                operation.security.get_or_insert_with(|| either.to_vec());
                for (status, description) in [
                    ("401", "Over TLS: neither a certificate nor a token that is known"),
                    ("403", "Over TLS: who asks may not see this, or not speak for that host"),
                    ("426", "No version of the protocol in common"),
                ] {
                    let answer = ResponseBuilder::new().description(description).content(
                        "application/json",
                        ContentBuilder::new().schema(Some(Ref::from_schema_name("ApiError"))).build(),
                    );
                    operation.responses.responses.entry(status.to_owned()).or_insert_with(|| answer.into());
                }
            }
        }
    }
}

const CERTIFICATE: &str = "certificate";
const TOKEN: &str = "tenant_token";

/// Application containers, and where and since when each is tapped.
#[utoipa::path(get, path = "/v1/containers", params(ContainersQuery), responses(
    (status = 200, description = "The containers", body = ContainersAnswer),
    (status = "4XX", description = "The request cannot be understood", body = ApiError),
    (status = "5XX", description = "No answer now", body = ApiError),
))]
fn containers() {}

/// Monitoring containers, and the pool of those that wait.
#[utoipa::path(get, path = "/v1/monitors", responses(
    (status = 200, description = "The monitoring containers", body = MonitorsAnswer),
    (status = "5XX", description = "No answer now", body = ApiError),
))]
fn monitors() {}

/// Who talks to whom, how much, and how fast the network answers.
#[utoipa::path(get, path = "/v1/pairs", params(PairsQuery), responses(
    (status = 200, description = "The pairs, the one with most bytes first", body = PairsAnswer),
    (status = "4XX", description = "The request cannot be understood", body = ApiError),
    (status = "5XX", description = "No answer now", body = ApiError),
))]
fn pairs() {}

/// Who talks to whom on all hosts, with what each of the two ends' hosts counted. Hosts that do not answer in time are named.
#[utoipa::path(get, path = "/v1/matrix", params(MatrixQuery), responses(
    (status = 200, description = "The pairs, the one with most bytes first", body = MatrixAnswer),
    (status = "4XX", description = "The request cannot be understood", body = ApiError),
    (status = "5XX", description = "No answer now", body = ApiError),
))]
fn matrix() {}

/// For the controllers of other hosts: who is behind the far ends of conversations with this one. Takes a host's certificate.
#[utoipa::path(post, path = "/v1/ends", request_body = EndsQuestion, responses(
    (status = 200, description = "The ends that are here, in the question's order", body = EndsAnswer),
    (status = "4XX", description = "The request cannot be understood, or who asks is no host", body = ApiError),
    (status = "5XX", description = "No answer now", body = ApiError),
))]
fn ends() {}

/// How the clocks of hosts that talk with this one relate to its own, with hard bounds.
#[utoipa::path(get, path = "/v1/clocks", responses(
    (status = 200, description = "The other hosts' clocks, by host", body = ClocksAnswer),
    (status = "4XX", description = "The request cannot be understood", body = ApiError),
    (status = "5XX", description = "No answer now", body = ApiError),
))]
fn clocks() {}

/// For the controllers of other hosts: a session in which their test packets (RFC 8762) are answered. Takes a host's certificate.
#[utoipa::path(post, path = "/v1/clock-session", responses(
    (status = 200, description = "The session, made or prolonged", body = ClockSession),
    (status = "4XX", description = "Who asks is no host", body = ApiError),
    (status = "5XX", description = "No session now", body = ApiError),
))]
fn clock_session() {}

/// Flow records, open and recently closed.
#[utoipa::path(get, path = "/v1/flows", params(FlowsQuery), responses(
    (status = 200, description = "The records, the one with most bytes first", body = FlowsAnswer),
    (status = "4XX", description = "The request cannot be understood", body = ApiError),
    (status = "5XX", description = "No answer now", body = ApiError),
))]
fn flows() {}

/// The newest measurement of each metric and pair, as the monitoring functions reported them.
#[utoipa::path(get, path = "/v1/measurements", params(MeasurementsQuery), responses(
    (status = 200, description = "The measurements, newest first", body = MeasurementsAnswer),
    (status = "4XX", description = "The request cannot be understood", body = ApiError),
    (status = "5XX", description = "No answer now", body = ApiError),
))]
fn measurements() {}

/// What happens, as it happens: one JSON object a line. A reader that is too slow misses events, and is told how many.
#[utoipa::path(get, path = "/v1/events", params(EventsQuery), responses(
    (status = 200, description = "A stream of events", body = Event, content_type = "application/x-ndjson"),
    (status = "4XX", description = "The request cannot be understood", body = ApiError),
    (status = "5XX", description = "No answer now", body = ApiError),
))]
fn events() {}

/// Whether the daemon works.
#[utoipa::path(get, path = "/v1/health", responses(
    (status = 200, description = "It works, perhaps not in every part", body = Health),
    (status = 503, description = "It is starting", body = Health),
))]
fn health() {}

/// Where every packet that the taps saw was counted.
#[utoipa::path(get, path = "/v1/ledger", responses(
    (status = 200, description = "The ledger, as a whole and by port", body = LedgerAnswer),
    (status = "5XX", description = "No answer now", body = ApiError),
))]
fn ledger() {}

/// What the daemon is, what it watches, and what it costs.
#[utoipa::path(get, path = "/v1/status", responses(
    (status = 200, description = "The status", body = Status),
    (status = "5XX", description = "No answer now", body = ApiError),
))]
fn status() {}

/// Checks of the host, the engine, the taps and the ledger, with remedies.
#[utoipa::path(get, path = "/v1/doctor", responses(
    (status = 200, description = "The checks, failed ones too", body = DoctorAnswer),
    (status = "5XX", description = "No answer now", body = ApiError),
))]
fn doctor() {}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", operation_id = "openapi", responses(
    (status = 200, description = "The OpenAPI document", body = Object),
))]
fn openapi_document() {}

/// Metrics for Prometheus, in its text format.
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, description = "The metrics", body = String, content_type = "text/plain"),
))]
fn metrics() {}
