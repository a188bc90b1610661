//! TLS: a certificate with its key, read from files and read again when somebody renews them.
//!
//! TLS 1.2 and 1.3. HTTP/1.1 is all that is offered to clients that ask which protocol to speak.
//!
//! Invariant: a pair that can't be used never takes the place of one that can.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{InconsistentKeys, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Bytes of a certificate's or a key's file; a longer one is refused.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a certificate and its key can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file can't be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not PEM.
    #[error("{} is not valid PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// There is no certificate in the certificate's file.
    #[error("{} has no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// There is no key in the key's file.
    #[error("{} has no private key without a passphrase", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The certificate is of a kind that can't be used.
    #[error("the certificate in {} cannot be used", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// The key is of a kind that can't be used.
    #[error("the private key in {} cannot be used", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// Key and certificate are not a pair.
    #[error(
        "the private key in {} is not that of the first certificate in {}",
        key.display(),
        certificate.display()
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

/// A certificate in use, and the files that it came from; cheap to clone.
#[derive(Clone)]
pub struct Tls {
    inner: Arc<Inner>,
}

struct Inner {
    files: Files,
    /// What new connections use.
    acceptor: RwLock<TlsAcceptor>,
    looks: Mutex<Looks>,
}

/// PEM files: the certificate with those between it and the root, and its private key.
#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// How the files were found.
struct Looks {
    /// When they were last read, whatever came of it.
    read: [Option<Stamp>; 2],
    /// At the last look.
    seen: [Option<Stamp>; 2],
}

/// Changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.inner.files).finish()
    }
}

impl Tls {
    /// Reads a certificate chain and its private key (PKCS#8, SEC1 or PKCS#1), both PEM.
    ///
    /// Once a gateway serves with them it looks at the files now and then, and uses a new pair for new
    /// connections. Names and dates in the certificate are left to the clients to check.
    ///
    /// # Errors
    /// A file can't be read, doesn't hold what it should, or the two are not a pair.
    pub fn load(certificate: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let files = Files { certificate, key };
        let stamps = files.stamps();
        let acceptor = files.load()?;
        Ok(Self {
            inner: Arc::new(Inner {
                files,
                acceptor: RwLock::new(acceptor),
                looks: Mutex::new(Looks {
                    read: stamps,
                    seen: stamps,
                }),
            }),
        })
    }

    /// Takes a client's handshake; its end is for the caller to bound.
    pub(crate) async fn accept<IO>(&self, stream: IO) -> io::Result<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = self
            .inner
            .acceptor
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        acceptor.accept(stream).await
    }

    /// Looks whether the files changed, and takes in the new ones; reads the disk.
    ///
    /// What changed is read at the next look that finds it as the one before did: certificate and key are
    /// written one after the other, and the first alone is no pair.
    pub(crate) fn look(&self) {
        let files = &self.inner.files;
        let mut looks = self
            .inner
            .looks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let stamps = files.stamps();
        let is_settled = stamps == looks.seen;
        looks.seen = stamps;
        if stamps == looks.read || !is_settled {
            return;
        }
        looks.read = stamps;
        match files.load() {
            Ok(acceptor) => {
                *self
                    .inner
                    .acceptor
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = acceptor;
                tracing::info!(certificate = %files.certificate.display(), "the TLS certificate was renewed");
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, cause, "the new TLS certificate cannot be used: the one before it stays in use");
            }
        }
    }
}

impl Files {
    fn load(&self) -> Result<TlsAcceptor, TlsError> {
        let chain = self.chain()?;
        let key = self.private_key()?;
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS12, &TLS13])
            .expect("invariant: ring has cipher suites of both versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| self.refused(error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let path = &self.certificate;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?)
            .collect::<Result<_, _>>()
            .map_err(|source| TlsError::Pem {
                path: path.clone(),
                source,
            })?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate { path: path.clone() });
        }
        Ok(chain)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let path = self.key.clone();
        PrivateKeyDer::from_pem_slice(&read(&path)?).map_err(|error| match error {
            pem::Error::NoItemsFound => TlsError::NoKey { path },
            source => TlsError::Pem { path, source },
        })
    }

    fn refused(&self, error: rustls::Error) -> TlsError {
        match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::Mismatch {
                certificate: self.certificate.clone(),
                key: self.key.clone(),
            },
            source @ rustls::Error::InvalidCertificate(_) => TlsError::Certificate {
                path: self.certificate.clone(),
                source,
            },
            source => TlsError::Key {
                path: self.key.clone(),
                source,
            },
        }
    }

    /// How the files are now; none for one that isn't there.
    fn stamps(&self) -> [Option<Stamp>; 2] {
        [&self.certificate, &self.key].map(|path| {
            let found = std::fs::metadata(path).ok()?;
            Some(Stamp {
                inode: found.ino(),
                size: found.size(),
                modified: (found.mtime(), found.mtime_nsec()),
            })
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?
            .take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(io::Error::other("it is larger than 1 MiB"));
        }
        Ok(bytes)
    };
    read().map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tempfile::TempDir;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client;

    use super::*;

    /// A folder with a certificate for `localhost`, and the name of its file and its key's.
    pub(crate) struct Pair {
        folder: TempDir,
        certificate: PathBuf,
        key: PathBuf,
    }

    impl Pair {
        pub(crate) fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let pair = Self {
                certificate: folder.path().join("certificate.pem"),
                key: folder.path().join("key.pem"),
                folder,
            };
            pair.renew();
            pair
        }

        fn renew(&self) {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            // Beside the old one and then in its place, so that every renewal shows in the inode.
            for (path, text) in [
                (&self.certificate, made.cert.pem()),
                (&self.key, made.key_pair.serialize_pem()),
            ] {
                let new = self.folder.path().join("new");
                std::fs::write(&new, text).unwrap();
                std::fs::rename(&new, path).unwrap();
            }
        }

        pub(crate) fn load(&self) -> Result<Tls, TlsError> {
            Tls::load(self.certificate.clone(), self.key.clone())
        }

        fn leaf(&self) -> CertificateDer<'static> {
            CertificateDer::from_pem_slice(&std::fs::read(&self.certificate).unwrap()).unwrap()
        }

        /// A client that trusts this certificate alone.
        pub(crate) async fn connect<IO>(&self, stream: IO) -> io::Result<client::TlsStream<IO>>
        where
            IO: AsyncRead + AsyncWrite + Unpin,
        {
            let mut roots = RootCertStore::empty();
            roots.add(self.leaf()).unwrap();
            let mut config =
                ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                    .with_protocol_versions(&[&TLS12, &TLS13])
                    .unwrap()
                    .with_root_certificates(roots)
                    .with_no_client_auth();
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            let name = ServerName::try_from("localhost").unwrap();
            TlsConnector::from(Arc::new(config))
                .connect(name, stream)
                .await
        }
    }

    /// The certificate that a new connection is shown.
    async fn shown(pair: &Pair, tls: &Tls) -> io::Result<CertificateDer<'static>> {
        let (near, far) = tokio::io::duplex(64 << 10);
        let (client, server) = tokio::join!(pair.connect(near), tls.accept(far));
        let (client, _server) = (client?, server?);
        let (_, session) = client.get_ref();
        assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
        Ok(session.peer_certificates().unwrap()[0].clone().into_owned())
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let (pair, other) = (Pair::new(), Pair::new());
        pair.load().unwrap();
        let (certificate, key) = (pair.certificate.clone(), pair.key.clone());
        let empty = pair.folder.path().join("empty.pem");
        std::fs::write(&empty, "\n").unwrap();
        let torn = pair.folder.path().join("torn.pem");
        std::fs::write(&torn, "-----BEGIN CERTIFICATE-----\nMIIB\n").unwrap();
        let strange = pair.folder.path().join("strange.pem");
        let text = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n\
                    -----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n";
        std::fs::write(&strange, text).unwrap();
        let missing = pair.folder.path().join("missing.pem");
        let refused = |certificate: &Path, key: &Path| {
            let error = Tls::load(certificate.to_owned(), key.to_owned());
            let text = error.unwrap_err().to_string();
            text.replace(&format!("{}/", pair.folder.path().display()), "")
        };
        assert_eq!(refused(&missing, &key), "cannot read missing.pem");
        assert_eq!(refused(&certificate, &missing), "cannot read missing.pem");
        assert_eq!(refused(&empty, &key), "empty.pem has no certificate");
        assert_eq!(refused(&key, &key), "key.pem has no certificate");
        assert_eq!(refused(&torn, &key), "torn.pem is not valid PEM");
        assert_eq!(
            refused(&certificate, &certificate),
            "certificate.pem has no private key without a passphrase"
        );
        assert_eq!(
            refused(&certificate, &strange),
            "the private key in strange.pem cannot be used"
        );
        assert_eq!(
            refused(&strange, &key),
            "the certificate in strange.pem cannot be used"
        );
        let error = Tls::load(certificate, other.key).unwrap_err();
        assert!(matches!(error, TlsError::Mismatch { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_renewed_pair_is_used_once_it_is_whole() {
        let pair = Pair::new();
        let tls = pair.load().unwrap();
        let first = pair.leaf();
        assert_eq!(shown(&pair, &tls).await.unwrap(), first);
        pair.renew();
        tls.look();
        shown(&pair, &tls).await.unwrap_err();
        tls.look();
        assert_eq!(shown(&pair, &tls).await.unwrap(), pair.leaf());
        assert_ne!(pair.leaf(), first);
    }

    #[tokio::test]
    async fn a_bad_new_pair_leaves_the_old_one_in_use() {
        let (pair, other) = (Pair::new(), Pair::new());
        let tls = pair.load().unwrap();
        std::fs::copy(&other.key, &pair.key).unwrap();
        for _ in 0..3 {
            tls.look();
        }
        assert_eq!(shown(&pair, &tls).await.unwrap(), pair.leaf());
        std::fs::remove_file(&pair.key).unwrap();
        for _ in 0..3 {
            tls.look();
        }
        assert_eq!(shown(&pair, &tls).await.unwrap(), pair.leaf());
        pair.renew();
        for _ in 0..2 {
            tls.look();
        }
        assert_eq!(shown(&pair, &tls).await.unwrap(), pair.leaf());
    }
}
