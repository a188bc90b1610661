//! A whole node with its gateway, and accounts that may do more and less.

use std::net::SocketAddr;

use cairn_gateway::{Config, Gateway};
use cairn_node::permission::{Access, Scope};
use cairn_node::{Config as NodeConfig, Node};
use cairn_protocol::name::RepoKind;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::{Answer, Client};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Without a token.
    Anonymous,
    /// An account with nothing to do with the repositories.
    Outsider,
    /// Was let in to read.
    Reader,
    /// Was let in to write.
    Writer,
    /// The writer, with a token that only reads.
    WriterReading,
    /// Whose namespace it is.
    Owner,
    /// Of the node.
    Admin,
}

impl Asker {
    pub(crate) const ALL: [Self; 7] = [
        Self::Anonymous,
        Self::Outsider,
        Self::Reader,
        Self::Writer,
        Self::WriterReading,
        Self::Owner,
        Self::Admin,
    ];
}

/// `owner/public` and `owner/private`, each with `a.txt` on `main` and a branch `dev`.
pub(crate) struct Hub {
    pub(crate) node: Node,
    pub(crate) address: SocketAddr,
    tokens: Vec<(Asker, String)>,
    _shutdown: DropGuard,
    _data: TempDir,
}

impl Hub {
    pub(crate) async fn start() -> Self {
        let data = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let config = NodeConfig::new(data.path());
        let made = tokio::task::spawn_blocking(move || {
            let node = Node::spawn(config).unwrap();
            let tokens = people(&node);
            (node, tokens)
        });
        let (node, tokens) = made.await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let gateway = Gateway::new(node.clone(), Config::default());
        #[allow(clippy::disallowed_methods, reason = "ends with the test")]
        tokio::spawn(gateway.serve(listener, shutdown.clone()));
        let hub = Self {
            node,
            address,
            tokens,
            _shutdown: shutdown.drop_guard(),
            _data: data,
        };
        for name in ["public", "private"] {
            hub.fill(name).await;
        }
        hub
    }

    async fn fill(&self, name: &str) {
        let commit = concat!(
            r#"{"key":"header","value":{"summary":"a file"}}"#,
            "\n",
            r#"{"key":"file","value":{"path":"a.txt","content":"YQ=="}}"#,
        );
        let path = format!("/api/models/owner/{name}/commit/main");
        let answer = self.ask(Asker::Owner, "POST", &path, commit).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let path = format!("/api/models/owner/{name}/branch/dev");
        let answer = self.ask(Asker::Owner, "POST", &path, "{}").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    pub(crate) fn token(&self, asker: Asker) -> Option<&str> {
        let found = self.tokens.iter().find(|(other, _)| *other == asker);
        found.map(|(_, token)| token.as_str())
    }

    pub(crate) async fn ask(&self, asker: Asker, method: &str, path: &str, body: &str) -> Answer {
        let token = self.token(asker);
        self.ask_as(token, method, path, body.as_bytes()).await
    }

    /// Asks with a token of any kind.
    pub(crate) async fn ask_as(
        &self,
        token: Option<&str>,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Answer {
        let authorization = match token {
            Some(token) => format!("Authorization: Bearer {token}\r\n"),
            None => String::new(),
        };
        let mut client = Client::connect(self.address).await;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\n{authorization}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        client.send(&head).await;
        // An answer may come before the body was read.
        drop(client.try_send_bytes(body).await);
        let answer = client.answer(method != "HEAD").await;
        answer.unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", self.text()))
    }
}

fn people(node: &Node) -> Vec<(Asker, String)> {
    let scope = |writes| Scope {
        writes,
        repositories: None,
    };
    let mut tokens = Vec::new();
    let mut made = Vec::new();
    for (asker, name) in [
        (Asker::Admin, "boss"),
        (Asker::Owner, "owner"),
        (Asker::Outsider, "outsider"),
        (Asker::Reader, "reader"),
        (Asker::Writer, "writer"),
    ] {
        let account = node.create_account(name, asker == Asker::Admin).unwrap();
        let token = node.create_token(&account, "test", scope(true), None);
        tokens.push((asker, token.unwrap().token));
        made.push((asker, account));
    }
    let account = |asker| &made.iter().find(|(other, _)| *other == asker).unwrap().1;
    let reading = node.create_token(account(Asker::Writer), "reads", scope(false), None);
    tokens.push((Asker::WriterReading, reading.unwrap().token));
    let owner = account(Asker::Owner);
    for (name, is_private) in [("public", false), ("private", true)] {
        let (namespace, name) = ("owner".parse().unwrap(), name.parse().unwrap());
        let kind = RepoKind::Model;
        let repo = node
            .create_repository(&owner.id, &namespace, kind, name, is_private, Vec::new())
            .unwrap();
        for (asker, access) in [
            (Asker::Reader, Access::Read),
            (Asker::Writer, Access::Write),
        ] {
            node.let_in(&repo, account(asker), Some(access)).unwrap();
        }
    }
    tokens
}
