//! A server of one file and a few plain routes.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use cairn_gateway::range::{self, Selection};
use cairn_gateway::sendfile::FileBytes;
use cairn_gateway::{Config, Tls};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, soon};

/// A running server; its routes are `/file` (with ranges), `/small`, `/echo` and `/held`.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) serving: JoinHandle<std::io::Result<()>>,
    pub(crate) file: Arc<File>,
    /// Told by `/held` when a request is there; lets it go on.
    pub(crate) arrived: Arc<Notify>,
    pub(crate) release: Arc<Notify>,
    /// What its clients need to know where it speaks TLS.
    trust: Option<Arc<ClientConfig>>,
}

#[derive(Clone)]
struct Routes {
    bytes: FileBytes,
    arrived: Arc<Notify>,
    release: Arc<Notify>,
}

/// What stands at an offset of the file: every byte depends on all of its offset.
pub(crate) fn expected(range: std::ops::Range<usize>) -> Vec<u8> {
    range
        .map(|offset| {
            let mixed = (offset as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed >> 56) as u8
        })
        .collect()
}

impl Server {
    pub(crate) async fn start(config: Config, file_bytes: usize) -> Self {
        let mut file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        file.write_all(&expected(0..file_bytes)).unwrap();
        let file = Arc::new(file);
        let bytes = FileBytes::new(Arc::clone(&file), file_bytes as u64).unwrap();
        let (arrived, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let router = Router::new()
            .route("/file", get(part))
            .route("/small", get(|| async { "small" }))
            .route("/echo", axum::routing::post(|body: String| async { body }))
            .route("/held", get(held))
            .with_state(Routes {
                bytes,
                arrived: Arc::clone(&arrived),
                release: Arc::clone(&release),
            });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let serving = tokio::spawn(async move {
            cairn_gateway::server::serve(listener, router, &config, token).await
        });
        Self {
            address,
            shutdown,
            serving,
            file,
            arrived,
            release,
            trust: None,
        }
    }

    /// Two that are the same, but that the second speaks TLS.
    pub(crate) async fn start_both(config: Config, file_bytes: usize) -> [Self; 2] {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("certificate"), folder.path().join("key"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.key_pair.serialize_pem()).unwrap();
        let with_tls = Config {
            tls: Some(Tls::load(certificate, key).unwrap()),
            ..config.clone()
        };
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let secure = Self {
            trust: Some(Arc::new(trust)),
            ..Self::start(with_tls, file_bytes).await
        };
        [Self::start(config, file_bytes).await, secure]
    }

    pub(crate) async fn client(&self) -> Client {
        match &self.trust {
            Some(trust) => Client::connect_tls(self.address, Arc::clone(trust)).await,
            None => Client::connect(self.address).await,
        }
    }

    /// A client of which the server knows.
    pub(crate) async fn greeted(&self) -> Client {
        let mut client = self.client().await;
        assert!(client.get("/small", "").await.is_some());
        client
    }

    pub(crate) async fn is_alive(&self) -> bool {
        let mut client = self.client().await;
        client
            .get("/small", "")
            .await
            .is_some_and(|answer| answer.body == b"small")
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        soon(self.serving).await.unwrap().unwrap();
    }
}

async fn part(State(routes): State<Routes>, headers: HeaderMap) -> Response {
    let size = routes.bytes.size();
    let header = headers.get(header::RANGE);
    let selection = header.map_or(Selection::Whole, |header| {
        range::select(header.as_bytes(), size)
    });
    match selection {
        Selection::Whole => Body::from(routes.bytes.slice(0..size)).into_response(),
        Selection::Part(part) | Selection::Rest(part) => {
            let body = Body::from(routes.bytes.slice(part));
            (StatusCode::PARTIAL_CONTENT, body).into_response()
        }
        Selection::Unsatisfiable => StatusCode::RANGE_NOT_SATISFIABLE.into_response(),
    }
}

async fn held(State(routes): State<Routes>) -> &'static str {
    routes.arrived.notify_one();
    routes.release.notified().await;
    "held"
}
