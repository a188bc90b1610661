//! Requests that nobody should send: never a panic, never a 5xx, and the node goes on.

use proptest::prelude::*;
use tokio::runtime::Runtime;

use crate::client::Client;
use crate::hub::{Asker, Hub};

/// Paths of every route that takes a body, and of others.
const PATHS: &[&str] = &[
    "/api/repos/create",
    "/api/repos/delete",
    "/api/repos/move",
    "/api/validate-yaml",
    "/api/whoami-v2",
    "/api/settings/tokens",
    "/api/settings/tokens/x",
    "/api/settings/users",
    "/api/models",
    "/api/models/owner/public",
    "/api/models/owner/public/settings",
    "/api/models/owner/public/preupload/main",
    "/api/models/owner/public/commit/main",
    "/api/models/owner/public/commit/dev",
    "/api/models/owner/public/branch/new",
    "/api/models/owner/public/tag/main",
    "/api/models/owner/public/super-squash/dev",
    "/api/models/owner/public/paths-info/main",
    "/api/models/owner/public/tree/main",
    "/api/models/owner/public/treesize/main",
    "/api/models/owner/public/refs",
    "/api/models/owner/public/commits/main",
    "/api/models/owner/public/compare/dev..main",
    "/api/models/owner/public/compare/dev...main",
    "/api/models/owner/public/auth-check/write",
    "/api/models/owner/public/duplicate",
    "/api/models/owner/public/lfs-files/duplicate",
    "/api/models/owner/private",
    "/api/models/owner/private/commit/main",
    "/api/models/owner/private/compare/main..main",
    "/api/datasets/owner/rows/commit/main",
    "/api/datasets/owner/rows/settings",
    "/api/spaces/owner/public",
    "/api/quicksearch",
    "/api/models/owner/public/xet-write-token/main",
    "/api/models/owner/public/xet-read-token/main",
    "/owner/public.git/info/lfs/objects/batch",
    "/owner/public.git/info/lfs/locks/verify",
    "/owner/public/resolve/main/a.txt",
    "/api/lfs/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad?size=3",
    "/api/lfs/x/1",
    "/api/xet/v1/xorbs/default/0000000000000000000000000000000000000000000000000000000000000000",
    "/api/xet/v1/shards",
    "/api/xet/v2/shards",
    "/api/xet/v1/chunks/default/0000000000000000000000000000000000000000000000000000000000000000",
    "/api/xet/v2/reconstructions/0000000000000000000000000000000000000000000000000000000000000000",
    "/api/xet/xorbs/x/0",
    "/api/xet/v1/xorb-grants/default/x",
];

/// Members that routes read, and values that they don't expect.
fn json() -> impl Strategy<Value = String> {
    let name = prop::sample::select(
        &[
            "name",
            "organization",
            "type",
            "private",
            "visibility",
            "sdk",
            "fromRepo",
            "toRepo",
            "gated",
            "files",
            "path",
            "sample",
            "size",
            "gitIgnore",
            "gitAttributes",
            "startingPoint",
            "overwrite",
            "tag",
            "message",
            "operation",
            "objects",
            "oid",
            "transfers",
            "hash_algo",
            "content",
            "repoType",
            "paths",
            "expand",
            "user",
            "scope",
            "days",
            "admin",
            "key",
            "value",
            "summary",
            "parentCommit",
            "algo",
            "oldPath",
            "srcRevision",
            "repository",
            "target",
            "sha256",
        ][..],
    );
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        any::<f64>()
            .prop_filter("JSON has no others", |value| value.is_finite())
            .prop_map(|value| value.to_string()),
        prop::sample::select(
            &[
                "",
                "owner/public",
                "owner/private",
                "../x",
                "a/../b",
                "refs/heads/main",
                "a\u{0}b",
                "é",
                "model",
                "upload",
                "base64",
                "=="
            ][..]
        )
        .prop_map(|text| serde_json::to_string(text).unwrap()),
        (1..3000_usize).prop_map(|length| format!("\"{}\"", "x".repeat(length))),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6)
                .prop_map(|all| format!("[{}]", all.join(","))),
            prop::collection::vec((name.clone(), inner), 0..6).prop_map(|all| {
                let members: Vec<_> = all
                    .iter()
                    .map(|(name, value)| format!("\"{name}\":{value}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => json().prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..400),
        1 => (1..200_usize).prop_map(|depth| "[".repeat(depth * 50).into_bytes()),
        2 => prop::collection::vec(json(), 1..5).prop_map(|lines| {
            let header = r#"{"key":"header","value":{"summary":"s"}}"#;
            let line = |value: &String| {
                ["file", "lfsFile", "deletedFile", "deletedFolder", "copyFile"]
                    .map(|key| format!(r#"{{"key":"{key}","value":{value}}}"#))
                    .join("\n")
            };
            let lines: Vec<_> = lines.iter().map(line).collect();
            format!("{header}\n{}", lines.join("\n")).into_bytes()
        }),
    ]
}

/// Something appended to a path.
fn tail() -> impl Strategy<Value = &'static str> {
    prop::sample::select(
        &[
            "",
            "",
            "",
            "",
            "/",
            "/%2e%2e",
            "%00",
            "%",
            "%zz",
            "/%ff",
            "?limit=x",
            "?a=%",
            "/a/b/c",
            "%2F",
            "?expand=x",
        ][..],
    )
}

#[test]
fn nothing_that_is_sent_breaks_the_node() {
    let runtime = Runtime::new().unwrap();
    let hub = runtime.block_on(Hub::start());
    let strategy = (
        prop::sample::select(&["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"][..]),
        prop::sample::select(PATHS),
        tail(),
        prop::sample::select(
            &[
                Asker::Anonymous,
                Asker::Outsider,
                Asker::Owner,
                Asker::Admin,
            ][..],
        ),
        body(),
        // What `Content-Length` says beyond the body: then the connection ends.
        prop::sample::select(&[0_usize, 0, 0, 7][..]),
        prop::sample::select(&["application/json", "application/x-ndjson", "text/plain"][..]),
    );
    let config = ProptestConfig {
        cases: 1_500,
        ..ProptestConfig::default()
    };
    proptest!(config, |((method, path, tail, asker, body, lie, kind) in strategy)| {
        let status = runtime.block_on(send(&hub, (method, path, tail), asker, &body, lie, kind));
        if let Some(status) = status {
            prop_assert!(status < 500, "{method} {path}{tail} {asker:?}: {status}");
        }
    });
    let alive = runtime.block_on(hub.ask(Asker::Anonymous, "GET", "/api/models/owner/public", ""));
    assert_eq!(alive.status, 200);
}

/// The status of the answer, where there is one: a body that ends early may get none.
async fn send(
    hub: &Hub,
    (method, path, tail): (&str, &str, &str),
    asker: Asker,
    body: &[u8],
    lie: usize,
    kind: &str,
) -> Option<u16> {
    let authorization = match hub.token(asker) {
        Some(token) => format!("Authorization: Bearer {token}\r\n"),
        None => String::new(),
    };
    let length = body.len() + lie;
    let mut client = Client::connect(hub.address).await;
    let head = format!(
        "{method} {path}{tail} HTTP/1.1\r\nHost: test\r\n{authorization}Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    );
    client.send(&head).await;
    drop(client.try_send_bytes(body).await);
    if lie > 0 {
        client.end().await;
    }
    let answer = client.answer(method != "HEAD").await;
    assert!(
        lie > 0 || answer.is_some(),
        "{method} {path}{tail}: no answer"
    );
    answer.map(|answer| answer.status)
}

/// The client that is told to go elsewhere sends the rest of its body, and then goes there by the same connection.
#[tokio::test]
async fn a_commit_that_is_sent_elsewhere_goes_there_on_its_connection() {
    let hub = Hub::start().await;
    let names = r#"{"fromRepo":"owner/public","toRepo":"owner/renamed"}"#;
    let moved = hub.ask(Asker::Owner, "POST", "/api/repos/move", names);
    assert_eq!(moved.await.status, 200);
    let token = hub.token(Asker::Owner).unwrap();
    let body = concat!(
        r#"{"key":"header","value":{"summary":"s"}}"#,
        "\n",
        r#"{"key":"file","value":{"path":"b.txt","content":"Yg=="}}"#,
    );
    let mut client = Client::connect(hub.address).await;
    for (name, status) in [("public", 307), ("renamed", 200)] {
        let head = format!(
            "POST /api/models/owner/{name}/commit/main HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        client.send(&head).await;
        // Where it is sent elsewhere, that is said before the body has come.
        let early = if status == 307 {
            client.answer(true).await
        } else {
            None
        };
        client.send(body).await;
        let answer = match early {
            Some(answer) => Some(answer),
            None => client.answer(true).await,
        };
        let answer = answer.unwrap_or_else(|| panic!("no answer for {name}"));
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        assert_eq!(answer.header("connection"), None, "{name}");
    }
}
