//! What a gateway counts, and the one place where counters are named.
//!
//! Handles are made once: a request touches atomics only.

use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use axum::http::StatusCode;
use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// What a request asked for; the `family` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// File contents.
    Content,
    /// The hub API.
    Hub,
    /// Uploads as LFS.
    Lfs,
    /// Uploads and downloads through Xet.
    Xet,
    /// `/healthz` and `/metrics`.
    Operations,
    /// Everything else.
    Other,
}

impl Family {
    const ALL: [Self; 6] = [
        Self::Content,
        Self::Hub,
        Self::Lfs,
        Self::Xet,
        Self::Operations,
        Self::Other,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Hub => "hub",
            Self::Lfs => "lfs",
            Self::Xet => "xet",
            Self::Operations => "operations",
            Self::Other => "other",
        }
    }
}

/// Statuses that have a counter of their own; the last stands for all others.
const STATUSES: [(u16, &str); 24] = [
    (200, "200"),
    (204, "204"),
    (206, "206"),
    (304, "304"),
    (307, "307"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (409, "409"),
    (410, "410"),
    (412, "412"),
    (413, "413"),
    (414, "414"),
    (415, "415"),
    (416, "416"),
    (422, "422"),
    (500, "500"),
    (501, "501"),
    (503, "503"),
    (507, "507"),
    (0, "other"),
];

/// Upper bounds of the duration histogram, in seconds.
const DURATIONS_S: [f64; 10] = [
    0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 10.0,
];

struct Handles {
    requests: Vec<[Counter; STATUSES.len()]>,
    durations: Vec<Histogram>,
    sent: Counter,
    connections: Gauge,
    fetches: Counter,
    arriving_sent: Counter,
    arriving_aborted: Counter,
}

static HANDLES: LazyLock<Handles> = LazyLock::new(|| {
    // Counters made before a recorder stands would count nothing, for ever.
    let _ = exporter();
    Handles {
        requests: Family::ALL
            .map(|family| {
                STATUSES.map(|(_, status)| {
                    metrics::counter!(
                        "cairn_gateway_requests_total",
                        "family" => family.label(), "status" => status
                    )
                })
            })
            .into(),
        durations: Family::ALL
            .map(|family| {
                metrics::histogram!(
                    "cairn_gateway_request_duration_seconds",
                    "family" => family.label()
                )
            })
            .into(),
        sent: metrics::counter!("cairn_gateway_sent_bytes_total"),
        connections: metrics::gauge!("cairn_gateway_connections"),
        fetches: metrics::counter!("cairn_gateway_fetches_total"),
        arriving_sent: metrics::counter!("cairn_gateway_arriving_sent_bytes_total"),
        arriving_aborted: metrics::counter!("cairn_gateway_arriving_aborted_total"),
    }
});

/// The process's exporter; installs the recorder on first use, unless the program has its own.
fn exporter() -> &'static PrometheusHandle {
    static EXPORTER: OnceLock<PrometheusHandle> = OnceLock::new();
    EXPORTER.get_or_init(|| {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&DURATIONS_S)
            .expect("invariant: the list of buckets is not empty")
            .build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed: /metrics stays empty");
        }
        handle
    })
}

/// Makes counters count; what was counted before is lost.
pub(crate) fn install() {
    LazyLock::force(&HANDLES);
}

/// Takes up samples; without it they would pile up where nobody scrapes.
pub(crate) fn upkeep() {
    exporter().run_upkeep();
}

/// Everything counted in this process, in Prometheus' text form.
pub(crate) fn render() -> String {
    exporter().render()
}

/// Counts an answered request.
pub(crate) fn answered(family: Family, status: StatusCode, took: Duration) {
    let code = status.as_u16();
    let column = STATUSES
        .iter()
        .position(|(known, _)| *known == code)
        .unwrap_or(STATUSES.len() - 1);
    HANDLES.requests[family as usize][column].increment(1);
    HANDLES.durations[family as usize].record(took.as_secs_f64());
}

/// Counts bytes written to sockets.
pub(crate) fn sent(bytes: usize) {
    HANDLES.sent.increment(bytes as u64);
}

/// Counts a file that was asked of the node's peers.
pub(crate) fn fetch_begun() {
    HANDLES.fetches.increment(1);
}

/// Counts bytes of answers whose file was still arriving when they began.
pub(crate) fn arriving_sent(bytes: usize) {
    HANDLES.arriving_sent.increment(bytes as u64);
}

/// Counts such an answer that ended early: the file stopped coming, or the client went away.
pub(crate) fn arriving_aborted() {
    HANDLES.arriving_aborted.increment(1);
}

/// Counts a connection while it lives.
#[derive(Debug)]
pub(crate) struct OpenConnection;

impl OpenConnection {
    pub(crate) fn new() -> Self {
        HANDLES.connections.increment(1.0);
        Self
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        HANDLES.connections.decrement(1.0);
    }
}

/// Shows how many repositories of a kind the node has.
pub(crate) fn repositories(kind: cairn_protocol::name::RepoKind, count: f64) {
    metrics::gauge!("cairn_gateway_repositories", "kind" => kind.as_str()).set(count);
}

/// Shows how many prepared answers are kept.
pub(crate) fn documents(count: u32) {
    metrics::gauge!("cairn_gateway_documents").set(f64::from(count));
}
