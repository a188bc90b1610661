//! TLS 1.3 under the nodes' own keys, as raw public keys (RFC 7250): each end proves which node it is.

use std::io;
use std::sync::Arc;

use cairn_protocol::key::{PublicKey, SecretKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
    UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, Error,
    ServerConfig, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// What stands before the 32 bytes of an Ed25519 public key in its `SubjectPublicKeyInfo` (RFC 8410).
const PUBLIC_PREFIX: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
/// What stands before the 32 bytes of an Ed25519 seed in its PKCS #8 (RFC 8410).
const SECRET_PREFIX: [u8; 16] =
    *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// A node's side of connections, as who is asked and as who asks.
#[derive(Clone)]
pub(in crate::blobs) struct Identity {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    pub(in crate::blobs) fn new(key: &SecretKey) -> Result<Self, Error> {
        let mut provider = default_provider();
        // What processors of today are fastest at goes first.
        provider.cipher_suites = vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ];
        let secret = [&SECRET_PREFIX[..], &key.seed()].concat();
        let secret = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(secret));
        let secret = provider.key_provider.load_private_key(secret)?;
        let public = CertificateDer::from(encode(&key.public()).unwrap_or_default());
        let ours = Arc::new(CertifiedKey::new(vec![public], secret));
        let provider = Arc::new(provider);
        let verifier = Arc::new(NodeKeys(Arc::clone(&provider)));
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::clone(&verifier) as _)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(
                Arc::clone(&ours),
            )));
        // A connection lasts: nothing is kept to resume it.
        server.send_tls13_tickets = 0;
        server.alpn_protocols = vec![super::ALPN.to_vec()];
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(ours)));
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        client.alpn_protocols = vec![super::ALPN.to_vec()];
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
        })
    }

    /// A handshake with who connected, and who that is.
    pub(in crate::blobs) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<(server::TlsStream<S>, PublicKey)> {
        let stream = self.acceptor.accept(stream).await?;
        let peer = peer_of(stream.get_ref().1).ok_or_else(another)?;
        Ok((stream, peer))
    }

    /// A handshake with a node that must be this one.
    pub(in crate::blobs) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        peer: &PublicKey,
    ) -> io::Result<client::TlsStream<S>> {
        // Names nobody: the verifier looks at the key alone.
        let name = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
        let stream = self.connector.connect(name, stream).await?;
        match peer_of(stream.get_ref().1) {
            Some(found) if found == *peer => Ok(stream),
            _ => Err(another()),
        }
    }
}

fn another() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "it is another node")
}

fn peer_of(state: &CommonState) -> Option<PublicKey> {
    match state.peer_certificates()? {
        [key] => decode(key),
        _ => None,
    }
}

fn encode(key: &PublicKey) -> Option<Vec<u8>> {
    match key {
        PublicKey::Ed25519(bytes) => Some([&PUBLIC_PREFIX[..], bytes].concat()),
        PublicKey::P256(_) => None,
    }
}

fn decode(key: &[u8]) -> Option<PublicKey> {
    let bytes = key.strip_prefix(&PUBLIC_PREFIX)?.try_into().ok()?;
    Some(PublicKey::Ed25519(bytes))
}

/// Takes any node's key, if who shows it has the secret one.
#[derive(Debug)]
struct NodeKeys(Arc<CryptoProvider>);

impl NodeKeys {
    fn is_node(key: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        if decode(key).is_some() && others.is_empty() {
            Ok(())
        } else {
            Err(CertificateError::BadEncoding.into())
        }
    }

    fn verify(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }
}

/// Only TLS 1.3 is spoken.
fn too_old() -> Error {
    rustls::PeerIncompatible::Tls13RequiredForQuic.into()
}

impl ServerCertVerifier for NodeKeys {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Self::is_node(key, others).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for NodeKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Self::is_node(key, others).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(seed: u8) -> (Identity, PublicKey) {
        let key = SecretKey::from_seed([seed; 32]);
        (Identity::new(&key).unwrap(), key.public())
    }

    #[tokio::test]
    async fn each_end_learns_who_the_other_is() {
        let ((one, one_key), (two, two_key)) = (identity(1), identity(2));
        let (near, far) = tokio::io::duplex(16 << 10);
        let (accepted, connected) = tokio::join!(one.accept(near), two.connect(far, &one_key));
        connected.unwrap();
        assert_eq!(accepted.unwrap().1, two_key);
    }

    #[tokio::test]
    async fn another_node_than_the_expected_one_is_refused() {
        let ((one, _), (two, two_key)) = (identity(1), identity(2));
        let (near, far) = tokio::io::duplex(16 << 10);
        let (_, connected) = tokio::join!(one.accept(near), two.connect(far, &two_key));
        let error = connected.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
    }

    #[tokio::test]
    async fn who_shows_the_key_of_another_is_refused() {
        let (one, _) = identity(1);
        let (_, victim) = identity(2);
        let liar = SecretKey::from_seed([3; 32]);
        let provider = default_provider();
        let secret = [&SECRET_PREFIX[..], &liar.seed()].concat();
        let secret = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(secret));
        let secret = provider.key_provider.load_private_key(secret).unwrap();
        let shown = CertificateDer::from(encode(&victim).unwrap());
        let forged = Arc::new(CertifiedKey::new(vec![shown], secret));
        let provider = Arc::new(provider);
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(NodeKeys(provider)))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(forged)));
        config.alpn_protocols = vec![super::super::ALPN.to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let (near, far) = tokio::io::duplex(16 << 10);
        let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
        let (accepted, _) = tokio::join!(one.accept(near), connector.connect(name, far));
        assert!(accepted.is_err());
    }
}
