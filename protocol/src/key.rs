//! Keys that sign records, and their text form `algorithm:hex`.
//!
//! Ed25519 signs and verifies, strictly: a key or a signature with a second encoding is refused.
//! P-256 keys can be named in a record, but sign none yet.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hash::Blake3;

/// Bytes of a signature, of either algorithm.
pub const SIGNATURE_BYTES: usize = 64;

/// A text that is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected `ed25519:` and 64 or `p256:` and 66 lower-case hex digits, got {got:?}")]
pub struct ParseKeyError {
    got: String,
}

/// Why a signature does not stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The algorithm signs no records yet.
    #[error("keys of this algorithm sign no records")]
    Algorithm,
    /// Not a point of the curve in its one encoding.
    #[error("the key is not a valid curve point")]
    Key,
    /// Anything but the strict signature of these bytes by this key.
    #[error("the signature does not verify")]
    Signature,
}

/// The public half of a key, tagged by its algorithm.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PublicKey {
    /// Ed25519, the compressed point.
    Ed25519([u8; 32]),
    /// P-256, the compressed SEC1 point.
    P256([u8; 33]),
}

impl PublicKey {
    /// Whether keys of this algorithm can sign records.
    pub const fn signs_records(&self) -> bool {
        matches!(self, Self::Ed25519(_))
    }

    /// BLAKE3 of the key's text: how a namespace commits to a recovery key without showing it.
    pub fn fingerprint(&self) -> Blake3 {
        Blake3::of(self.to_string().as_bytes())
    }

    /// Verifies a signature of `message` strictly.
    pub fn verify(
        &self,
        message: &[u8],
        signature: &[u8; SIGNATURE_BYTES],
    ) -> Result<(), VerifyError> {
        let Self::Ed25519(bytes) = self else {
            return Err(VerifyError::Algorithm);
        };
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| VerifyError::Key)?;
        if key.to_edwards().compress().as_bytes() != bytes {
            return Err(VerifyError::Key);
        }
        key.verify_strict(message, &Signature::from_bytes(signature))
            .map_err(|_| VerifyError::Signature)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ed25519(bytes) => write!(f, "ed25519:{}", HEXLOWER.encode(bytes)),
            Self::P256(bytes) => write!(f, "p256:{}", HEXLOWER.encode(bytes)),
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let parsed = if let Some(hex) = text.strip_prefix("ed25519:") {
            decode(hex).map(Self::Ed25519)
        } else if let Some(hex) = text.strip_prefix("p256:") {
            decode(hex)
                .filter(|bytes: &[u8; 33]| matches!(bytes[0], 2 | 3))
                .map(Self::P256)
        } else {
            None
        };
        parsed.ok_or_else(|| ParseKeyError {
            got: text.chars().take(80).collect(),
        })
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// An Ed25519 key that signs; wiped from memory when dropped, never printed.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// The key of a 32-byte seed, as RFC 8032 derives it.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The seed it was made from, for libraries that take no other form. Never to be shown.
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        PublicKey::Ed25519(self.0.verifying_key().to_bytes())
    }

    /// Signs a message; the same message gives the same signature.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(secret of {})", self.public())
    }
}

/// Lower-case hex of exactly `N` bytes.
fn decode<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let bytes = (hex.len() == N * 2).then(|| HEXLOWER.decode(hex.as_bytes()).ok())??;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_nothing_else_is_taken() {
        let key = SecretKey::from_seed([7; 32]).public();
        let text = key.to_string();
        assert_eq!(text.len(), "ed25519:".len() + 64);
        assert_eq!(text.parse(), Ok(key));
        let p256 = format!("p256:02{}", "ab".repeat(32));
        assert_eq!(
            p256.parse::<PublicKey>().map(|key| key.to_string()),
            Ok(p256.clone())
        );
        for bad in [
            text.to_uppercase(),
            text.replace("ed25519", "Ed25519"),
            text.replace(':', ""),
            format!("{text}0"),
            text[..text.len() - 1].to_owned(),
            p256.replace("p256:02", "p256:04"),
            p256.replace("p256", "ed25519"),
            String::new(),
        ] {
            assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn signatures_follow_rfc_8032() {
        // Test 2 of RFC 8032, section 7.1.
        let seed = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
        let key = SecretKey::from_seed(decode(seed).unwrap());
        assert_eq!(
            key.public().to_string(),
            "ed25519:3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
        );
        assert_eq!(
            HEXLOWER.encode(&key.sign(&[0x72])),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
        assert!(!format!("{key:?}").contains(seed));
    }

    #[test]
    fn weak_and_twice_encoded_keys_verify_nothing() {
        // The neutral element: with R neutral and s zero, a lax verifier takes any message.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert_eq!(
            PublicKey::Ed25519(neutral).verify(b"anything", &signature),
            Err(VerifyError::Signature)
        );
        // y = p + k is the second encoding of y = k; some of these are points all the same.
        let mut points = 0;
        for k in 0..19 {
            let mut second = [0xff; 32];
            second[0] = 0xed + k;
            second[31] = 0x7f;
            points += usize::from(VerifyingKey::from_bytes(&second).is_ok());
            assert_eq!(
                PublicKey::Ed25519(second).verify(b"anything", &signature),
                Err(VerifyError::Key)
            );
        }
        assert!(points > 0, "some are points");
        let p256: PublicKey = format!("p256:02{}", "ab".repeat(32)).parse().unwrap();
        assert_eq!(
            p256.verify(b"anything", &signature),
            Err(VerifyError::Algorithm)
        );
    }

    #[test]
    fn a_signature_with_a_second_form_of_its_scalar_is_refused() {
        let key = SecretKey::from_seed([9; 32]);
        let mut signature = key.sign(b"message");
        assert_eq!(key.public().verify(b"message", &signature), Ok(()));
        // s + group order, little-endian.
        let order: [u8; 32] =
            decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap();
        let mut carry = 0;
        for (byte, add) in signature[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        assert_eq!(
            key.public().verify(b"message", &signature),
            Err(VerifyError::Signature)
        );
    }
}
