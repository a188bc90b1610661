//! The peer that `tests/bench` measures against: iroh-blobs with its own file store at both ends.
//!
//! ```text
//! iroh_blobs_peer serve STORE FILE            prints `HASH ID ADDRESS`, then serves until it is killed
//! iroh_blobs_peer get STORE HASH ID ADDRESS   fetches into a new store, prints its seconds and CPU seconds
//! ```
//!
//! A fetch ends when the file and the store's database are durable, as ours does: the store itself syncs
//! its database only, so the fetched file is synced here.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Instant;

use iroh::endpoint::presets;
use iroh::protocol::Router;
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayMode};
use iroh_blobs::api::blobs::{AddPathOptions, ImportMode};
use iroh_blobs::store::fs::FsStore;
use iroh_blobs::{ALPN, BlobFormat, BlobsProtocol, Hash};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &*arguments.iter().map(String::as_str).collect::<Vec<_>>() {
        ["serve", store, file] => serve(Path::new(store), Path::new(file)).await,
        ["get", store, hash, id, address] => {
            get(
                Path::new(store),
                hash.parse()?,
                id.parse()?,
                address.parse()?,
            )
            .await
        }
        _ => Err("usage: iroh_blobs_peer serve STORE FILE | get STORE HASH ID ADDRESS".into()),
    }
}

async fn endpoint() -> Result<Endpoint, Failure> {
    Ok(Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .clear_ip_transports()
        .bind_addr(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?
        .bind()
        .await?)
}

async fn serve(store: &Path, file: &Path) -> Result<(), Failure> {
    let store = FsStore::load(store).await?;
    let options = AddPathOptions {
        path: file.to_owned(),
        format: BlobFormat::Raw,
        mode: ImportMode::Copy,
    };
    let tag = store.blobs().add_path_with_opts(options).await?;
    let endpoint = endpoint().await?;
    let address = endpoint.bound_sockets()[0];
    say(&format!("{} {} {address}", tag.hash, endpoint.id()));
    let router = Router::builder(endpoint)
        .accept(ALPN, BlobsProtocol::new(&store, None))
        .spawn();
    std::future::pending::<()>().await;
    drop(router);
    Ok(())
}

async fn get(path: &Path, hash: Hash, id: EndpointId, at: SocketAddr) -> Result<(), Failure> {
    let store = FsStore::load(path).await?;
    let endpoint = endpoint().await?;
    let begin = Instant::now();
    let connection = endpoint
        .connect(EndpointAddr::new(id).with_ip_addr(at), ALPN)
        .await?;
    store.remote().fetch(connection, hash).await?;
    store.sync_db().await?;
    let data = data_file(path, &hash);
    tokio::task::spawn_blocking(move || std::fs::File::open(data)?.sync_all()).await??;
    say(&format!("{:.6}", begin.elapsed().as_secs_f64()));
    endpoint.close().await;
    Ok(())
}

fn data_file(store: &Path, hash: &Hash) -> PathBuf {
    store.join("data").join(format!("{}.data", hash.to_hex()))
}

#[expect(clippy::print_stdout, reason = "this is what the bench reads")]
fn say(line: &str) {
    println!("{line}");
}
