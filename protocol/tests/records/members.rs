//! Members of payloads: each that is wrong or missing refuses its record by name.

use cairn_protocol::record::{Record, RecordError};
use serde_json::{Value, json};

use crate::forms::{payload_of, signed};
use crate::vectors::vectors;

/// Each of these members, changed like this in an otherwise good record, refuses it by name.
#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn members_that_are_not_what_they_must_be_are_refused_by_name() {
    let hex = "ab".repeat(32);
    let capital = "AB".repeat(32);
    let p256 = format!("p256:02{hex}");
    let long = "a".repeat(97);
    let good = |name: &str| {
        let all = vectors();
        all.into_iter().find(|(other, _)| *other == name).unwrap().1
    };
    let table: Vec<(&str, &str, Value, &str)> = vec![
        // Headers.
        ("head", "/type", json!("event"), "type"),
        ("head", "/type", json!(1), "type"),
        ("head", "/signers", json!([]), "signers"),
        ("head", "/signers", json!("x"), "signers"),
        ("head", "/signers/0", json!(p256), "signers"),
        ("head", "/signers/0", json!(hex), "signers"),
        ("head", "/epoch", json!(0), "epoch"),
        ("head", "/time", Value::Null, "time"),
        ("head", "/namespace", Value::Null, "namespace"),
        ("head", "/namespace", json!(capital), "namespace"),
        ("head", "/repository", json!("ab"), "repository"),
        ("head", "/critical", json!(["epoch", "epoch"]), "critical"),
        ("head", "/critical", json!([1]), "critical"),
        ("head", "/seq", json!(0), "seq"),
        ("head", "/prev", Value::Null, "prev"),
        ("head", "/prev", json!(capital), "prev"),
        ("namespace", "/prev", json!(hex), "prev"),
        ("namespace", "/namespace", json!(hex), "namespace"),
        ("namespace", "/repository", json!(hex), "repository"),
        ("namespace-rotated", "/prev", Value::Null, "prev"),
        ("repository", "/repository", json!(hex), "repository"),
        ("repository", "/seq", json!(1), "seq"),
        ("repository", "/prev", Value::Null, "prev"),
        ("change", "/seq", json!(1), "seq"),
        ("names", "/repository", json!(hex), "repository"),
        // Namespaces.
        ("namespace", "/root", Value::Null, "root"),
        ("namespace", "/root/keys", json!([]), "root.keys"),
        ("namespace", "/root/keys/0", json!(p256), "root.keys"),
        (
            "namespace",
            "/root/keys",
            json!(vec![format!("ed25519:{hex}"); 2]),
            "root.keys",
        ),
        ("namespace", "/root/threshold", json!(0), "root.threshold"),
        ("namespace", "/root/threshold", json!(3), "root.threshold"),
        ("namespace", "/recovery", json!("x"), "recovery"),
        ("namespace", "/delegated", Value::Null, "delegated"),
        ("namespace", "/delegated/0", json!([]), "delegated"),
        (
            "namespace",
            "/delegated/0/key",
            json!(hex),
            "delegated[0].key",
        ),
        (
            "namespace",
            "/delegated/0/roles",
            json!([]),
            "delegated[0].roles",
        ),
        (
            "namespace",
            "/delegated/0/roles/0",
            json!("root"),
            "delegated[0].roles",
        ),
        (
            "namespace",
            "/delegated/0/roles",
            json!(["publish", "publish"]),
            "delegated[0].roles",
        ),
        (
            "namespace",
            "/delegated/0/repositories",
            json!([]),
            "delegated[0].repositories",
        ),
        (
            "namespace",
            "/delegated/0/refs",
            json!(["main"]),
            "delegated[0].refs",
        ),
        (
            "namespace",
            "/delegated/0/refs",
            json!(["refs/heads/a?"]),
            "delegated[0].refs",
        ),
        (
            "namespace",
            "/delegated/0/end",
            json!("soon"),
            "delegated[0].end",
        ),
        ("namespace", "/home", json!(p256), "home"),
        ("namespace", "/home", json!([]), "home"),
        (
            "namespace",
            "/claims/0/kind",
            json!("word"),
            "claims[0].kind",
        ),
        ("namespace", "/claims/0/value", json!(""), "claims[0].value"),
        (
            "namespace",
            "/claims/0/value",
            json!("ä"),
            "claims[0].value",
        ),
        ("namespace", "/carried", json!(1), "carried"),
        // Repositories.
        ("repository", "/kind", json!("models"), "kind"),
        ("repository", "/name", json!("a/b"), "name"),
        ("repository", "/name", json!(long), "name"),
        ("repository", "/nonce", json!("00"), "nonce"),
        ("repository", "/created_at", json!("today"), "created_at"),
        // Names.
        ("names", "/kind", json!("Model"), "kind"),
        ("names", "/name", json!("Model"), "name"),
        ("names", "/target", json!({}), "target.repository"),
        (
            "names",
            "/target",
            json!({"repository": hex, "redirect": "x"}),
            "target.repository",
        ),
        (
            "names",
            "/target/repository",
            json!(capital),
            "target.repository",
        ),
        (
            "names",
            "/target",
            json!({"redirect": "X"}),
            "target.redirect",
        ),
        (
            "names-redirect",
            "/target/redirect",
            json!("all-minilm"),
            "target",
        ),
        // Changes.
        ("change", "/ref", json!("main"), "ref"),
        ("change", "/ref", json!("refs/heads/*"), "ref"),
        (
            "change",
            "/ref",
            json!(format!("refs/heads/{}", "a".repeat(300))),
            "ref",
        ),
        ("change", "/old", json!(hex), "old"),
        ("change", "/new", json!(1), "new"),
        ("change", "/new", Value::Null, "new"),
        ("change", "/entry", Value::Null, "entry"),
        ("change", "/nonce", json!("AB".repeat(16)), "nonce"),
        // Heads.
        ("head", "/refs", Value::Null, "refs"),
        ("head", "/changes", json!([hex, hex]), "changes"),
        ("head", "/card", Value::Null, "card"),
        ("head", "/card/text", json!("text"), "card.text"),
        (
            "head",
            "/card/license",
            json!("MIT licence"),
            "card.license",
        ),
        ("head", "/card/license", json!(long), "card.license"),
        ("head", "/card/library_name", json!(""), "card.library_name"),
        (
            "head",
            "/card/pipeline_tag",
            json!("é"),
            "card.pipeline_tag",
        ),
        ("head", "/card/tags", json!(["a", "b c"]), "card.tags"),
        ("head", "/card/tags", json!(["a", "a"]), "card.tags"),
        (
            "head",
            "/card/tags",
            json!((0..65).map(|n| n.to_string()).collect::<Vec<_>>()),
            "card.tags",
        ),
        ("head", "/settings", json!([]), "settings"),
        // Freshness.
        ("freshness", "/visibility", json!("secret"), "visibility"),
        ("freshness", "/root", Value::Null, "root"),
        ("freshness", "/good_until", Value::Null, "good_until"),
        // Attestation.
        ("attestation", "/about", Value::Null, "about"),
        ("attestation", "/about/entry", json!("00"), "about.entry"),
        ("attestation", "/about/path", json!("../a"), "about.path"),
        ("attestation", "/finding", json!("two words"), "finding"),
        ("attestation", "/finding", Value::Null, "finding"),
        ("attestation", "/detail", json!(""), "detail"),
        ("attestation", "/seq", json!(1), "seq"),
        ("attestation", "/repository", Value::Null, "repository"),
        // Accounts.
        ("account", "/key", json!(p256), "key"),
        ("account", "/key", json!(hex), "key"),
        ("account", "/key", Value::Null, "key"),
        ("account", "/holder", json!(capital), "holder"),
        ("account", "/holder", json!("alice"), "holder"),
        ("account", "/repositories", json!([]), "repositories"),
        (
            "account",
            "/repositories",
            json!([hex, hex]),
            "repositories",
        ),
        ("account", "/repositories", json!(["all"]), "repositories"),
        (
            "account",
            "/repositories",
            json!((0..257).map(|n| format!("{n:064x}")).collect::<Vec<_>>()),
            "repositories",
        ),
        ("account", "/refs", json!([]), "refs"),
        ("account", "/refs", json!("refs/heads/*"), "refs"),
        ("account", "/refs", json!(["refs/a", "refs/a"]), "refs"),
        ("account", "/refs", json!(["main"]), "refs"),
        (
            "account",
            "/refs",
            json!((0..257).map(|n| format!("refs/{n}")).collect::<Vec<_>>()),
            "refs",
        ),
        ("account", "/end", json!("soon"), "end"),
        ("account", "/end", json!(false), "end"),
        ("account", "/revoked", Value::Null, "revoked"),
        ("account", "/revoked", json!(0), "revoked"),
        ("account", "/revoked", json!("false"), "revoked"),
        ("account", "/repository", json!(hex), "repository"),
        ("account", "/seq", json!(0), "seq"),
        ("account", "/prev", json!(hex), "prev"),
        (
            "account",
            "/signers",
            json!([
                format!("ed25519:{hex}"),
                format!("ed25519:{}", "cd".repeat(32))
            ]),
            "signers",
        ),
        ("account-revoked", "/prev", Value::Null, "prev"),
    ];
    for (name, pointer, value, member) in table {
        let record = good(name);
        let mut fields: Value = serde_json::from_slice(&payload_of(&record)).unwrap();
        match fields.pointer_mut(pointer) {
            Some(slot) => *slot = value.clone(),
            None => fields[&pointer[1..]] = value.clone(),
        }
        let bytes = signed(&record, serde_json::to_vec(&fields).unwrap());
        let error = Record::parse(&bytes).expect_err(&format!("{name}{pointer} = {value}"));
        let shown = error.to_string();
        let named = shown.starts_with(&format!("member `{member}` "))
            || matches!(error, RecordError::Type(_));
        assert!(named, "{name}{pointer} = {value}: {shown}");
    }
}

#[test]
fn a_member_that_is_missing_is_named() {
    for (name, record) in vectors() {
        let fields: Value = serde_json::from_slice(&payload_of(&record)).unwrap();
        for member in fields.as_object().unwrap().keys() {
            let mut less = fields.clone();
            less.as_object_mut().unwrap().remove(member);
            let bytes = signed(&record, serde_json::to_vec(&less).unwrap());
            let error = Record::parse(&bytes).expect_err(&format!("{name} without {member}"));
            assert_eq!(
                error.to_string(),
                format!("member `{member}` is missing"),
                "{name}"
            );
        }
    }
}
