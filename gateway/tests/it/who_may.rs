//! Every route of a repository, for everybody who may ask, of a public one and a private one.

use cairn_protocol::name::RepoKind;

use crate::client::Answer;
use crate::hub::{Asker, Hub};

/// What it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Takes {
    Read,
    Write,
    Manage,
}

const BATCH: &str = r#"{"operation":"upload","transfers":["basic"],"objects":[{"oid":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","size":3}]}"#;
const COMMIT: &str = "{\"key\":\"header\",\"value\":{\"summary\":\"s\"}}\n{\"key\":\"deletedFile\",\"value\":{\"path\":\"none\"}}\n";

/// Routes with `{}` for the repository's name. Those that change something ask for what can't be done, so that
/// who may is answered by that, and the repositories stay as they are.
const ROUTES: &[(Takes, &str, &str, &str)] = &[
    (Takes::Read, "GET", "/api/models/owner/{}", ""),
    (Takes::Read, "GET", "/api/models/owner/{}?expand=sha", ""),
    (Takes::Read, "GET", "/api/models/owner/{}/revision/main", ""),
    (Takes::Read, "GET", "/api/models/owner/{}/tree/main", ""),
    (Takes::Read, "GET", "/api/models/owner/{}/treesize/main", ""),
    (Takes::Read, "GET", "/api/models/owner/{}/refs", ""),
    (Takes::Read, "GET", "/api/models/owner/{}/commits/main", ""),
    (
        Takes::Read,
        "GET",
        "/api/models/owner/{}/compare/dev..main",
        "",
    ),
    (Takes::Read, "GET", "/api/models/owner/{}/auth-check", ""),
    (
        Takes::Read,
        "GET",
        "/api/models/owner/{}/xet-read-token/main",
        "",
    ),
    (
        Takes::Read,
        "POST",
        "/api/models/owner/{}/paths-info/main",
        r#"{"paths":["a.txt"]}"#,
    ),
    (Takes::Read, "GET", "/owner/{}/resolve/main/a.txt", ""),
    (Takes::Read, "HEAD", "/owner/{}/resolve/main/a.txt", ""),
    (Takes::Read, "GET", "/owner/{}/raw/main/a.txt", ""),
    (
        Takes::Read,
        "POST",
        "/owner/{}.git/info/lfs/objects/batch",
        r#"{"operation":"download","objects":[]}"#,
    ),
    (
        Takes::Write,
        "GET",
        "/api/models/owner/{}/auth-check/write",
        "",
    ),
    (
        Takes::Write,
        "GET",
        "/api/models/owner/{}/xet-write-token/main",
        "",
    ),
    (
        Takes::Write,
        "POST",
        "/api/models/owner/{}/preupload/main",
        r#"{"files":[]}"#,
    ),
    (
        Takes::Write,
        "POST",
        "/api/models/owner/{}/commit/main",
        COMMIT,
    ),
    (
        Takes::Write,
        "POST",
        "/api/models/owner/{}/branch/dev",
        "{}",
    ),
    (
        Takes::Write,
        "DELETE",
        "/api/models/owner/{}/branch/none",
        "",
    ),
    (
        Takes::Write,
        "POST",
        "/api/models/owner/{}/tag/none",
        r#"{"tag":"v1"}"#,
    ),
    (Takes::Write, "DELETE", "/api/models/owner/{}/tag/none", ""),
    (
        Takes::Write,
        "POST",
        "/api/models/owner/{}/super-squash/none",
        r#"{"message":"m"}"#,
    ),
    (
        Takes::Write,
        "POST",
        "/owner/{}.git/info/lfs/objects/batch",
        BATCH,
    ),
    (
        Takes::Manage,
        "PUT",
        "/api/models/owner/{}/settings",
        r#"{"gated":"auto"}"#,
    ),
    (
        Takes::Manage,
        "POST",
        "/api/repos/move",
        r#"{"fromRepo":"owner/{}","toRepo":"other/x"}"#,
    ),
];

/// What somebody holds, and their token lets them use.
fn held(asker: Asker, is_private: bool) -> Option<Takes> {
    match asker {
        Asker::Anonymous | Asker::Outsider => (!is_private).then_some(Takes::Read),
        Asker::Reader | Asker::WriterReading => Some(Takes::Read),
        Asker::Writer => Some(Takes::Write),
        Asker::Owner | Asker::Admin => Some(Takes::Manage),
    }
}

/// Everything of an answer that its receiver could tell two repositories apart by, their names left out.
fn seen(answer: &Answer, name: &str) -> String {
    let headers: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "x-request-id" | "date" | "content-length"))
        .collect();
    let body = answer.text().replace(name, "NAME");
    format!("{} {headers:?} {body}", answer.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_for_whom_it_should_be() {
    let hub = Hub::start().await;
    for (takes, method, path, body) in ROUTES {
        for asker in Asker::ALL {
            for name in ["public", "private"] {
                let (path, body) = (path.replace("{}", name), body.replace("{}", name));
                let answer = hub.ask(asker, method, &path, &body).await;
                let held = held(asker, name == "private");
                let what = format!(
                    "{asker:?} {method} {path}: {} {}",
                    answer.status,
                    answer.text()
                );
                if held.is_none() {
                    let status = if asker == Asker::Anonymous { 401 } else { 404 };
                    assert_eq!(answer.status, status, "{what}");
                    // Where the name stands in the body, who asks is looked at before it.
                    let is_named = !path.starts_with("/api/repos/") || asker != Asker::Anonymous;
                    let code = is_named.then_some("RepoNotFound");
                    assert_eq!(answer.header("x-error-code"), code, "{what}");
                    let (path, body) = (path.replace(name, "absent"), body.replace(name, "absent"));
                    let absent = hub.ask(asker, method, &path, &body).await;
                    assert_eq!(seen(&answer, name), seen(&absent, "absent"), "{what}");
                } else if held < Some(*takes) {
                    let status = if asker == Asker::Anonymous { 401 } else { 403 };
                    assert_eq!(answer.status, status, "{what}");
                    assert_eq!(answer.header("x-error-code"), None, "{what}");
                } else {
                    assert!(!matches!(answer.status, 401 | 403 | 405), "{what}");
                    assert_ne!(
                        answer.header("x-error-code"),
                        Some("RepoNotFound"),
                        "{what}"
                    );
                    assert!(answer.status < 500, "{what}");
                    assert!(*takes > Takes::Read || answer.status == 200, "{what}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_searches_show_what_their_reader_may_see() {
    let hub = Hub::start().await;
    for path in [
        "/api/models",
        "/api/models?author=owner",
        "/api/models?search=private",
        "/api/quicksearch?q=private&type=model",
    ] {
        for asker in Asker::ALL {
            let answer = hub.ask(asker, "GET", path, "").await;
            let shows = answer.text().contains("owner/private");
            assert_eq!(shows, held(asker, true).is_some(), "{asker:?} {path}");
        }
    }
    let listed = hub.node.repos().list(RepoKind::Model).len();
    assert_eq!(listed, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_and_accounts_are_for_whom_they_should_be() {
    let hub = Hub::start().await;
    // Status by asker: anonymous, outsider, reader, writer, writer's reading token, owner, administrator.
    let table: [(&str, &str, &str, [u16; 7]); 7] = [
        (
            "POST",
            "/api/repos/create",
            r#"{"name":"owner/public"}"#,
            [401, 403, 403, 403, 403, 409, 409],
        ),
        (
            "POST",
            "/api/repos/create",
            r#"{"name":"owner/private"}"#,
            [401, 403, 403, 403, 403, 409, 409],
        ),
        (
            "POST",
            "/api/repos/create",
            r#"{"name":"nobody/x"}"#,
            [401, 403, 403, 403, 403, 403, 403],
        ),
        (
            "GET",
            "/api/whoami-v2",
            "",
            [401, 200, 200, 200, 200, 200, 200],
        ),
        (
            "GET",
            "/api/settings/tokens",
            "",
            [401, 200, 200, 200, 200, 200, 200],
        ),
        (
            "GET",
            "/api/settings/users",
            "",
            [401, 403, 403, 403, 403, 403, 200],
        ),
        (
            "POST",
            "/api/settings/users",
            r#"{"name":"owner"}"#,
            [401, 403, 403, 403, 403, 403, 409],
        ),
    ];
    for (method, path, body, expected) in table {
        for (asker, expected) in Asker::ALL.into_iter().zip(expected) {
            let answer = hub.ask(asker, method, path, body).await;
            let what = format!("{asker:?} {method} {path} {body}: {}", answer.text());
            assert_eq!(answer.status, expected, "{what}");
        }
    }
}

/// What makes or ends a repository: each is done once, by whoever may, after all who may not were refused.
#[tokio::test(flavor = "multi_thread")]
async fn copies_and_deletions_are_for_whom_they_should_be() {
    let hub = Hub::start().await;
    for name in ["public", "private"] {
        let is_private = name == "private";
        // Who may read may have a copy of their own, with a token that writes.
        let path = format!("/api/models/owner/{name}/duplicate");
        let lost = format!("/api/models/owner/{name}/lfs-files/duplicate");
        for asker in Asker::ALL {
            let mine = match asker {
                Asker::Admin => "boss",
                Asker::Owner => "owner",
                Asker::Outsider => "outsider",
                Asker::Reader => "reader",
                Asker::Writer | Asker::WriterReading => "writer",
                Asker::Anonymous => "nobody",
            };
            let body = format!(r#"{{"repository":"{mine}/copy-of-{name}"}}"#);
            let files = format!(r#"{{"target":{{"name":"owner/{name}"}},"files":[]}}"#);
            let answer = hub.ask(asker, "POST", &path, &body).await;
            let what = format!("{asker:?} {name}: {}", answer.text());
            let expected = match asker {
                Asker::Anonymous => 401,
                Asker::Outsider if is_private => 404,
                Asker::WriterReading => 403,
                _ => 200,
            };
            assert_eq!(answer.status, expected, "{what}");
            let answer = hub.ask(asker, "POST", &lost, &files).await;
            let what = format!("files {asker:?} {name}: {}", answer.text());
            let expected = match asker {
                Asker::Anonymous => 401,
                Asker::Outsider if is_private => 404,
                Asker::Outsider | Asker::Reader | Asker::WriterReading => 403,
                _ => 200,
            };
            assert_eq!(answer.status, expected, "{what}");
        }
        let copy = format!("/api/models/reader/copy-of-{name}");
        let seen = hub.ask(Asker::Outsider, "GET", &copy, "").await;
        assert_eq!(seen.status, if is_private { 404 } else { 200 });

        let body = format!(r#"{{"name":"owner/{name}"}}"#);
        for asker in Asker::ALL {
            let answer = hub.ask(asker, "DELETE", "/api/repos/delete", &body).await;
            let what = format!("{asker:?} deletes {name}: {}", answer.text());
            let expected = match asker {
                Asker::Anonymous => 401,
                Asker::Outsider if is_private => 404,
                Asker::Admin => 404,
                Asker::Owner => 200,
                _ => 403,
            };
            assert_eq!(answer.status, expected, "{what}");
        }
    }
}

/// A content that somebody sent, or has in a private repository, is nobody else's for its hash alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_hash_is_not_a_capability() {
    let hub = Hub::start().await;
    let oid = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    for name in ["one", "two"] {
        let owner = if name == "one" {
            Asker::Owner
        } else {
            Asker::Outsider
        };
        let body = format!(r#"{{"name":"{name}","private":true}}"#);
        let made = hub.ask(owner, "POST", "/api/repos/create", &body).await;
        assert_eq!(made.status, 200, "{}", made.text());
    }
    let batch = async |asker, repo: &str| {
        let path = format!("/{repo}.git/info/lfs/objects/batch");
        hub.ask(asker, "POST", &path, BATCH).await.json()["objects"][0].clone()
    };
    let object = batch(Asker::Owner, "owner/one").await;
    let link = object["actions"]["upload"]["href"].as_str().unwrap();
    let link = &link[link.find("/api").unwrap()..];
    // Other bytes, fewer, and more than were promised; then those, with a link that was changed; then those.
    for (link, body, status) in [
        (link.to_owned(), "xyz", 400),
        (link.to_owned(), "ab", 400),
        (link.to_owned(), "abcd", 400),
        (link.replace("size=3", "size=4"), "abcd", 403),
        (link.replace(oid, &"0".repeat(64)), "abc", 403),
        (link.to_owned(), "abc", 200),
    ] {
        let put = hub.ask(Asker::Anonymous, "PUT", &link, body).await;
        assert_eq!(put.status, status, "{link} {body}: {}", put.text());
    }
    assert!(batch(Asker::Owner, "owner/one").await["actions"].is_null());
    assert!(batch(Asker::Outsider, "outsider/two").await["actions"].is_object());

    let commit = format!(
        "{{\"key\":\"header\",\"value\":{{\"summary\":\"s\"}}}}\n{{\"key\":\"lfsFile\",\"value\":{{\"path\":\"x\",\"algo\":\"sha256\",\"oid\":\"{oid}\",\"size\":3}}}}\n"
    );
    let commit = async |asker, repo: &str| {
        let path = format!("/api/models/{repo}/commit/main");
        hub.ask(asker, "POST", &path, &commit).await.status
    };
    assert_eq!(commit(Asker::Outsider, "outsider/two").await, 400);
    assert_eq!(commit(Asker::Owner, "owner/one").await, 200);
    // In a private repository it still is nobody else's.
    assert_eq!(commit(Asker::Outsider, "outsider/two").await, 400);
    assert!(batch(Asker::Outsider, "outsider/two").await["actions"].is_object());
}
