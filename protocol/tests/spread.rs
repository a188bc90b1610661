//! Frames as they are on the wire: committed bytes, which neighbours of every version must read.
//!
//! `CAIRN_UPDATE_VECTORS=1 cargo test -p cairn-protocol --test spread` writes them anew, and the fuzz
//! seeds from them; nodes of before could not read such frames, so that is a new version of them.

use std::fs;
use std::path::{Path, PathBuf};

use cairn_protocol::hash::{NamespaceId, RecordId};
use cairn_protocol::spread::message::{Hello, Message, Scope, Side, Total};
use data_encoding::HEXLOWER;

/// Each frame by name.
fn vectors() -> Vec<(&'static str, Message)> {
    let ids = || vec![RecordId::from_bytes([1; 32]), RecordId::from_bytes([2; 32])];
    let namespace = |byte| NamespaceId::from_bytes([byte; 32]);
    let scope = |byte: u8| Scope {
        namespace: namespace(byte),
        count: byte.into(),
        fingerprint: [byte ^ 0xff; 16],
    };
    let hello = Hello {
        versions: (1, 2),
        format: 1,
        agent: "cairn/0.1.0".to_owned(),
        blob_ports: vec![4433, 4434],
        unknown: vec![(3, vec![7, 8]), (9, Vec::new())],
    };
    let envelopes = vec![b"one".to_vec(), b"three".to_vec()];
    let total = Total {
        namespaces: 3,
        fingerprint: [5; 16],
    };
    vec![
        ("hello", Message::Hello(hello)),
        ("records", Message::Records(envelopes)),
        ("total", Message::Total(Side::Asks, total)),
        (
            "summary",
            Message::Summary(Side::Answers, vec![scope(1), scope(2)], true),
        ),
        (
            "reconcile",
            Message::Reconcile(Side::Asks, namespace(4), vec![0x61, 0, 0, 2, 0]),
        ),
        ("want", Message::Want(ids())),
        ("offer", Message::Offer(ids())),
        ("optional", Message::Optional(0x80, vec![1, 2, 3])),
    ]
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
fn every_frame_has_the_committed_bytes_and_reads_back_from_them() {
    let update = std::env::var_os("CAIRN_UPDATE_VECTORS").is_some();
    let mut course = Vec::new();
    for (name, message) in vectors() {
        let bytes = message.encode();
        let path = folder("tests/vectors/spread").join(format!("{name}.hex"));
        if update {
            fs::write(&path, format!("{}\n", HEXLOWER.encode(&bytes))).expect("a vector");
            fs::write(folder("fuzz/seeds/frame").join(name), &bytes).expect("a seed");
            course.push(2);
            let length = u16::try_from(bytes.len()).expect("short");
            course.extend_from_slice(&length.to_le_bytes());
            course.extend_from_slice(&bytes);
        }
        let text = fs::read_to_string(&path).expect("a vector");
        let committed = HEXLOWER.decode(text.trim().as_bytes()).expect("hex");
        assert_eq!(
            HEXLOWER.encode(&bytes),
            HEXLOWER.encode(&committed),
            "{name}"
        );
        assert_eq!(Message::decode(&committed), Ok(message), "{name}");
    }
    if update {
        // Without the greeting, which was given before.
        let greeting = 3 + vectors()[0].1.encode().len();
        fs::write(folder("fuzz/seeds/spread/course"), &course[greeting..]).expect("a seed");
    }
}
