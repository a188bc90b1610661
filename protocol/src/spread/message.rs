//! The frames that neighbours exchange, byte by byte: see `docs/spread.md`.
//!
//! Each has one encoding; what does not encode to the same bytes again is refused. Every count and
//! length is checked against [`crate::limits`] before anything is set aside for it.

use crate::format::{FormatError, Reader, check_count, small};
use crate::hash::{NamespaceId, RecordId};
use crate::limits::{
    AGENT_BYTES_MAX, BLOB_PORTS_MAX, ENVELOPE_BYTES_MAX, FRAME_BYTES_MAX, FRAME_RECORDS_MAX,
    HELLO_FIELD_BYTES_MAX, HELLO_FIELDS_MAX, SUMMARY_SCOPES_MAX, WANT_IDS_MAX,
};

/// Version of the frames that this code speaks.
pub const VERSION: u16 = 1;
/// Name of the protocol on a libp2p stream.
pub const PROTOCOL: &str = "/cairn/spread/1";

/// What errors call a frame.
const FRAME: &str = "frame";

const HELLO: u8 = 1;
const RECORDS: u8 = 2;
const TOTAL: u8 = 3;
const SUMMARY: u8 = 4;
const RECONCILE: u8 = 5;
const WANT: u8 = 6;
const OFFER: u8 = 7;
/// Types from this on may be ignored by who doesn't know them.
const OPTIONAL: u8 = 0x80;

/// Bytes of a records frame before its first envelope.
const RECORDS_HEADER_BYTES: usize = 3;
/// Bytes before each envelope.
const RECORD_HEADER_BYTES: usize = 4;

/// The first frame in each direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Lowest and highest version that the sender speaks.
    pub versions: (u16, u16),
    /// Version of the sender's data format, to be shown.
    pub format: u32,
    /// The program and its version, to be shown: `cairn/0.1.0`.
    pub agent: String,
    /// Ports, UDP and TCP, at which the sender's blobs are served, at the address that it is reached at.
    pub blob_ports: Vec<u16>,
    /// Numbered fields that this version doesn't know, carried as they came.
    pub unknown: Vec<(u16, Vec<u8>)>,
}

/// A frame's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Who the sender is.
    Hello(Hello),
    /// Envelopes of records: pushed, or asked for.
    Records(Vec<Vec<u8>>),
    /// What the sender has of all namespaces together.
    Total(Side, Total),
    /// What the sender has of each namespace, a page of it; whether more pages follow.
    Summary(Side, Vec<Scope>, bool),
    /// A round of negentropy over one namespace.
    Reconcile(Side, NamespaceId, Vec<u8>),
    /// Ask for records by id.
    Want(Vec<RecordId>),
    /// Records that the sender has and could send, in the order to ask for them.
    Offer(Vec<RecordId>),
    /// A frame of a type that a later version knows, and that may be ignored.
    Optional(u8, Vec<u8>),
}

/// Which of the two sides of a comparison a frame comes from; each neighbour can begin one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It began the comparison, and learns from it what differs.
    Asks,
    /// It answers, and keeps nothing in mind.
    Answers,
}

/// What one side has altogether, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Total {
    /// Namespaces with at least one record.
    pub namespaces: u64,
    /// Of all their summaries.
    pub fingerprint: [u8; 16],
}

/// What one side has of a namespace, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// The namespace.
    pub namespace: NamespaceId,
    /// Records.
    pub count: u64,
    /// Of all their ids.
    pub fingerprint: [u8; 16],
}

impl Message {
    /// The one byte form of a frame's content, without its length.
    ///
    /// What is given must be within the limits, as all is that this crate makes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Hello(hello) => {
                out.push(HELLO);
                hello.encode(&mut out);
            }
            Self::Records(envelopes) => {
                out.push(RECORDS);
                out.extend_from_slice(&small::<u16>(envelopes.len()).to_le_bytes());
                for envelope in envelopes {
                    out.extend_from_slice(&small::<u32>(envelope.len()).to_le_bytes());
                    out.extend_from_slice(envelope);
                }
            }
            Self::Total(side, total) => {
                out.push(TOTAL);
                out.push(side.byte());
                out.extend_from_slice(&total.namespaces.to_le_bytes());
                out.extend_from_slice(&total.fingerprint);
            }
            Self::Summary(side, scopes, more) => {
                out.push(SUMMARY);
                out.push(side.byte());
                out.push(u8::from(*more));
                out.extend_from_slice(&small::<u16>(scopes.len()).to_le_bytes());
                for scope in scopes {
                    out.extend_from_slice(scope.namespace.as_bytes());
                    out.extend_from_slice(&scope.count.to_le_bytes());
                    out.extend_from_slice(&scope.fingerprint);
                }
            }
            Self::Reconcile(side, namespace, round) => {
                out.push(RECONCILE);
                out.push(side.byte());
                out.extend_from_slice(namespace.as_bytes());
                out.extend_from_slice(round);
            }
            Self::Want(ids) => encode_ids(&mut out, WANT, ids),
            Self::Offer(ids) => encode_ids(&mut out, OFFER, ids),
            Self::Optional(kind, content) => {
                out.push(*kind);
                out.extend_from_slice(content);
            }
        }
        out
    }

    /// Reads exactly what [`Self::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        check_count(FRAME, "bytes", bytes.len(), FRAME_BYTES_MAX)?;
        let mut reader = Reader::bare(FRAME, bytes);
        let message = match reader.u8("type")? {
            HELLO => Self::Hello(Hello::decode(&mut reader)?),
            RECORDS => Self::Records(decode_envelopes(&mut reader)?),
            TOTAL => {
                let side = Side::decode(&mut reader)?;
                let total = Total {
                    namespaces: u64::from_le_bytes(reader.array("count of namespaces")?),
                    fingerprint: reader.array("fingerprint")?,
                };
                Self::Total(side, total)
            }
            SUMMARY => decode_summary(&mut reader)?,
            RECONCILE => {
                let side = Side::decode(&mut reader)?;
                let namespace = NamespaceId::from_bytes(reader.array("namespace")?);
                let round = reader.rest();
                if round.is_empty() {
                    return Err(reader.rule("round", "a round of comparison is not empty"));
                }
                Self::Reconcile(side, namespace, round.to_vec())
            }
            WANT => Self::Want(decode_ids(&mut reader)?),
            OFFER => Self::Offer(decode_ids(&mut reader)?),
            kind if kind >= OPTIONAL => Self::Optional(kind, reader.rest().to_vec()),
            kind => {
                let place = format!("type {kind}");
                return Err(reader.rule(place, "types below 128 must be known"));
            }
        };
        reader.finish()?;
        Ok(message)
    }
}

impl Side {
    const fn byte(self) -> u8 {
        match self {
            Self::Asks => 0,
            Self::Answers => 1,
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        match reader.u8("side")? {
            0 => Ok(Self::Asks),
            1 => Ok(Self::Answers),
            _ => Err(reader.rule("side", "it is 0 (asks) or 1 (answers)")),
        }
    }
}

impl Hello {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.versions.0.to_le_bytes());
        out.extend_from_slice(&self.versions.1.to_le_bytes());
        out.extend_from_slice(&self.format.to_le_bytes());
        out.push(small(self.agent.len()));
        out.extend_from_slice(self.agent.as_bytes());
        out.push(small(self.blob_ports.len()));
        for port in &self.blob_ports {
            out.extend_from_slice(&port.to_le_bytes());
        }
        for (number, value) in &self.unknown {
            out.extend_from_slice(&number.to_le_bytes());
            out.extend_from_slice(&small::<u16>(value.len()).to_le_bytes());
            out.extend_from_slice(value);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let versions = (
            reader.u16("lowest version")?,
            reader.u16("highest version")?,
        );
        if versions.0 > versions.1 {
            return Err(reader.rule("versions", "the lowest is not above the highest"));
        }
        let format = reader.u32("format")?;
        let length = usize::from(reader.u8("length of agent")?);
        check_count(FRAME, "bytes of agent", length, AGENT_BYTES_MAX)?;
        let agent = std::str::from_utf8(reader.bytes(length, "agent")?)
            .ok()
            .filter(|agent| !agent.chars().any(char::is_control));
        let Some(agent) = agent else {
            return Err(reader.rule("agent", "it is UTF-8 without control characters"));
        };
        let count = usize::from(reader.u8("count of ports")?);
        check_count(FRAME, "ports", count, BLOB_PORTS_MAX)?;
        let mut blob_ports = Vec::with_capacity(count);
        for _ in 0..count {
            blob_ports.push(reader.u16("port")?);
        }
        if blob_ports.contains(&0) {
            return Err(reader.rule("ports", "none is 0"));
        }
        Ok(Self {
            versions,
            format,
            agent: agent.to_owned(),
            blob_ports,
            unknown: Self::decode_unknown(reader)?,
        })
    }

    fn decode_unknown(reader: &mut Reader<'_>) -> Result<Vec<(u16, Vec<u8>)>, FormatError> {
        let mut unknown: Vec<(u16, Vec<u8>)> = Vec::new();
        while !reader.is_empty() {
            check_count(FRAME, "fields", unknown.len() + 1, HELLO_FIELDS_MAX)?;
            let number = reader.u16("number of a field")?;
            if unknown.last().is_some_and(|(last, _)| *last >= number) {
                return Err(reader.rule("fields", "their numbers ascend, none twice"));
            }
            let length = usize::from(reader.u16("length of a field")?);
            check_count(FRAME, "bytes of a field", length, HELLO_FIELD_BYTES_MAX)?;
            unknown.push((number, reader.bytes(length, "field")?.to_vec()));
        }
        Ok(unknown)
    }

    /// The same within the limits: what is too much is left out.
    pub(super) fn bounded(mut self) -> Self {
        self.agent.retain(|letter| !letter.is_control());
        while self.agent.len() > AGENT_BYTES_MAX {
            self.agent.pop();
        }
        self.blob_ports.retain(|port| *port != 0);
        self.blob_ports.truncate(BLOB_PORTS_MAX);
        self.unknown
            .retain(|(_, value)| value.len() <= HELLO_FIELD_BYTES_MAX);
        self.unknown.sort();
        self.unknown.dedup_by_key(|(number, _)| *number);
        self.unknown.truncate(HELLO_FIELDS_MAX);
        self
    }
}

fn encode_ids(out: &mut Vec<u8>, kind: u8, ids: &[RecordId]) {
    out.push(kind);
    out.extend_from_slice(&small::<u16>(ids.len()).to_le_bytes());
    for id in ids {
        out.extend_from_slice(id.as_bytes());
    }
}

fn decode_ids(reader: &mut Reader<'_>) -> Result<Vec<RecordId>, FormatError> {
    let count = usize::from(reader.u16("count of ids")?);
    check_count(FRAME, "ids", count, WANT_IDS_MAX)?;
    let ids = reader.bytes(count * RecordId::SIZE, "ids")?;
    let (ids, _) = ids.as_chunks::<{ RecordId::SIZE }>();
    Ok(ids.iter().copied().map(RecordId::from_bytes).collect())
}

fn decode_envelopes(reader: &mut Reader<'_>) -> Result<Vec<Vec<u8>>, FormatError> {
    let count = usize::from(reader.u16("count of records")?);
    check_count(FRAME, "records", count, FRAME_RECORDS_MAX)?;
    let mut envelopes = Vec::with_capacity(count);
    for _ in 0..count {
        let length = usize::try_from(reader.u32("length of a record")?).unwrap_or(usize::MAX);
        check_count(FRAME, "bytes of a record", length, ENVELOPE_BYTES_MAX)?;
        envelopes.push(reader.bytes(length, "record")?.to_vec());
    }
    Ok(envelopes)
}

fn decode_summary(reader: &mut Reader<'_>) -> Result<Message, FormatError> {
    let side = Side::decode(reader)?;
    let more = match reader.u8("whether more pages follow")? {
        0 => false,
        1 => true,
        _ => return Err(reader.rule("more", "it is 0 or 1")),
    };
    let count = usize::from(reader.u16("count of namespaces")?);
    check_count(FRAME, "namespaces", count, SUMMARY_SCOPES_MAX)?;
    let mut scopes: Vec<Scope> = Vec::with_capacity(count);
    for _ in 0..count {
        let scope = Scope {
            namespace: NamespaceId::from_bytes(reader.array("namespace")?),
            count: u64::from_le_bytes(reader.array("count of records")?),
            fingerprint: reader.array("fingerprint")?,
        };
        if scopes
            .last()
            .is_some_and(|last| last.namespace >= scope.namespace)
        {
            return Err(reader.rule("namespaces", "they ascend, none twice"));
        }
        scopes.push(scope);
    }
    Ok(Message::Summary(side, scopes, more))
}

/// Packs envelopes into as few frames as their limit allows, in order.
///
/// One over its own limit, which no record has, is left out.
pub fn pack(envelopes: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut page = Vec::new();
    let mut bytes = RECORDS_HEADER_BYTES;
    for envelope in envelopes {
        if envelope.len() > ENVELOPE_BYTES_MAX {
            continue;
        }
        let more = RECORD_HEADER_BYTES + envelope.len();
        if page.len() == FRAME_RECORDS_MAX || bytes + more > FRAME_BYTES_MAX {
            frames.push(Message::Records(std::mem::take(&mut page)).encode());
            bytes = RECORDS_HEADER_BYTES;
        }
        bytes += more;
        page.push(envelope);
    }
    if !page.is_empty() {
        frames.push(Message::Records(page).encode());
    }
    frames
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn hello() -> impl Strategy<Value = Hello> {
        let unknown = proptest::collection::btree_map(any::<u16>(), vec(any::<u8>(), 0..40), 0..5);
        let ports = vec(1_u16.., 0..=BLOB_PORTS_MAX);
        (
            any::<(u16, u16)>(),
            any::<u32>(),
            "[ -~é]{0,30}",
            ports,
            unknown,
        )
            .prop_map(|((one, other), format, agent, blob_ports, unknown)| Hello {
                versions: (one.min(other), one.max(other)),
                format,
                agent,
                blob_ports,
                unknown: unknown.into_iter().collect(),
            })
    }

    fn side() -> impl Strategy<Value = Side> {
        prop_oneof![Just(Side::Asks), Just(Side::Answers)]
    }

    fn message() -> impl Strategy<Value = Message> {
        let ids = || vec(any::<[u8; 32]>().prop_map(RecordId::from_bytes), 0..20);
        let scopes =
            proptest::collection::btree_map(any::<[u8; 32]>(), any::<(u64, [u8; 16])>(), 0..9);
        prop_oneof![
            hello().prop_map(Message::Hello),
            vec(vec(any::<u8>(), 0..90), 0..9).prop_map(Message::Records),
            (side(), any::<(u64, [u8; 16])>()).prop_map(|(side, (namespaces, fingerprint))| {
                Message::Total(
                    side,
                    Total {
                        namespaces,
                        fingerprint,
                    },
                )
            }),
            (side(), scopes, any::<bool>()).prop_map(|(side, scopes, more)| {
                let scope = |(namespace, (count, fingerprint))| Scope {
                    namespace: NamespaceId::from_bytes(namespace),
                    count,
                    fingerprint,
                };
                Message::Summary(side, scopes.into_iter().map(scope).collect(), more)
            }),
            (side(), any::<[u8; 32]>(), vec(any::<u8>(), 1..90)).prop_map(
                |(side, namespace, round)| {
                    Message::Reconcile(side, NamespaceId::from_bytes(namespace), round)
                }
            ),
            ids().prop_map(Message::Want),
            ids().prop_map(Message::Offer),
            (OPTIONAL.., vec(any::<u8>(), 0..90))
                .prop_map(|(kind, content)| Message::Optional(kind, content)),
        ]
    }

    proptest! {
        #[test]
        fn every_message_reads_back_and_no_byte_can_be_cut_or_added(message in message()) {
            let bytes = message.encode();
            prop_assert_eq!(Message::decode(&bytes), Ok(message.clone()));
            if !matches!(message, Message::Reconcile(..) | Message::Optional(..)) {
                prop_assert_ne!(Message::decode(&bytes[..bytes.len() - 1]), Ok(message));
                let longer = [&bytes[..], &[0]].concat();
                prop_assert!(Message::decode(&longer).is_err());
            }
        }

        #[test]
        fn what_is_taken_encodes_to_the_same_bytes(bytes in vec(any::<u8>(), 0..200), kind in 0_u8..9) {
            let bytes = [&[kind], &bytes[..]].concat();
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert_eq!(message.encode(), bytes);
            }
        }

        #[test]
        fn packed_envelopes_come_out_whole_in_order_and_within_the_limits(
            lengths in vec(prop_oneof![0..100_usize, 0..=ENVELOPE_BYTES_MAX + 1], 0..60),
        ) {
            let envelopes: Vec<Vec<u8>> = lengths.iter().enumerate()
                .map(|(index, length)| vec![u8::try_from(index).expect("few"); *length]).collect();
            let mut read = Vec::new();
            for frame in pack(envelopes.clone()) {
                prop_assert!(frame.len() <= FRAME_BYTES_MAX);
                let Ok(Message::Records(page)) = Message::decode(&frame) else {
                    return Err(TestCaseError::fail("no records"));
                };
                prop_assert!(!page.is_empty());
                read.extend(page);
            }
            let fit: Vec<_> = envelopes.into_iter()
                .filter(|envelope| envelope.len() <= ENVELOPE_BYTES_MAX).collect();
            prop_assert_eq!(read, fit);
        }
    }

    #[test]
    fn many_small_envelopes_fill_frames_to_their_count() {
        let frames = pack(vec![vec![7]; 2 * FRAME_RECORDS_MAX + 1]);
        let counts: Vec<_> = frames
            .iter()
            .map(|frame| match Message::decode(frame) {
                Ok(Message::Records(page)) => page.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(counts, [FRAME_RECORDS_MAX, FRAME_RECORDS_MAX, 1]);
    }

    #[test]
    fn a_type_that_must_be_known_is_refused_and_counts_over_the_limits_are() {
        assert!(Message::decode(&[]).is_err());
        assert!(Message::decode(&[0]).is_err());
        assert!(Message::decode(&[OFFER + 1]).is_err());
        assert!(Message::decode(&[0x7f]).is_err());
        assert!(Message::decode(&[OPTIONAL]).is_ok());
        for kind in [RECORDS, WANT, OFFER] {
            let error = Message::decode(&[kind, 0xff, 0xff]).expect_err("too many");
            assert!(matches!(error, FormatError::TooMany { .. }), "{error}");
        }
        let error = Message::decode(&[SUMMARY, 0, 0, 0xff, 0xff]).expect_err("too many");
        assert!(matches!(error, FormatError::TooMany { .. }), "{error}");
        let error = Message::decode(&vec![OPTIONAL; FRAME_BYTES_MAX + 1]).expect_err("too long");
        assert!(matches!(error, FormatError::TooMany { .. }), "{error}");
    }

    #[test]
    fn a_greeting_over_the_limits_is_cut_to_them() {
        let hello = Hello {
            versions: (1, 1),
            format: 1,
            agent: format!("a\n{}", "é".repeat(80)),
            blob_ports: vec![0; 3].into_iter().chain(1..90).collect(),
            unknown: vec![(2, vec![0; 2000]), (3, vec![1]), (1, vec![2]), (3, vec![4])],
        };
        let bounded = hello.bounded();
        assert_eq!(bounded.unknown, [(1, vec![2]), (3, vec![1])]);
        let bytes = Message::Hello(bounded.clone()).encode();
        assert_eq!(Message::decode(&bytes), Ok(Message::Hello(bounded)));
    }
}
