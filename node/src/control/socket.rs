//! The control socket: how the command line reaches the node that has a data folder open.
//!
//! A Unix socket in the data folder, readable and writable by its owner alone. A connection carries one
//! [`Request`] as a line of JSON; the answers are lines of JSON, `{"progress":{…}}` any number of times
//! and then once `{"ok":value}` or `{"error":{…}}`. A request that was begun is brought to its end whether
//! its client waits or not: a push never stops half-way because a terminal was closed. Whoever handles it
//! is told when nobody waits any more, and may end what can be taken up again, such as a pull.
//!
//! Not here: what a request does ([`super::execute`]), and the folder's lock, which whoever binds holds.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Failure, Progress, Request};

/// File name of the socket in the data folder.
pub const SOCKET_NAME: &str = "control.sock";

/// Bytes of a request line; a longer one is answered with an error.
const REQUEST_BYTES_MAX: u64 = 64 << 10;
/// Bytes of an answer line; a client gives up on a longer one.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// Connections served at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// Connections that the kernel lets wait; further clients wait to connect.
const QUEUE_MAX: i32 = 128;
/// Time in which a client must have sent its request; then it is disconnected.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which a client must have taken a line; then it counts as gone.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Progress lines waiting for a slow client; further ones are left out.
const PROGRESS_WAITING_MAX: usize = 16;
/// Least time between two progress lines of one step.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);
/// Pause after a refused `accept` (no file descriptors left, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest socket path that every system takes; a longer one goes through a descriptor of its folder.
const PATH_BYTES_MAX: usize = 100;

/// Why a control socket could not be opened or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The system refused an operation on the socket.
    #[error("{operation} {path}")]
    Io {
        /// What was tried, as a verb: `connect to`.
        operation: &'static str,
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The request cannot be written as JSON (a path that is not UTF-8).
    #[error("this request cannot be sent to the running node")]
    Request(#[source] serde_json::Error),
    /// The node said something that is no answer.
    #[error("the running node's answer is not understood: does it run another release of cairn?")]
    Answer(#[source] serde_json::Error),
    /// The connection ended, or the answer never did.
    #[error(
        "the node ended the connection before it answered: it stopped, or its answer is too long"
    )]
    Ended,
    /// The node did what it was asked, and failed at it.
    #[error("{}", .0.error)]
    Failed(Failure),
}

/// What answers requests.
pub trait Handler:
    Fn(Request, &mut dyn FnMut(Progress), &CancellationToken) -> Result<Value, Failure>
    + Send
    + Sync
    + 'static
{
}

impl<H> Handler for H where
    H: Fn(Request, &mut dyn FnMut(Progress), &CancellationToken) -> Result<Value, Failure>
        + Send
        + Sync
        + 'static
{
}

/// One line from the node.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Progress(Progress),
    Ok(Value),
    Error(Failure),
}

impl Answer {
    fn line(&self) -> Vec<u8> {
        let mut line =
            serde_json::to_vec(self).expect("invariant: an answer has only JSON values and texts");
        line.push(b'\n');
        line
    }
}

/// The path to bind or to connect to.
///
/// Socket addresses hold about 100 bytes. A longer path is reached through a descriptor of the data
/// folder, which must stay open until the call is done; both ends do this for themselves, so nothing
/// about it has to be agreed or kept.
struct Address {
    path: PathBuf,
    _folder: Option<File>,
}

impl Address {
    fn of(data: &Path) -> io::Result<Self> {
        let path = data.join(SOCKET_NAME);
        if path.as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(Self {
                path,
                _folder: None,
            });
        }
        let folder = File::open(data)?;
        Ok(Self {
            path: format!("/proc/self/fd/{}/{SOCKET_NAME}", folder.as_raw_fd()).into(),
            _folder: Some(folder),
        })
    }
}

/// The node's end, bound and not yet served.
#[derive(Debug)]
pub struct Server {
    listener: tokio::net::UnixListener,
    path: PathBuf,
}

impl Server {
    /// Binds the socket of a data folder, in place of one that a killed process left.
    ///
    /// The caller holds the folder's lock and is inside a tokio runtime.
    ///
    /// # Errors
    /// [`SocketError::Io`].
    pub fn bind(data: &Path) -> Result<Self, SocketError> {
        let path = data.join(SOCKET_NAME);
        let failed = |source: io::Error| SocketError::Io {
            operation: "listen on",
            path: path.clone(),
            source,
        };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = bind_private(data)
            .and_then(tokio::net::UnixListener::from_std)
            .map_err(failed)?;
        Ok(Self { listener, path })
    }

    /// Answers requests with `handler`, on threads that may block, until `stop`; then takes no more of
    /// them, waits for those that were begun, and removes the socket. The handler's token is cancelled at
    /// `stop`, and when the client of that request is gone.
    pub async fn serve<H>(self, handler: H, stop: CancellationToken)
    where
        H: Handler,
    {
        let handler = Arc::new(handler);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let connections = TaskTracker::new();
        loop {
            let accepted = async {
                // Never an error: nobody closes the semaphore.
                let place = Arc::clone(&places).acquire_owned().await.ok();
                (place, self.listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let handler = Arc::clone(&handler);
                    let stop = stop.clone();
                    connections.spawn(async move {
                        converse(stream, handler, stop).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket: accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        connections.close();
        connections.wait().await;
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "control socket not removed");
        }
    }
}

/// Binds, makes the socket its owner's alone, and only then lets anyone connect.
fn bind_private(data: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let address = Address::of(data)?;
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&address.path)?)?;
    rustix::fs::chmod(&address.path, rustix::fs::Mode::from_raw_mode(0o600))?;
    rustix::net::listen(&socket, QUEUE_MAX)?;
    let listener = std::os::unix::net::UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// One connection: a request in, its progress and its answer out.
async fn converse<H>(stream: tokio::net::UnixStream, handler: Arc<H>, stop: CancellationToken)
where
    H: Handler,
{
    let (read, mut write) = stream.into_split();
    let mut reader = tokio::io::BufReader::new(read.take(REQUEST_BYTES_MAX));
    let mut line = Vec::new();
    let read = tokio::select! {
        () = stop.cancelled() => return,
        read = tokio::time::timeout(REQUEST_TIMEOUT, reader.read_until(b'\n', &mut line)) => read,
    };
    if !matches!(read, Ok(Ok(bytes)) if bytes > 0) {
        return;
    }
    let answer = match parse(&line) {
        Ok(request) => {
            let gone = stop.child_token();
            // Its end of the connection is closed only when it is no longer there.
            let watch = async {
                reader.get_mut().set_limit(u64::MAX);
                let mut rest = [0; 64];
                while matches!(reader.read(&mut rest).await, Ok(bytes) if bytes > 0) {}
                gone.cancel();
                std::future::pending().await
            };
            tokio::select! {
                answer = run(request, handler, &mut write, gone.clone()) => answer,
                answer = watch => answer,
            }
        }
        Err(failure) => Answer::Error(failure),
    };
    send(&mut write, &answer.line()).await;
}

fn parse(line: &[u8]) -> Result<Request, Failure> {
    let failure = |error: &str, cause: Option<String>| Failure {
        error: error.to_owned(),
        causes: cause.into_iter().collect(),
        hint: None,
    };
    let Some(line) = line.strip_suffix(b"\n") else {
        return Err(failure(
            "the request is cut off or longer than 64 KiB",
            None,
        ));
    };
    serde_json::from_slice(line).map_err(|error| Failure {
        hint: Some("restart the node with the release that this command is from".to_owned()),
        ..failure(
            "the node does not understand this request",
            Some(error.to_string()),
        )
    })
}

/// Runs a request to its end, telling its progress for as long as the client listens.
async fn run<H>(
    request: Request,
    handler: Arc<H>,
    write: &mut tokio::net::unix::OwnedWriteHalf,
    gone: CancellationToken,
) -> Answer
where
    H: Handler,
{
    let (sender, mut receiver) = mpsc::channel::<Vec<u8>>(PROGRESS_WAITING_MAX);
    let work = tokio::task::spawn_blocking(move || {
        let mut last: Option<(Instant, String)> = None;
        let mut tell = |progress: Progress| {
            let recent = last.as_ref().is_some_and(|(when, what)| {
                *what == progress.what && when.elapsed() < PROGRESS_INTERVAL
            });
            if recent && progress.done != progress.total {
                return;
            }
            last = Some((Instant::now(), progress.what.clone()));
            // A client that is slow or gone misses progress, nothing else.
            drop(sender.try_send(Answer::Progress(progress).line()));
        };
        handler(request, &mut tell, &gone)
    });
    let mut listening = true;
    while let Some(line) = receiver.recv().await {
        listening = listening && send(write, &line).await;
    }
    match work.await {
        Ok(Ok(value)) => Answer::Ok(value),
        Ok(Err(failure)) => Answer::Error(failure),
        Err(error) => Answer::Error(Failure {
            error: "the node failed at this request by a fault of its own".to_owned(),
            causes: vec![error.to_string()],
            hint: Some("the node's log has more; please report it".to_owned()),
        }),
    }
}

/// Whether the client took the line.
async fn send(write: &mut tokio::net::unix::OwnedWriteHalf, line: &[u8]) -> bool {
    matches!(
        tokio::time::timeout(ANSWER_TIMEOUT, write.write_all(line)).await,
        Ok(Ok(()))
    )
}

/// The command line's end: one connection for one request. Blocking.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    path: PathBuf,
}

impl Client {
    /// Connects to the node that has the folder open; `None` where none does, also when a killed one left
    /// its socket.
    ///
    /// # Errors
    /// [`SocketError::Io`], such as a socket of another user.
    pub fn connect(data: &Path) -> Result<Option<Self>, SocketError> {
        let path = data.join(SOCKET_NAME);
        match Address::of(data).and_then(|address| UnixStream::connect(&address.path)) {
            Ok(stream) => Ok(Some(Self { stream, path })),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            Err(source) => Err(SocketError::Io {
                operation: "connect to",
                path,
                source,
            }),
        }
    }

    /// Sends the request and waits for its answer, however long it takes.
    ///
    /// # Errors
    /// [`SocketError::Failed`] when the node answered with a failure, others when it did not answer.
    pub fn ask(
        mut self,
        request: &Request,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Value, SocketError> {
        let mut line = serde_json::to_vec(request).map_err(SocketError::Request)?;
        line.push(b'\n');
        let path = self.path;
        let failed = |operation, source: io::Error| match source.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => SocketError::Ended,
            _ => SocketError::Io {
                operation,
                path: path.clone(),
                source,
            },
        };
        self.stream
            .write_all(&line)
            .map_err(|source| failed("write to", source))?;
        let mut reader = BufReader::new(self.stream);
        loop {
            line.clear();
            (&mut reader)
                .take(ANSWER_BYTES_MAX)
                .read_until(b'\n', &mut line)
                .map_err(|source| failed("read from", source))?;
            if !line.ends_with(b"\n") {
                return Err(SocketError::Ended);
            }
            match serde_json::from_slice(&line).map_err(SocketError::Answer)? {
                Answer::Progress(step) => progress(step),
                Answer::Ok(value) => return Ok(value),
                Answer::Error(failure) => return Err(SocketError::Failed(failure)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Barrier;

    use serde_json::json;

    use super::*;

    type Handling = Box<
        dyn Fn(Request, &mut dyn FnMut(Progress), &CancellationToken) -> Result<Value, Failure>
            + Send
            + Sync,
    >;

    /// Serves a folder until dropped.
    struct Served {
        runtime: Option<tokio::runtime::Runtime>,
        task: Option<tokio::task::JoinHandle<()>>,
        stop: CancellationToken,
    }

    impl Served {
        fn start(data: &Path, handler: Handling) -> Self {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            let stop = CancellationToken::new();
            let server = {
                let _inside = runtime.enter();
                Server::bind(data).unwrap()
            };
            let task = runtime.spawn(server.serve(handler, stop.clone()));
            Self {
                runtime: Some(runtime),
                task: Some(task),
                stop,
            }
        }

        fn finish(mut self) {
            self.stop.cancel();
            let runtime = self.runtime.take().unwrap();
            runtime.block_on(self.task.take().unwrap()).unwrap();
        }
    }

    fn ask(data: &Path, request: &Request) -> Result<Value, SocketError> {
        Client::connect(data)
            .unwrap()
            .expect("a node listens")
            .ask(request, &mut |_| ())
    }

    fn raw(data: &Path, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(data.join(SOCKET_NAME)).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_request_gets_its_progress_and_its_answer() {
        let data = tempfile::tempdir().unwrap();
        let served = Served::start(
            data.path(),
            Box::new(|request, progress, _| {
                progress(Progress {
                    what: "hashing a".into(),
                    done: 1,
                    total: 2,
                });
                match request {
                    Request::Status => Ok(json!({"running": true})),
                    Request::Info { repo } => Err(Failure {
                        error: format!("repository {repo} not found"),
                        causes: vec!["no such name".into()],
                        hint: Some("cairn ls".into()),
                    }),
                    _ => panic!("a fault in the handler"),
                }
            }),
        );
        let mode = std::fs::metadata(data.path().join(SOCKET_NAME))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);

        let mut seen = Vec::new();
        let value = Client::connect(data.path())
            .unwrap()
            .unwrap()
            .ask(&Request::Status, &mut |step| seen.push(step))
            .unwrap();
        assert_eq!(value, json!({"running": true}));
        assert_eq!(seen.len(), 1);
        assert_eq!(
            (seen[0].what.as_str(), seen[0].done, seen[0].total),
            ("hashing a", 1, 2)
        );

        match ask(data.path(), &Request::Info { repo: "a/b".into() }) {
            Err(SocketError::Failed(failure)) => {
                assert_eq!(failure.error, "repository a/b not found");
                assert_eq!(failure.causes, ["no such name"]);
                assert_eq!(failure.hint.as_deref(), Some("cairn ls"));
            }
            other => panic!("{other:?}"),
        }
        match ask(data.path(), &Request::Keys) {
            Err(SocketError::Failed(failure)) => {
                assert!(
                    failure.error.contains("a fault of its own"),
                    "{}",
                    failure.error
                );
            }
            other => panic!("{other:?}"),
        }
        // The node outlives its fault.
        assert!(ask(data.path(), &Request::Status).is_ok());
        served.finish();
        assert!(!data.path().join(SOCKET_NAME).exists());
        assert!(Client::connect(data.path()).unwrap().is_none());
    }

    #[test]
    fn odd_requests_are_answered_and_never_reach_the_handler() {
        let data = tempfile::tempdir().unwrap();
        let served = Served::start(data.path(), Box::new(|_, _, _| panic!("reached")));
        for (bytes, expected) in [
            (b"{\"verb\":\"fly\"}\n".to_vec(), "does not understand"),
            (
                b"{\"verb\":\"gc\",\"dry_run\":true,\"more\":1}\n".to_vec(),
                "does not understand",
            ),
            (b"{\"verb\":\"status\"}".to_vec(), "cut off"),
            (vec![b' '; 1 << 20], "longer than 64 KiB"),
            (b"\xff\n".to_vec(), "does not understand"),
        ] {
            if bytes.len() > 64 << 10 {
                // A client that sends too much may meet a closed connection instead of the answer.
                let mut stream = UnixStream::connect(data.path().join(SOCKET_NAME)).unwrap();
                let mut text = String::new();
                if stream.write_all(&bytes).is_ok() && stream.read_to_string(&mut text).is_ok() {
                    assert!(text.contains(expected), "{text}");
                }
                continue;
            }
            let text = raw(data.path(), &bytes);
            assert!(text.starts_with("{\"error\":"), "{text}");
            assert!(text.contains(expected), "{text}");
        }
        assert_eq!(raw(data.path(), b""), "");
        served.finish();
    }

    #[test]
    fn a_socket_left_by_a_killed_node_is_nobody_and_is_replaced() {
        let data = tempfile::tempdir().unwrap();
        drop(std::os::unix::net::UnixListener::bind(data.path().join(SOCKET_NAME)).unwrap());
        assert!(data.path().join(SOCKET_NAME).exists());
        assert!(Client::connect(data.path()).unwrap().is_none());
        let served = Served::start(data.path(), Box::new(|_, _, _| Ok(json!(1))));
        assert_eq!(ask(data.path(), &Request::Status).unwrap(), json!(1));
        served.finish();
    }

    #[test]
    fn a_folder_with_a_path_too_long_for_a_socket_works_alike() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("d".repeat(120)).join("e".repeat(120));
        std::fs::create_dir_all(&data).unwrap();
        assert!(Client::connect(&data).unwrap().is_none());
        let served = Served::start(&data, Box::new(|_, _, _| Ok(json!("far"))));
        assert_eq!(ask(&data, &Request::Status).unwrap(), json!("far"));
        served.finish();
        assert!(!data.join(SOCKET_NAME).exists());
    }

    #[test]
    fn a_request_ends_although_its_client_went_and_the_node_stops() {
        let data = tempfile::tempdir().unwrap();
        let gate = Arc::new(Barrier::new(2));
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (inner_gate, inner_done) = (Arc::clone(&gate), Arc::clone(&done));
        let served = Served::start(
            data.path(),
            Box::new(move |_, progress, _| {
                inner_gate.wait();
                inner_gate.wait();
                for n in 0..1_000 {
                    progress(Progress {
                        what: format!("step {n}"),
                        done: n,
                        total: 0,
                    });
                }
                inner_done.store(true, std::sync::atomic::Ordering::SeqCst);
                Ok(Value::Null)
            }),
        );
        let mut stream = UnixStream::connect(data.path().join(SOCKET_NAME)).unwrap();
        stream.write_all(b"{\"verb\":\"keys\"}\n").unwrap();
        gate.wait();
        drop(stream);
        served.stop.cancel();
        assert!(!done.load(std::sync::atomic::Ordering::SeqCst));
        gate.wait();
        served.finish();
        assert!(done.load(std::sync::atomic::Ordering::SeqCst));
    }

    #[test]
    fn a_request_is_told_when_its_client_went_or_the_node_stops() {
        let data = tempfile::tempdir().unwrap();
        let (begun, told) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let (inner_begun, inner_told) = (Arc::clone(&begun), Arc::clone(&told));
        let served = Served::start(
            data.path(),
            Box::new(move |_, _, gone| {
                assert!(!gone.is_cancelled());
                inner_begun.wait();
                let since = Instant::now();
                while !gone.is_cancelled() {
                    assert!(since.elapsed() < Duration::from_secs(10), "never told");
                    std::thread::yield_now();
                }
                inner_told.wait();
                Ok(Value::Null)
            }),
        );
        let connect = || {
            let mut stream = UnixStream::connect(data.path().join(SOCKET_NAME)).unwrap();
            stream.write_all(b"{\"verb\":\"keys\"}\n").unwrap();
            begun.wait();
            stream
        };
        drop(connect());
        told.wait();
        let waiting = connect();
        served.stop.cancel();
        told.wait();
        served.finish();
        drop(waiting);
    }

    #[test]
    fn a_node_that_dies_at_a_request_is_told_apart_from_one_that_answers() {
        let data = tempfile::tempdir().unwrap();
        let listener =
            std::os::unix::net::UnixListener::bind(data.path().join(SOCKET_NAME)).unwrap();
        let dying = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).unwrap();
            line
        });
        assert!(matches!(
            ask(data.path(), &Request::Status),
            Err(SocketError::Ended)
        ));
        assert_eq!(dying.join().unwrap(), "{\"verb\":\"status\"}\n");
    }
}
