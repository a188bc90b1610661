//! The gateway: a node, its settings, and what is kept between requests.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_node::Node;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::ApiError;
use crate::{content, entry, hub, metrics, server};

/// Time between two looks at uploads that no commit came for.
const EXPIRE_PERIOD: Duration = Duration::from_mins(10);
/// Time between two rounds of upkeep.
const UPKEEP_PERIOD: Duration = Duration::from_secs(5);

/// Serves one node over HTTP; cheap to clone.
#[derive(Debug, Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    node: Node,
    config: Config,
    documents: content::Documents,
    openings: Arc<content::Openings>,
    facts: hub::Facts,
    places: Arc<Semaphore>,
    arrivals: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    long_lines: Arc<Semaphore>,
    xorbs: Arc<Semaphore>,
}

impl Gateway {
    /// A gateway to a node; nothing is served before [`Gateway::serve`].
    pub fn new(node: Node, config: Config) -> Self {
        metrics::install();
        Self {
            inner: Arc::new(Inner {
                documents: content::Documents::new(config.content_cache_bytes),
                openings: Arc::default(),
                facts: hub::Facts::default(),
                places: Arc::new(Semaphore::new(config.blocking_max)),
                arrivals: Arc::new(Semaphore::new(config.arrivals_max)),
                uploads: Arc::new(Semaphore::new(config.uploads_max)),
                long_lines: Arc::new(Semaphore::new(config.long_lines_max)),
                xorbs: Arc::new(Semaphore::new(config.xorbs_max)),
                node,
                config,
            }),
        }
    }

    /// Serves on a listener until `shutdown` is cancelled.
    ///
    /// Then it stops accepting, closes resting connections, and lets running requests end within
    /// [`Config::drain_timeout`].
    ///
    /// # Errors
    /// None at the moment: a failed accept is tried again, with a pause.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) -> io::Result<()> {
        let config = self.inner.config.clone();
        let upkeep = upkeep(self.clone());
        let serving = server::serve(listener, entry::service(self), &config, shutdown);
        tokio::select! {
            () = upkeep => Ok(()),
            served = serving => served,
        }
    }

    pub(crate) fn node(&self) -> &Node {
        &self.inner.node
    }

    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn documents(&self) -> &content::Documents {
        &self.inner.documents
    }

    pub(crate) fn openings(&self) -> &Arc<content::Openings> {
        &self.inner.openings
    }

    /// Places for answers whose file is still fetched.
    pub(crate) fn arrivals(&self) -> &Arc<Semaphore> {
        &self.inner.arrivals
    }

    pub(crate) fn facts(&self) -> &hub::Facts {
        &self.inner.facts
    }

    /// A place for one upload or commit.
    ///
    /// # Errors
    /// None became free in [`Config::queue_timeout`].
    pub(crate) async fn upload_place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.place(&self.inner.uploads).await
    }

    /// A place for one long line of a commit.
    ///
    /// # Errors
    /// As above.
    pub(crate) async fn line_place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.place(&self.inner.long_lines).await
    }

    /// A place for one xorb or shard in memory.
    ///
    /// # Errors
    /// As above.
    pub(crate) async fn xorb_place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.place(&self.inner.xorbs).await
    }

    async fn place(&self, places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, ApiError> {
        let places = Arc::clone(places);
        tokio::time::timeout(self.inner.config.queue_timeout, places.acquire_owned())
            .await
            .map_err(|_| ApiError::busy())?
            .map_err(ApiError::internal)
    }

    /// Runs node calls on a blocking thread, so many at a time.
    ///
    /// # Errors
    /// No place became free in [`Config::queue_timeout`], or what the work says.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let place = self.place(&self.inner.places).await?;
        let gateway = self.clone();
        tokio::task::spawn_blocking(move || {
            let _place = place;
            work(&gateway)
        })
        .await
        .map_err(ApiError::internal)?
    }
}

/// Takes up metric samples, has what was counted written, lets go of answers nobody can ask for any more, looks
/// for a renewed certificate, for ever.
async fn upkeep(gateway: Gateway) {
    let mut period = tokio::time::interval(UPKEEP_PERIOD);
    let mut cleared = None::<Instant>;
    loop {
        period.tick().await;
        metrics::upkeep();
        let is_due = cleared.is_none_or(|at| at.elapsed() >= EXPIRE_PERIOD);
        if is_due {
            cleared = Some(Instant::now());
        }
        let gateway = gateway.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let generation = gateway.node().repos().generation();
            gateway.documents().retire(generation);
            if let Some(tls) = &gateway.config().tls {
                tls.look();
            }
            gateway.node().keep_counts();
            if is_due {
                gateway.node().expire_uploads();
            }
        });
        if let Err(error) = kept.await {
            tracing::error!(%error, "a round of upkeep failed");
        }
    }
}
