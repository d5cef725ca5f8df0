use super::*;
use crate::array::{ApiError, Array};
use crate::block::VolumeUuid;
use crate::lightbits::test_server::{Act, TestServer};
use crate::lightbits::{ClientConfig, LightbitsClient, Timeouts, Token};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::io::Write as _;

const VOLUME: VolumeUuid = VolumeUuid::from_u128(7);

/// Presents whatever it was given, even a certificate of somebody else's key.
#[derive(Debug)]
struct Presents(Arc<CertifiedKey>);

impl ResolvesServerCert for Presents {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// A certificate for `api.service` without SAN, as field clusters have, and its key.
fn api_service() -> (CertificateDer<'static>, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "api.service");
    (params.self_signed(&key).unwrap().der().clone(), key)
}

fn server(certificate: CertificateDer<'static>, key: &KeyPair, tls12: bool) -> TestServer {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signing = provider.key_provider.load_private_key(key).unwrap();
    let presents = Presents(Arc::new(CertifiedKey::new(vec![certificate], signing)));
    let versions: &[_] =
        if tls12 { &[&rustls::version::TLS12] } else { &[&rustls::version::TLS13] };
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(presents));
    TestServer::https(vec![Act::ok(format!(r#"{{"UUID":"{VOLUME}"}}"#))], Arc::new(config))
}

fn ask(server: &TestServer, tls: TlsConfig) -> Result<(), ApiError> {
    ask_at(server.address(), tls)
}

fn ask_at(address: std::net::SocketAddr, tls: TlsConfig) -> Result<(), ApiError> {
    let client = LightbitsClient::connect(ClientConfig {
        endpoints: vec![format!("https://{address}")],
        project: "default".to_owned(),
        token: Token::from_text("secret-token").unwrap(),
        tls,
        bitmap_order: Default::default(),
        timeouts: Timeouts::default(),
        stop: Arc::default(),
    })
    .unwrap();
    client.volume(VOLUME).map(|_| ())
}

fn pinned(pins: &[Fingerprint]) -> TlsConfig {
    TlsConfig { pins: pins.to_vec(), ..TlsConfig::default() }
}

fn tls_error(asked: Result<(), ApiError>) -> String {
    match asked {
        Err(ApiError::Tls(text)) => text,
        other => panic!("expected a TLS error, got {other:?}"),
    }
}

#[test]
fn a_pinned_certificate_is_accepted_although_it_names_no_host() {
    for tls12 in [false, true] {
        let (certificate, key) = api_service();
        let pin = Fingerprint::of_der(&certificate);
        let server = server(certificate, &key, tls12);
        let others = Fingerprint::new([7; 32]);
        ask(&server, pinned(&[others, pin])).unwrap();
        assert_eq!(server.seen().len(), 1);
    }
}

#[test]
fn another_certificate_than_the_pinned_one_is_refused_and_named() {
    let (certificate, key) = api_service();
    let presented = Fingerprint::of_der(&certificate);
    let server = server(certificate, &key, false);
    let pin = Fingerprint::new([7; 32]);
    let text = tls_error(ask(&server, pinned(&[pin])));
    assert!(
        text.contains(&format!("presented the certificate with SHA-256 {presented}")),
        "{text}"
    );
    assert!(text.contains(&format!("not the pinned {pin}")), "{text}");
    assert!(text.contains(&format!("--pin-sha256 {presented}")), "{text}");
    assert!(server.seen().is_empty(), "the token was not sent");
}

#[test]
fn an_unknown_certificate_is_refused_with_the_flag_that_would_pin_it() {
    let (certificate, key) = api_service();
    let presented = Fingerprint::of_der(&certificate);
    let server = server(certificate, &key, false);
    let text = tls_error(ask(&server, TlsConfig::default()));
    assert!(text.contains(&format!("--pin-sha256 {presented}")), "{text}");
    assert!(server.seen().is_empty(), "the token was not sent");
}

#[test]
fn a_pinned_certificate_without_its_key_is_refused() {
    for tls12 in [false, true] {
        let (certificate, _its_key) = api_service();
        let pin = Fingerprint::of_der(&certificate);
        let server = server(certificate, &KeyPair::generate().unwrap(), tls12);
        let text = tls_error(ask(&server, pinned(&[pin])));
        assert!(text.contains("does not own the key"), "{text}");
        let insecure = TlsConfig { insecure: true, ..TlsConfig::default() };
        assert!(ask(&server, insecure).is_err(), "signatures are checked even then");
        assert!(server.seen().is_empty(), "the token was not sent");
    }
}

#[test]
fn insecure_accepts_anybody_but_not_together_with_pins() {
    let (certificate, key) = api_service();
    let server = server(certificate, &key, false);
    ask(&server, TlsConfig { insecure: true, ..TlsConfig::default() }).unwrap();
    let both = TlsConfig { insecure: true, pins: vec![Fingerprint::new([1; 32])], ca_file: None };
    assert!(matches!(client_config(&both), Err(TlsSetupError::Contradiction)));
}

#[test]
fn a_ca_file_vouches_for_certificates_with_the_right_name_only() {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ca.pem()).unwrap();
    let trusting = TlsConfig { ca_file: Some(file.path().to_owned()), ..TlsConfig::default() };

    let key = KeyPair::generate().unwrap();
    let named = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let named = named.signed_by(&key, &issuer).unwrap();
    ask(&server(named.der().clone(), &key, false), trusting.clone()).unwrap();

    let nameless = CertificateParams::new(Vec::new()).unwrap().signed_by(&key, &issuer).unwrap();
    let text = tls_error(ask(&server(nameless.der().clone(), &key, false), trusting.clone()));
    assert!(text.contains("not made out to the name in --endpoint"), "{text}");
    assert!(text.contains("--pin-sha256"), "{text}");

    let (stranger, key) = api_service();
    let text = tls_error(ask(&server(stranger, &key, false), trusting));
    assert!(text.contains("--pin-sha256"), "{text}");
}

#[test]
fn ca_files_that_hold_no_certificate_are_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for content in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(file.path(), content).unwrap();
        let config = TlsConfig { ca_file: Some(file.path().to_owned()), ..TlsConfig::default() };
        let error = client_config(&config).unwrap_err();
        assert!(matches!(error, TlsSetupError::CaFile { .. }), "{content:?}: {error}");
    }
    let missing = TlsConfig { ca_file: Some("/nonexistent/ca".into()), ..TlsConfig::default() };
    assert!(matches!(client_config(&missing), Err(TlsSetupError::CaFile { .. })));
}

#[test]
fn a_server_without_tls_is_told_apart_from_a_dead_one() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut hello = [0; 5];
            stream.read_exact(&mut hello).unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        });
        let text = tls_error(ask_at(address, TlsConfig::default()));
        assert!(text.contains("does not speak TLS"), "{text}");
    });
}

#[test]
fn fingerprints_read_back_what_they_print_and_what_openssl_prints() {
    let fingerprint = Fingerprint::of_der(b"certificate");
    let plain = fingerprint.to_string();
    assert_eq!(plain.parse(), Ok(fingerprint));
    let pairs: Vec<String> = plain
        .to_uppercase()
        .as_bytes()
        .chunks(2)
        .map(|p| String::from_utf8_lossy(p).into())
        .collect();
    assert_eq!(pairs.join(":").parse(), Ok(fingerprint));
    let zeros = "0".repeat(64);
    assert_eq!(zeros.parse(), Ok(Fingerprint::new([0; 32])));
    for bad in
        ["", "abc", &zeros[1..], &format!("{zeros}0"), &zeros.replace('0', "g"), &":".repeat(95)]
    {
        assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
    }
}
