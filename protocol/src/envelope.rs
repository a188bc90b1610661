//! DSSE envelopes in their one byte form.
//!
//! `{"payload":"…","payloadType":"…","signatures":[{"sig":"…"},…]}`: this order, no white space, no
//! other member, padded standard base64. What is signed, and what an id is the BLAKE3 of, is the
//! pre-authentication encoding of type and payload, so nobody who re-encodes an envelope makes
//! another record of it. Generic over the payload's type; what a payload means is not here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::hash::RecordId;
use crate::key::{PublicKey, SIGNATURE_BYTES, SecretKey, VerifyError};
use crate::limits::{ENVELOPE_BYTES_MAX, PAYLOAD_BYTES_MAX, SIGNERS_MAX};

/// Bytes of a payload's media type; longer ones are refused.
const PAYLOAD_TYPE_BYTES_MAX: usize = 127;

const BEFORE_PAYLOAD: &str = "{\"payload\":\"";
const BEFORE_TYPE: &str = "\",\"payloadType\":\"";
const BEFORE_SIGNATURES: &str = "\",\"signatures\":[";
const BEFORE_SIGNATURE: &str = "{\"sig\":\"";
const AFTER_SIGNATURE: &str = "\"}";
const END: &str = "]}";

/// Why bytes are not an envelope, or an envelope does not verify.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Over the limit; not parsed.
    #[error("an envelope of {0} bytes, at most {ENVELOPE_BYTES_MAX} are read")]
    TooLarge(usize),
    /// The payload is over its limit.
    #[error("a payload of {0} bytes, at most {PAYLOAD_BYTES_MAX} are taken")]
    PayloadTooLarge(usize),
    /// Not the one byte form.
    #[error("expected {expected} at byte {offset} of the envelope")]
    Form {
        /// What should stand there.
        expected: &'static str,
        /// Where, from 0.
        offset: usize,
    },
    /// A payload type that is no media type of ours.
    #[error("payload type {0:?} is not 1 to 127 of A-Z a-z 0-9 . + - / _")]
    PayloadType(String),
    /// No signature, or more than are taken.
    #[error("{0} signatures, there must be 1 to {SIGNERS_MAX}")]
    SignatureCount(usize),
    /// A number of signatures other than that of the signers.
    #[error("{signatures} signatures for {signers} signers")]
    SignerCount {
        /// In the envelope.
        signatures: usize,
        /// In the payload.
        signers: usize,
    },
    /// A signature that does not stand.
    #[error("signature {index} by {signer}")]
    Verify {
        /// Which, from 0.
        index: usize,
        /// By whom it should be.
        signer: PublicKey,
        /// What is wrong with it.
        source: VerifyError,
    },
}

/// A payload, its type and the signatures over both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    bytes: Vec<u8>,
    payload_type: String,
    payload: Vec<u8>,
    signatures: Vec<[u8; SIGNATURE_BYTES]>,
}

impl Envelope {
    /// Parses the one byte form; verifies nothing.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > ENVELOPE_BYTES_MAX {
            return Err(EnvelopeError::TooLarge(bytes.len()));
        }
        let mut cursor = Cursor { bytes, offset: 0 };
        cursor.literal(BEFORE_PAYLOAD)?;
        let payload = cursor.base64()?;
        cursor.literal(BEFORE_TYPE)?;
        let payload_type = String::from_utf8_lossy(cursor.until_quote()).into_owned();
        cursor.literal(BEFORE_SIGNATURES)?;
        let mut signatures = Vec::new();
        loop {
            cursor.literal(BEFORE_SIGNATURE)?;
            let offset = cursor.offset;
            let signature = cursor.base64()?;
            signatures.push(signature.try_into().map_err(|_| EnvelopeError::Form {
                expected: "a signature of 64 bytes",
                offset,
            })?);
            cursor.literal(AFTER_SIGNATURE)?;
            if signatures.len() > SIGNERS_MAX || !cursor.comma() {
                break;
            }
        }
        cursor.literal(END)?;
        if cursor.offset != bytes.len() {
            return Err(EnvelopeError::Form {
                expected: "the end",
                offset: cursor.offset,
            });
        }
        let envelope = Self::new(payload_type, payload, signatures)?;
        // Already so by construction; this is the property that ids and peers rely on.
        if envelope.bytes != bytes {
            return Err(EnvelopeError::Form {
                expected: "the one form of this envelope",
                offset: 0,
            });
        }
        Ok(envelope)
    }

    /// Signs a payload with each key, in order.
    pub fn sign(
        payload_type: &str,
        payload: Vec<u8>,
        keys: &[&SecretKey],
    ) -> Result<Self, EnvelopeError> {
        let encoding = pre_authentication_encoding(payload_type, &payload);
        let signatures = keys.iter().map(|key| key.sign(&encoding)).collect();
        Self::new(payload_type.to_owned(), payload, signatures)
    }

    /// Checks the limits and writes the byte form.
    fn new(
        payload_type: String,
        payload: Vec<u8>,
        signatures: Vec<[u8; SIGNATURE_BYTES]>,
    ) -> Result<Self, EnvelopeError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".+-/_".contains(&byte);
        if !(1..=PAYLOAD_TYPE_BYTES_MAX).contains(&payload_type.len())
            || !payload_type.bytes().all(plain)
        {
            let shown = payload_type.chars().take(80).collect();
            return Err(EnvelopeError::PayloadType(shown));
        }
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(EnvelopeError::PayloadTooLarge(payload.len()));
        }
        if !(1..=SIGNERS_MAX).contains(&signatures.len()) {
            return Err(EnvelopeError::SignatureCount(signatures.len()));
        }
        let mut text = String::with_capacity(payload.len() * 4 / 3 + signatures.len() * 100 + 256);
        text.push_str(BEFORE_PAYLOAD);
        STANDARD.encode_string(&payload, &mut text);
        text.push_str(BEFORE_TYPE);
        text.push_str(&payload_type);
        text.push_str(BEFORE_SIGNATURES);
        for (index, signature) in signatures.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            text.push_str(BEFORE_SIGNATURE);
            STANDARD.encode_string(signature, &mut text);
            text.push_str(AFTER_SIGNATURE);
        }
        text.push_str(END);
        Ok(Self {
            bytes: text.into_bytes(),
            payload_type,
            payload,
            signatures,
        })
    }

    /// The one byte form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The one byte form, without copying it.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The payload's media type.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The payload, as signed.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The signatures, in the order of the payload's signers.
    pub fn signatures(&self) -> &[[u8; SIGNATURE_BYTES]] {
        &self.signatures
    }

    /// BLAKE3 of the pre-authentication encoding; the signatures have no part in it.
    pub fn id(&self) -> RecordId {
        let encoding = pre_authentication_encoding(&self.payload_type, &self.payload);
        RecordId::from_bytes(*blake3::hash(&encoding).as_bytes())
    }

    /// Verifies exactly one signature for each signer, in order.
    pub fn verify(&self, signers: &[PublicKey]) -> Result<(), EnvelopeError> {
        if signers.len() != self.signatures.len() {
            return Err(EnvelopeError::SignerCount {
                signatures: self.signatures.len(),
                signers: signers.len(),
            });
        }
        let encoding = pre_authentication_encoding(&self.payload_type, &self.payload);
        for (index, (signer, signature)) in signers.iter().zip(&self.signatures).enumerate() {
            signer
                .verify(&encoding, signature)
                .map_err(|source| EnvelopeError::Verify {
                    index,
                    signer: *signer,
                    source,
                })?;
        }
        Ok(())
    }
}

/// DSSE's `PAE`: `DSSEv1`, then type and payload, each after its length in bytes.
fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut encoding = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    )
    .into_bytes();
    encoding.extend_from_slice(payload);
    encoding
}

/// Reads an envelope from its start.
struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.offset..]
    }

    fn literal(&mut self, literal: &'static str) -> Result<(), EnvelopeError> {
        if !self.rest().starts_with(literal.as_bytes()) {
            return Err(EnvelopeError::Form {
                expected: literal,
                offset: self.offset,
            });
        }
        self.offset += literal.len();
        Ok(())
    }

    /// Skips a comma if one stands here.
    fn comma(&mut self) -> bool {
        let found = self.rest().first() == Some(&b',');
        self.offset += usize::from(found);
        found
    }

    fn until_quote(&mut self) -> &'a [u8] {
        let rest = self.rest();
        let end = rest.iter().position(|byte| *byte == b'"');
        let text = &rest[..end.unwrap_or(rest.len())];
        self.offset += text.len();
        text
    }

    fn base64(&mut self) -> Result<Vec<u8>, EnvelopeError> {
        let offset = self.offset;
        STANDARD
            .decode(self.until_quote())
            .map_err(|_| EnvelopeError::Form {
                expected: "padded standard base64",
                offset,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "application/vnd.cairn.test";

    #[test]
    fn the_form_is_exactly_this() {
        let key = SecretKey::from_seed([1; 32]);
        let envelope = Envelope::sign(TYPE, b"hi".to_vec(), &[&key, &key]).unwrap();
        let signature = STANDARD.encode(key.sign(b"DSSEv1 26 application/vnd.cairn.test 2 hi"));
        let expected = format!(
            r#"{{"payload":"aGk=","payloadType":"{TYPE}","signatures":[{{"sig":"{signature}"}},{{"sig":"{signature}"}}]}}"#
        );
        assert_eq!(envelope.as_bytes(), expected.as_bytes());
        assert_eq!(Envelope::parse(expected.as_bytes()), Ok(envelope.clone()));
        assert_eq!(
            envelope.id().as_bytes(),
            blake3::hash(b"DSSEv1 26 application/vnd.cairn.test 2 hi").as_bytes()
        );
        assert_eq!(envelope.verify(&[key.public(), key.public()]), Ok(()));
        assert!(matches!(
            envelope.verify(&[key.public()]),
            Err(EnvelopeError::SignerCount { .. })
        ));
    }

    #[test]
    fn limits_refuse_before_anything_is_decoded() {
        let key = SecretKey::from_seed([1; 32]);
        let payload = vec![0; PAYLOAD_BYTES_MAX];
        let largest = Envelope::sign(TYPE, payload, &[&key; SIGNERS_MAX]).unwrap();
        assert!(Envelope::parse(largest.as_bytes()).is_ok());
        assert_eq!(
            Envelope::sign(TYPE, vec![0; PAYLOAD_BYTES_MAX + 1], &[&key]),
            Err(EnvelopeError::PayloadTooLarge(PAYLOAD_BYTES_MAX + 1))
        );
        assert_eq!(
            Envelope::sign(TYPE, Vec::new(), &[]),
            Err(EnvelopeError::SignatureCount(0))
        );
        assert_eq!(
            Envelope::sign(TYPE, Vec::new(), &[&key; SIGNERS_MAX + 1]),
            Err(EnvelopeError::SignatureCount(SIGNERS_MAX + 1))
        );
        assert_eq!(
            Envelope::parse(&vec![b'{'; ENVELOPE_BYTES_MAX + 1]),
            Err(EnvelopeError::TooLarge(ENVELOPE_BYTES_MAX + 1))
        );
        for bad in ["", "a b", "a\"b", "a\\b", "é", &"a".repeat(128)] {
            assert!(
                Envelope::sign(bad, Vec::new(), &[&key]).is_err(),
                "{bad:?} as a type"
            );
        }
    }
}
