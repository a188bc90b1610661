//! A plain HTTP/1.1 client that shows everything that the server sends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longest wait of a test for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Fails a test that would wait for ever.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("nothing happened for 30 s")
}

#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

pub(crate) struct Client {
    stream: BufReader<Box<dyn Stream>>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = soon(TcpStream::connect(address)).await.unwrap();
        Self {
            stream: BufReader::new(Box::new(stream)),
        }
    }

    pub(crate) async fn connect_tls(address: SocketAddr, config: Arc<ClientConfig>) -> Self {
        let stream = soon(TcpStream::connect(address)).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = soon(TlsConnector::from(config).connect(name, stream)).await;
        Self {
            stream: BufReader::new(Box::new(stream.unwrap())),
        }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.try_send(text).await.unwrap();
    }

    pub(crate) async fn try_send(&mut self, text: &str) -> std::io::Result<()> {
        self.try_send_bytes(text.as_bytes()).await
    }

    pub(crate) async fn try_send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        soon(async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        })
        .await
    }

    /// Sends nothing more.
    pub(crate) async fn end(&mut self) {
        drop(soon(self.stream.shutdown()).await);
    }

    /// The head of the next answer, and the length of its body.
    pub(crate) async fn head(&mut self) -> Option<(Answer, usize)> {
        let mut line = String::new();
        soon(self.stream.read_line(&mut line)).await.ok()?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            soon(self.stream.read_line(&mut line)).await.ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            headers.push((name.to_owned(), value.to_owned()));
        }
        let answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        let length = answer.header("content-length").unwrap_or("0").parse();
        Some((answer, length.unwrap()))
    }

    /// The next answer, with its body where it has one; `None` where the connection ends before.
    pub(crate) async fn answer(&mut self, has_body: bool) -> Option<Answer> {
        let (mut answer, length) = self.head().await?;
        if has_body {
            answer.body = vec![0; length];
            soon(self.stream.read_exact(&mut answer.body)).await.ok()?;
        }
        Some(answer)
    }

    pub(crate) async fn get(&mut self, path: &str, headers: &str) -> Option<Answer> {
        self.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n"
        ))
        .await;
        self.answer(true).await
    }

    /// Bytes until the connection ends, in whatever way.
    pub(crate) async fn rest(&mut self) -> usize {
        let mut total = 0;
        let mut buffer = vec![0; 64 << 10];
        loop {
            match soon(self.stream.read(&mut buffer)).await {
                Ok(0) | Err(_) => return total,
                Ok(bytes) => total += bytes,
            }
        }
    }

    /// So many bytes of the stream.
    pub(crate) async fn take(&mut self, bytes: usize) -> Vec<u8> {
        let mut taken = vec![0; bytes];
        soon(self.stream.read_exact(&mut taken)).await.unwrap();
        taken
    }

    /// Whether the server ended the connection.
    pub(crate) async fn is_closed(&mut self) -> bool {
        is_at_end(&mut self.stream).await
    }
}

async fn is_at_end(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut byte = [0];
    matches!(soon(stream.read(&mut byte)).await, Ok(0) | Err(_))
}
