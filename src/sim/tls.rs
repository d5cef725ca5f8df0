//! The simulator's certificate: made at start, like those of the field.
//!
//! Field clusters show a certificate of a per-cluster authority for the name `api.service` *without*
//! subject alternative name (`lightbits-api.md` section 5): no verifier accepts it for the address
//! dialled, so clients must pin it. Not covered: rotation, client certificates.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::sync::Arc;

/// The name in the certificate.
pub const SUBJECT: &str = "api.service";

/// A server's TLS identity and what a client needs to trust it.
#[derive(Debug, Clone)]
pub struct Identity {
    /// How the server speaks TLS.
    pub server: Arc<rustls::ServerConfig>,
    /// SHA-256 of the server's certificate (DER), 64 lower-case hexadecimal digits.
    pub pin_sha256: String,
    /// The authority that issued it, PEM. Enough to verify the chain, never the name.
    pub ca_pem: String,
}

/// The identity cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate.
    #[error("cannot make the simulator's certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The TLS settings.
    #[error("cannot set up TLS for the simulator: {0}")]
    Config(#[from] rustls::Error),
}

impl Identity {
    /// A new authority, and a server certificate by it.
    ///
    /// # Errors
    /// If the system has no random numbers, or the libraries disagree about the certificate.
    pub fn generate() -> Result<Identity, TlsError> {
        let ca_key = KeyPair::generate()?;
        let mut ca_params = named("lbaudit simulator cluster CA");
        ca_params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca_params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = ca_params.self_signed(&ca_key)?;

        let key = KeyPair::generate()?;
        let mut params = named(SUBJECT);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&key, &Issuer::from_params(&ca_params, &ca_key))?;

        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], private)?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Identity {
            server: Arc::new(server),
            pin_sha256: sha256_hex(leaf.der()),
            ca_pem: ca.pem(),
        })
    }
}

/// Parameters without subject alternative name, which is how the field has it.
fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_the_sha_256_in_lower_case_hexadecimal() {
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn every_start_has_its_own_certificate() {
        let (one, two) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        assert_ne!(one.pin_sha256, two.pin_sha256);
        assert_ne!(one.ca_pem, two.ca_pem);
        assert!(one.ca_pem.starts_with("-----BEGIN CERTIFICATE-----"));
        assert_eq!(one.server.alpn_protocols, [b"http/1.1".to_vec()]);
    }
}
