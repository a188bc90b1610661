//! A node with its gateway and its control socket, from start to orderly end.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use cairn_gateway::Gateway;
use cairn_node::control::{self, socket};
use cairn_node::{Node, SpawnError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// Time that requests have to end after a stop; what is not done then is cut off, and nothing of it shows.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Time beyond [`DRAIN_TIMEOUT`] for the tasks themselves to end, and once more to write what was counted.
const END_TIMEOUT: Duration = Duration::from_millis(500);
/// Time for blocking work (a push of a control client, say) to end after that.
const BLOCKING_TIMEOUT: Duration = Duration::from_millis(500);

/// A node that is up: its requests are being answered.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) node: Node,
    pub(crate) gateway_url: String,
    stop: CancellationToken,
    tasks: JoinSet<(&'static str, std::io::Result<()>)>,
}

/// The wish of the user, or of the machine, that this process ends.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Begins to listen: before the first line is printed, so that a stop right after it is an orderly one.
    pub(crate) fn bind() -> Result<Self, Failure> {
        let bind = |kind| signal(kind).context("wait for signals");
        Ok(Self {
            interrupt: bind(SignalKind::interrupt())?,
            terminate: bind(SignalKind::terminate())?,
        })
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
        }
    }
}

/// Runs a service's whole life on a runtime of its own, and leaves within five seconds of a stop.
pub(crate) fn block_on(life: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("cairn")
        .build()
        .context("start the runtime")?;
    let ended = runtime.block_on(life);
    runtime.shutdown_timeout(BLOCKING_TIMEOUT);
    ended
}

impl Service {
    /// Opens the folder, binds gateway and control socket, and begins to answer.
    pub(crate) async fn start(
        config: cairn_node::Config,
        address: SocketAddr,
        gateway: cairn_gateway::Config,
    ) -> Result<Self, Failure> {
        raise_open_files();
        let data = config.data.clone();
        let node = tokio::task::spawn_blocking(move || Node::spawn(config))
            .await
            .context("open the data folder")?
            .map_err(already_running)?;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| cannot_listen(address, error))?;
        let bound = listener
            .local_addr()
            .context("read the gateway's address")?;
        let scheme = gateway.tls.as_ref().map_or("http", |_| "https");
        let gateway_url = format!("{scheme}://{}", reachable(bound));
        let is_proxied = gateway
            .public_url
            .as_ref()
            .is_some_and(|url| url.starts_with("https://"));
        let is_exposed = !bound.ip().is_loopback() && gateway.tls.is_none() && !is_proxied;
        node.set_gateway(gateway_url.clone(), is_exposed);
        let control = socket::Server::bind(&data)?;

        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let gateway = Gateway::new(
            node.clone(),
            cairn_gateway::Config {
                drain_timeout: DRAIN_TIMEOUT,
                ..gateway
            },
        );
        let token = stop.clone();
        tasks.spawn(async move { ("gateway", gateway.serve(listener, token).await) });
        let (token, handling) = (stop.clone(), node.clone());
        tasks.spawn(async move {
            let handle = move |request,
                               progress: &mut dyn FnMut(control::Progress),
                               gone: &CancellationToken| {
                control::execute_until(&handling, request, progress, gone)
            };
            control.serve(handle, token).await;
            ("control socket", Ok(()))
        });
        tracing::info!(gateway = %gateway_url, data = %data.display(), peer = node.peer_id(), "node is up");
        if is_exposed {
            tracing::warn!(%bound, "the gateway answers other machines over plain HTTP: whoever can listen in reads tokens and private files; give it a certificate with `tls_certificate` and `tls_key`, or put a proxy with TLS before it and name its https:// URL as `public_url`");
        }
        Ok(Self {
            node,
            gateway_url,
            stop,
            tasks,
        })
    }

    /// Answers until SIGINT or SIGTERM, then lets requests end. A second signal ends at once.
    pub(crate) async fn run(self, signals: Signals) -> Result<(), Failure> {
        run(vec![self], signals).await
    }

    /// Tells everything to end.
    fn stop(&self) {
        self.stop.cancel();
    }

    async fn drain(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Runs several nodes as [`Service::run`] does one: when one ends, all do.
pub(crate) async fn run(mut services: Vec<Service>, mut signals: Signals) -> Result<(), Failure> {
    let ended = {
        let ends = services
            .iter_mut()
            .map(|service| Box::pin(service.tasks.join_next()));
        tokio::select! {
            () = signals.next() => None,
            (ended, ..) = futures::future::select_all(ends) => ended,
        }
    };
    tracing::info!("stopping");
    services.iter().for_each(Service::stop);
    let drain = futures::future::join_all(services.iter_mut().map(Service::drain));
    tokio::select! {
        drained = tokio::time::timeout(DRAIN_TIMEOUT + END_TIMEOUT, drain) => {
            if drained.is_err() {
                tracing::warn!("requests that did not end in time are cut off");
            }
        }
        () = signals.next() => tracing::warn!("stopped at once"),
    }
    close(&services).await;
    match ended {
        None => Ok(()),
        Some(ended) => {
            let (what, result) =
                ended.context("a part of the node failed by a fault of its own")?;
            result.with_context(|| format!("the {what} failed"))?;
            Err(Failure::new(format!(
                "the {what} ended although nobody stopped it"
            )))
        }
    }
}

/// Has each node write what is in its memory alone.
async fn close(services: &[Service]) {
    let closing = services.iter().map(|service| {
        let node = service.node.clone();
        tokio::task::spawn_blocking(move || node.close())
    });
    let closed = tokio::time::timeout(END_TIMEOUT, futures::future::join_all(closing)).await;
    if closed.is_err() {
        tracing::warn!("what was counted in the last minute may be lost");
    }
}

/// Raises the bound of open files as far as it may be: every connection and every file sent is one.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(from = ?limit.current, to = ?limit.maximum, "open files"),
        Err(error) => {
            tracing::debug!(%error, limit = ?limit.current, "open files stay as they are");
        }
    }
}

/// The address that a client on this machine uses.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other.ip(),
    };
    SocketAddr::new(ip, bound.port())
}

fn already_running(error: SpawnError) -> Failure {
    let locked = matches!(error, SpawnError::Locked { .. });
    let failure = Failure::from(error);
    if locked {
        failure.hint(
            "`cairn status` shows the node that runs there; another one needs another `--data DIR`",
        )
    } else {
        failure
    }
}

fn cannot_listen(address: SocketAddr, error: std::io::Error) -> Failure {
    let hint = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "another program has this port: `--gateway 127.0.0.1:0` takes a free one"
        }
        std::io::ErrorKind::PermissionDenied => {
            "ports below 1024 need privileges: take a higher one with `--gateway`"
        }
        _ => "`--gateway ADDRESS:PORT` takes an address of this machine",
    };
    Failure::from(
        anyhow::Error::new(error).context(format!("the gateway cannot listen on {address}")),
    )
    .hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_address_can_be_reached() {
        for (bound, expected) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("10.0.0.1:80", "10.0.0.1:80"),
        ] {
            assert_eq!(reachable(bound.parse().unwrap()), expected.parse().unwrap());
        }
    }
}
