//! Whom this client believes to be the array: platform roots, a CA file, pinned certificates, or
//! (said aloud by the caller) anybody.
//!
//! Field clusters present a certificate for `api.service` without any SAN (`lightbits-api.md`
//! section 5), which no verifier accepts even with the right CA. Pinning is therefore the main
//! road: exactly the pinned leaf certificates are accepted, whatever they say, and the handshake
//! signature still proves that the server owns the key. A refused certificate is named in the error
//! by its fingerprint, with the flag that would pin it. Not covered: client certificates and
//! revocation.

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, DigitallySignedStruct, Error as TlsError, OtherError, RootCertStore,
    SignatureScheme,
};
use sha2::{Digest, Sha256};
use std::fmt::{self, Write};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// Longest CA file read, in bytes; the whole Mozilla root list is a quarter of that.
const CA_FILE_BYTES_MAX: u64 = 1 << 20;

/// SHA-256 of a certificate in DER form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fingerprint([u8; 32]);

/// The text is not a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a SHA-256 fingerprint: 64 hexadecimal digits, as printed by \
     openssl x509 -noout -fingerprint -sha256"
)]
pub struct BadFingerprint(String);

impl Fingerprint {
    /// The fingerprint with these bytes.
    pub const fn new(sha256: [u8; 32]) -> Fingerprint {
        Fingerprint(sha256)
    }
    /// The fingerprint of a certificate in DER form.
    pub fn of_der(certificate: &[u8]) -> Fingerprint {
        Fingerprint(Sha256::digest(certificate).into())
    }
}

impl FromStr for Fingerprint {
    type Err = BadFingerprint;
    /// 64 hexadecimal digits of either case, with or without colons between the bytes.
    fn from_str(text: &str) -> Result<Fingerprint, BadFingerprint> {
        let bad = || BadFingerprint(crate::array::escape_text(text, 100));
        let plain = match text.len() {
            64 => text.to_owned(),
            // 32 pairs and 31 colons; a colon elsewhere leaves no digit pair and is refused below.
            95 => text.split(':').collect(),
            _ => return Err(bad()),
        };
        let digits: Option<Vec<u8>> = plain
            .chars()
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect();
        let digits = digits.filter(|digits| digits.len() == 64).ok_or_else(bad)?;
        let mut sha256 = [0; 32];
        for (byte, pair) in sha256.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair.iter().fold(0, |byte, digit| byte << 4 | digit);
        }
        Ok(Fingerprint(sha256))
    }
}

impl fmt::Display for Fingerprint {
    /// 64 lower-case hexadecimal digits, as `--pin-sha256` takes them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How the server's certificate is judged.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsConfig {
    /// PEM file with the only roots to trust, instead of the platform's.
    pub ca_file: Option<PathBuf>,
    /// The only leaf certificates to accept; if there are any, roots do not matter.
    pub pins: Vec<Fingerprint>,
    /// Accept any certificate: whoever answers gets the token.
    pub insecure: bool,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// Two flags that exclude each other.
    #[error("--insecure and --pin-sha256 contradict each other; give one of them")]
    Contradiction,
    /// The CA file could not be used.
    #[error("cannot use the CA file {path}: {cause}")]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// The cryptography could not be set up. A bug of this tool's build.
    #[error("cannot set up TLS: {0}")]
    Provider(TlsError),
}

/// Why a certificate was refused, for the user. Travels inside [`rustls::Error`] from the verifier
/// to whoever reports the failed connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rejected {
    presented: Fingerprint,
    why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    NotPinned(Vec<Fingerprint>),
    NotTrusted(String),
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let presented = self.presented;
        match &self.why {
            Why::NotPinned(pins) => {
                let pins: Vec<String> = pins.iter().map(Fingerprint::to_string).collect();
                write!(
                    f,
                    "the server presented the certificate with SHA-256 {presented}, not the pinned \
                     {}; either it was renewed or somebody else answers: compare with the \
                     cluster's own, and if they match use --pin-sha256 {presented}",
                    pins.join(" or ")
                )
            }
            Why::NotTrusted(cause) => write!(
                f,
                "the server's certificate is not accepted ({cause}); it has the SHA-256 \
                 fingerprint {presented}: compare with the cluster's own, and if they match use \
                 --pin-sha256 {presented}"
            ),
        }
    }
}

impl std::error::Error for Rejected {}

/// What a presented certificate is measured by.
#[derive(Debug)]
enum Trust {
    /// Roots of the platform or of a CA file.
    Roots(Arc<dyn ServerCertVerifier>),
    /// There are no roots, for this reason; every certificate is refused (and named).
    Nothing(String),
    Pins(Vec<Fingerprint>),
    Anybody,
}

/// Judges leaf certificates by [`Trust`]. Signatures of the handshake are always checked: without
/// that a pin would only prove that the peer has *seen* the certificate.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let presented = Fingerprint::of_der(leaf);
        let why = match &self.trust {
            Trust::Anybody => return Ok(ServerCertVerified::assertion()),
            Trust::Pins(pins) if pins.contains(&presented) => {
                return Ok(ServerCertVerified::assertion());
            }
            Trust::Pins(pins) => Why::NotPinned(pins.clone()),
            Trust::Nothing(cause) => Why::NotTrusted(cause.clone()),
            Trust::Roots(roots) => match roots.verify_server_cert(leaf, chain, name, ocsp, now) {
                Ok(verified) => return Ok(verified),
                Err(error) => Why::NotTrusted(plain_cause(&error)),
            },
        };
        let rejected = Arc::new(Rejected { presented, why });
        Err(TlsError::InvalidCertificate(CertificateError::Other(OtherError(rejected))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, leaf, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The TLS side of a client: ring, TLS 1.2 or 1.3, and the trust asked for.
///
/// # Errors
/// [`TlsSetupError`]. Missing platform roots are no error here: they show when a server presents a
/// certificate, so that the error can name it.
pub(super) fn client_config(config: &TlsConfig) -> Result<rustls::ClientConfig, TlsSetupError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trust = match config {
        TlsConfig { insecure: true, pins, .. } if !pins.is_empty() => {
            return Err(TlsSetupError::Contradiction);
        }
        TlsConfig { insecure: true, .. } => Trust::Anybody,
        TlsConfig { pins, .. } if !pins.is_empty() => Trust::Pins(pins.clone()),
        TlsConfig { ca_file: Some(path), .. } => Trust::Roots(ca_roots(path, &provider)?),
        TlsConfig { .. } => platform_roots(&provider),
    };
    let tls = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(TlsSetupError::Provider)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { trust, provider }))
        .with_no_client_auth();
    Ok(tls)
}

fn platform_roots(provider: &Arc<CryptoProvider>) -> Trust {
    match rustls_platform_verifier::Verifier::new(provider.clone()) {
        Ok(roots) => Trust::Roots(Arc::new(roots)),
        Err(error) => Trust::Nothing(format!("this machine offers no roots to trust: {error}")),
    }
}

/// A verifier that trusts the certificates of a PEM file and nothing else.
fn ca_roots(
    path: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsSetupError> {
    let bad = |cause: String| TlsSetupError::CaFile { path: path.to_owned(), cause };
    let mut pem = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(CA_FILE_BYTES_MAX).read_to_end(&mut pem))
        .map_err(|e| bad(e.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| bad(format!("it is not PEM: {e}")))?;
        roots.add(certificate).map_err(|e| bad(plain_cause(&e)))?;
    }
    if roots.is_empty() {
        return Err(bad("it holds no PEM certificate".to_owned()));
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone())
        .build()
        .map_err(|e| bad(e.to_string()))?;
    Ok(verifier)
}

/// The verifier's reason in words; the usual ones of field clusters are said plainly.
fn plain_cause(error: &TlsError) -> String {
    let TlsError::InvalidCertificate(cause) = error else {
        return error.to_string();
    };
    match cause {
        CertificateError::UnknownIssuer => "its issuer is not trusted".to_owned(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is not made out to the name in --endpoint".to_owned()
        }
        CertificateError::Other(OtherError(other)) => other.to_string(),
        other => {
            // rustls words only its own variants; the rest are best shown as they are.
            let mut text = String::new();
            let _infallible = write!(text, "{other}");
            text
        }
    }
}

/// What a TLS failure in `error`'s chain of causes means for the user; `None` if there is none, or
/// only one that another try or another endpoint may cure.
pub(super) fn tls_cause(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref::<TlsError>() {
            return fatal_cause(tls);
        }
        // An io::Error does not list what it wraps among its sources.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        cause = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

fn fatal_cause(tls: &TlsError) -> Option<String> {
    match tls {
        TlsError::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
            Some(other.to_string())
        }
        TlsError::InvalidCertificate(CertificateError::BadSignature) => Some(
            "the server does not own the key of the certificate it presents; somebody may be in \
             between"
                .to_owned(),
        ),
        TlsError::InvalidCertificate(cause) => {
            Some(format!("the server's certificate cannot be used: {cause}"))
        }
        TlsError::InvalidMessage(_) => {
            Some(format!("the server does not speak TLS on this port ({tls}); check --endpoint"))
        }
        TlsError::PeerIncompatible(_) | TlsError::NoCertificatesPresented => {
            Some(format!("no TLS with this server: {tls}"))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
