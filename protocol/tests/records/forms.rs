//! One form of each record, and everything else refused.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use cairn_protocol::envelope::{Envelope, EnvelopeError};
use cairn_protocol::hash::{Blake3, RecordId};
use cairn_protocol::key::SecretKey;
use cairn_protocol::limits::HEAD_PAYLOAD_BYTES_MAX;
use cairn_protocol::record::{Body, PAYLOAD_TYPE, Record, RecordError};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::targets::TARGETS;
use crate::vectors::vectors;
use crate::world::key;

fn text(record: &Record) -> &str {
    std::str::from_utf8(record.envelope()).expect("ASCII")
}

pub(crate) fn payload_of(record: &Record) -> Vec<u8> {
    Envelope::parse(record.envelope())
        .expect("a record's envelope")
        .payload()
        .to_vec()
}

/// The keys that signed a vector, found among the fixed seeds.
fn keys_of(record: &Record) -> Vec<SecretKey> {
    let find = |public| (1..=20).map(key).find(|key| key.public() == public);
    let signers = record.header().signers.iter().copied();
    signers
        .map(|public| find(public).expect("a fixed seed"))
        .collect()
}

/// Any payload, signed as it stands by the keys of a record.
pub(crate) fn signed(record: &Record, payload: Vec<u8>) -> Vec<u8> {
    let keys = keys_of(record);
    let keys: Vec<&SecretKey> = keys.iter().collect();
    let envelope = Envelope::sign(PAYLOAD_TYPE, payload, &keys).expect("within the limits");
    envelope.as_bytes().to_vec()
}

#[test]
fn an_envelope_has_one_form() {
    for (name, record) in vectors() {
        let one = text(&record);
        let fields: Value = serde_json::from_str(one).unwrap();
        let payload = fields["payload"].as_str().unwrap();
        let kind = fields["payloadType"].as_str().unwrap();
        let bytes = STANDARD.decode(payload).unwrap();
        let signatures = &one[one.find("\"signatures\"").unwrap()..one.len() - 1];
        let first = fields["signatures"][0]["sig"].as_str().unwrap();
        let signature = STANDARD.decode(first).unwrap();
        let mut others = vec![
            format!("{one}\n"),
            format!(" {one}"),
            format!("\u{feff}{one}"),
            one.replacen(':', ": ", 1),
            one.replacen(',', ", ", 1),
            one.replacen(',', "\n,", 1),
            one.replacen("\"payload\"", "\"p\\u0061yload\"", 1),
            one.replacen("payload", "Payload", 1),
            one.replacen(kind, &kind.replace('/', "\\/"), 1),
            one.replacen(kind, "application/vnd.in-toto+json", 1),
            one.replacen("{\"sig\":", "{\"keyid\":\"\",\"sig\":", 1),
            one.replacen("\"}]}", "\",\"keyid\":\"\"}]}", 1),
            one.replacen("]}", "],\"extra\":1}", 1),
            one.replacen("]}", ",{\"sig\":\"\"}]}", 1),
            one.replacen(first, &first.replace('=', ""), 1),
            one.replacen(first, &format!("{first}===="), 1),
            // The last two letters before `==` carry four spare bits.
            one.replacen("==\"}", "=\"}", 1),
            one.replacen(
                first,
                &format!("\\u{:04x}{}", first.as_bytes()[0], &first[1..]),
                1,
            ),
            format!("{{\"payload\":\"{payload}\",{signatures},\"payloadType\":\"{kind}\"}}"),
            format!("{{\"payloadType\":\"{kind}\",\"payload\":\"{payload}\",{signatures}}}"),
            one[..one.len() - 1].to_owned(),
            one.replacen(&format!("{{\"sig\":\"{first}\"}}"), "", 1),
            serde_json::to_string_pretty(&fields).unwrap(),
        ];
        for engine in [&STANDARD_NO_PAD, &URL_SAFE] {
            for (part, bytes) in [(payload, &bytes), (first, &signature)] {
                let variant = engine.encode(bytes);
                others.extend((variant != part).then(|| one.replacen(part, &variant, 1)));
            }
        }
        for other in others {
            assert_ne!(other, one, "{name}: the variant is none");
            assert!(Record::parse(other.as_bytes()).is_err(), "{name}: {other}");
            assert!(
                Record::parse_trusted(other.as_bytes()).is_err(),
                "{name}, trusted: {other}"
            );
        }
    }
}

#[test]
fn no_byte_can_change() {
    for (name, record) in vectors() {
        let mut bytes = record.envelope().to_vec();
        for position in 0..bytes.len() {
            let byte = bytes[position];
            for flip in [1, 2, 0x10, 0x20, 0x80] {
                bytes[position] = byte ^ flip;
                assert!(
                    Record::parse(&bytes).is_err(),
                    "{name}: {position} ^ {flip}"
                );
            }
            bytes[position] = byte;
        }
        assert_eq!(Record::parse(&bytes), Ok(record));
    }
}

#[test]
fn signatures_are_one_for_each_signer_in_order() {
    let all = vectors();
    let (_, record) = all
        .iter()
        .find(|(name, _)| *name == "namespace-rotated")
        .unwrap();
    let fields: Value = serde_json::from_str(text(record)).unwrap();
    let payload = fields["payload"].as_str().unwrap();
    let signatures: Vec<&str> = fields["signatures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|signature| signature["sig"].as_str().unwrap())
        .collect();
    let [old, new] = signatures.as_slice() else {
        panic!("two signers")
    };
    let with = |signatures: &[&str]| {
        let signatures: Vec<String> = signatures
            .iter()
            .map(|signature| format!("{{\"sig\":\"{signature}\"}}"))
            .collect();
        format!(
            "{{\"payload\":\"{payload}\",\"payloadType\":\"{PAYLOAD_TYPE}\",\"signatures\":[{}]}}",
            signatures.join(",")
        )
    };
    assert_eq!(with(&[old, new]), text(record), "the control");
    for signatures in [
        &[*old][..],
        &[*new],
        &[*new, *old],
        &[*old, *old],
        &[*old, *new, *new],
    ] {
        let bytes = with(signatures);
        let error = Record::parse(bytes.as_bytes()).unwrap_err();
        assert!(
            matches!(
                error,
                RecordError::Envelope(
                    EnvelopeError::Verify { .. } | EnvelopeError::SignerCount { .. }
                )
            ),
            "{error}"
        );
        // Nor has any of them another id.
        let envelope = Envelope::parse(bytes.as_bytes()).unwrap();
        assert_eq!(envelope.id(), record.id());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn an_id_is_of_what_was_signed(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
        let one = Envelope::sign("a/b", payload.clone(), &[&key(1)]).unwrap();
        let other = Envelope::sign("a/b", payload.clone(), &[&key(2), &key(1)]).unwrap();
        prop_assert_eq!(one.id(), other.id());
        let mut encoding = format!("DSSEv1 3 a/b {} ", payload.len()).into_bytes();
        encoding.extend_from_slice(&payload);
        let hash = Blake3::of(&encoding);
        prop_assert_eq!(one.id(), RecordId::from_bytes(*hash.as_bytes()));
        let parsed = Envelope::parse(one.as_bytes()).unwrap();
        prop_assert_eq!(parsed.payload(), payload.as_slice());
        prop_assert!(other.verify(&[key(2).public(), key(1).public()]).is_ok());
        prop_assert!(other.verify(&[key(1).public(), key(2).public()]).is_err());
    }

    #[test]
    fn targets_hold_for_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for (_, target) in TARGETS {
            target(&bytes);
        }
    }

    /// Damaged and cut pieces of real records reach further into the parsers than noise.
    #[test]
    fn targets_hold_for_damaged_records(
        which in any::<proptest::sample::Index>(),
        at in any::<proptest::sample::Index>(),
        with in proptest::collection::vec(any::<u8>(), 0..4),
        whole in any::<bool>(),
    ) {
        let all = vectors();
        let record = &which.get(&all).1;
        let mut bytes = if whole { record.envelope().to_vec() } else { payload_of(record) };
        let start = at.index(bytes.len());
        let end = (start + 2).min(bytes.len());
        bytes.splice(start..end, with);
        for (name, target) in TARGETS {
            // Histories are read from any bytes alike.
            if *name != "ledger" {
                target(&bytes);
            }
        }
    }
}

#[test]
fn a_payload_stands_as_it_was_signed() {
    for (name, record) in vectors() {
        // The members in another order, with white space, and one that nobody knows.
        let mut fields: Value = serde_json::from_slice(&payload_of(&record)).unwrap();
        fields["aaa_unknown"] = json!({"deep": [1, null, {"é": true}]});
        let payload = serde_json::to_vec_pretty(&fields).unwrap();
        let bytes = signed(&record, payload.clone());
        let read = Record::parse(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read.body(), record.body());
        assert_eq!(read.header(), record.header());
        assert_eq!(read.envelope(), bytes, "{name} keeps its bytes");
        assert_ne!(read.id(), record.id(), "{name} is another record");
        assert_eq!(payload_of(&read), payload);

        fields["critical"] = json!(["epoch", "aaa_unknown"]);
        let refused = Record::parse(&signed(&record, serde_json::to_vec(&fields).unwrap()));
        assert_eq!(
            refused,
            Err(RecordError::Critical("aaa_unknown".to_owned()))
        );
        fields["critical"] = json!(["epoch", "type"]);
        assert!(Record::parse(&signed(&record, serde_json::to_vec(&fields).unwrap())).is_ok());
    }
}

#[test]
fn only_strict_json_is_a_payload() {
    let all = vectors();
    let record = &all[0].1;
    let payload = String::from_utf8(payload_of(record)).unwrap();
    let changed = |from: &str, to: &str| {
        assert!(payload.contains(from), "{from}");
        signed(record, payload.replacen(from, to, 1).into_bytes())
    };
    for (from, to) in [
        ("\"version\":1", "\"version\":1,\"version\":1"),
        ("\"version\":1", "\"version\":1.0"),
        ("\"version\":1", "\"version\":1e0"),
        ("\"version\":1", "\"version\":\"1\""),
        ("\"version\":1", "\"version\":2"),
        ("\"epoch\":1", "\"epoch\":-1"),
        ("\"time\":1700000000", "\"time\":9007199254740992"),
        ("\"time\":1700000000", "\"time\":-0"),
        (
            "\"claims\":",
            "\"x\":[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]],\"claims\":",
        ),
        ("\"claims\":", "\"x\":\"\\ud800\",\"claims\":"),
        ("{\"version\"", "[{\"version\""),
        ("{\"version\"", "\u{feff}{\"version\""),
    ] {
        assert!(Record::parse(&changed(from, to)).is_err(), "{to}");
    }
    assert!(Record::parse(&changed("{", " {")).is_ok(), "the control");
    let error = Record::parse(&changed("\"time\":1700000000", "\"time\":1.5")).unwrap_err();
    assert!(matches!(error, RecordError::Json(_)), "{error}");
    assert_eq!(
        Record::parse(&signed(record, b"[]".to_vec())),
        Err(RecordError::NotAnObject)
    );
    let keys = [&key(1)];
    let other = Envelope::sign("application/vnd.in-toto+json", b"{}".to_vec(), &keys).unwrap();
    assert!(matches!(
        Record::parse(other.as_bytes()),
        Err(RecordError::PayloadType(_))
    ));
}

#[test]
fn a_head_is_small() {
    let all = vectors();
    let (_, head) = all.iter().find(|(name, _)| *name == "head").unwrap();
    let Body::Head(mut body) = head.body().clone() else {
        panic!("a head")
    };
    let home = key(3);
    let mut sign = |bytes: usize| {
        body.settings.set("note", "a".repeat(bytes));
        Record::sign(head.header().clone(), Body::Head(body.clone()), &[&home])
    };
    let room = HEAD_PAYLOAD_BYTES_MAX - payload_of(&sign(0).unwrap()).len();
    assert_eq!(
        payload_of(&sign(room).unwrap()).len(),
        HEAD_PAYLOAD_BYTES_MAX
    );
    assert_eq!(
        sign(room + 1),
        Err(RecordError::HeadTooLarge(HEAD_PAYLOAD_BYTES_MAX + 1))
    );
}

#[test]
fn signing_refuses_what_parsing_refuses() {
    for (name, record) in vectors() {
        let keys = keys_of(&record);
        let keys: Vec<&SecretKey> = keys.iter().collect();
        let mut header = record.header().clone();
        header.epoch = 0;
        let refused = Record::sign(header, record.body().clone(), &keys);
        assert!(matches!(refused, Err(RecordError::Member { .. })), "{name}");
        let twice: Vec<&SecretKey> = keys.iter().chain(&keys).copied().collect();
        assert!(Record::sign(record.header().clone(), record.body().clone(), &twice).is_err());
        assert!(Record::sign(record.header().clone(), record.body().clone(), &[]).is_err());
        let id: RecordId = record.id();
        assert_eq!(id.to_hex().parse(), Ok(id));
    }
}
