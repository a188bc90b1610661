//! Fuzz targets of the frames between neighbours, and of the machine that takes them.

#![allow(
    unreachable_pub,
    reason = "public in the fuzz crate, private in the tests that include this file"
)]

use std::time::Duration;

use cairn_protocol::hash::{NamespaceId, RecordId};
use cairn_protocol::key::PublicKey;
use cairn_protocol::limits::FRAME_BYTES_MAX;
use cairn_protocol::spread::message::{Hello, Message, pack};
use cairn_protocol::spread::{Action, Config, Input, Known, Spread};

/// A target: asserts what must hold of any bytes.
pub type Target = fn(&[u8]);

/// Every target of this file, by name.
pub const TARGETS: &[(&str, Target)] = &[("frame", frame), ("spread", spread)];

/// What decodes as a frame encodes to the same bytes; its records pack into frames again.
pub fn frame(data: &[u8]) {
    let Ok(message) = Message::decode(data) else {
        return;
    };
    assert_eq!(message.encode(), data);
    if let Message::Records(envelopes) = message {
        let mut packed = Vec::new();
        for frame in pack(envelopes.clone()) {
            assert!(frame.len() <= FRAME_BYTES_MAX);
            match Message::decode(&frame) {
                Ok(Message::Records(page)) => packed.extend(page),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(packed, envelopes);
    }
}

/// Frames of two neighbours; the bytes are each frame's neighbour, time and length, and its content.
///
/// A machine never sends what is no frame, and never speaks to one that it parted from.
pub fn spread(data: &[u8]) {
    let hello = Hello {
        versions: (1, 1),
        format: 1,
        agent: "cairn/fuzz".to_owned(),
        blob_ports: vec![1],
        unknown: Vec::new(),
    };
    let known = (0_u8..100).map(|index| Known {
        id: RecordId::from_bytes([index; 32]),
        namespace: NamespaceId::from_bytes([index % 2; 32]),
        time: index.into(),
    });
    let mut machine = Spread::new(Config::new(hello.clone()), known, 1);
    let key = |peer: u8| PublicKey::Ed25519([peer; 32]);
    let mut now = Duration::ZERO;
    for peer in 0..2 {
        machine.handle(now, Input::Connected(key(peer)));
        let greeting = Message::Hello(hello.clone()).encode();
        machine.handle(now, Input::Frame(key(peer), greeting));
    }
    let mut parted = [false; 2];
    let mut rest = data;
    while let [head, low, high, after @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
        let (content, next) = after.split_at(length);
        rest = next;
        now += Duration::from_millis(u64::from(*head >> 1) * 100);
        let peer = *head & 1;
        let input = Input::Frame(key(peer), content.to_vec());
        let mut actions = machine.handle(now, input);
        actions.extend(machine.handle(now, Input::Tick));
        for action in actions {
            match action {
                Action::Send(to, frame) => {
                    assert!(frame.len() <= FRAME_BYTES_MAX);
                    assert!(Message::decode(&frame).is_ok(), "{frame:02x?}");
                    assert!(!parted.iter().enumerate().any(|(peer, parted)| {
                        *parted && u8::try_from(peer).is_ok_and(|peer| to == key(peer))
                    }));
                }
                Action::SendRecords(_, ids) => {
                    assert!(ids.iter().all(|id| id.as_bytes()[0] < 100));
                }
                Action::Take(_, record) => {
                    machine.handle(now, Input::Refused(record.id()));
                }
                Action::Drop(..) => parted[usize::from(peer)] = true,
                Action::Agrees(_) => {}
                Action::Met(..) => panic!("they have met"),
            }
        }
    }
}
