//! Certificates, and the names they must carry.
//!
//! In: PEM files. Out: what tonic wants of a server and of a client, and a check of the peer's name. Always: a peer is let in
//! by one of the exact names that were configured; being signed by the right authority alone is not enough, and a wildcard in
//! a certificate is no name.

use crate::config::{ConfigError, TlsOptions};
use crate::planted::planted;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, DnsName, ServerName, UnixTime};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig};
use tonic::{Request, Status};

pub fn of_server(options: &TlsOptions) -> Result<ServerTlsConfig, ConfigError> {
    let authority = Certificate::from_pem(read("authority", &options.authority)?);
    Ok(ServerTlsConfig::new().identity(identity(options)?).client_ca_root(authority))
}

/// What a client shows and what it asks for.
pub struct ClientTls {
    config: ClientTlsConfig,
    verifier: Arc<ServerNames>,
}

/// A handshake that takes longer than `timeout` is given up: tonic's time for connecting ends when TCP stands.
pub fn of_client(options: &TlsOptions, timeout: Duration) -> Result<ClientTls, ConfigError> {
    let names = PeerNames::new(&options.peer_names)?;
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(&read("authority", &options.authority)?) {
        roots.add(authority.map_err(wrong)?).map_err(wrong)?;
    }
    if roots.is_empty() {
        return Err(ConfigError::Tls(format!("no certificate in {}", options.authority.display())));
    }
    let algorithms = ring::default_provider().signature_verification_algorithms;
    let verifier = Arc::new(ServerNames { roots, algorithms, names });
    // What the client says that it wants; what it accepts the verifier says.
    let asked = options.peer_names.first().cloned().unwrap_or_default();
    let mut config = ClientTlsConfig::new().identity(identity(options)?).domain_name(asked);
    if !planted("handshake_unbounded") {
        config = config.timeout(timeout);
    }
    Ok(ClientTls { config, verifier })
}

impl ClientTls {
    pub fn protect(&self, endpoint: Endpoint) -> Result<Endpoint, ConfigError> {
        endpoint.tls_config_with_verifier(self.config.clone(), self.verifier.clone()).map_err(wrong)
    }
}

fn identity(options: &TlsOptions) -> Result<Identity, ConfigError> {
    Ok(Identity::from_pem(read("certificate", &options.certificate)?, read("key", &options.key)?))
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|error| ConfigError::File { what, path: path.to_owned(), error })
}

fn wrong(error: impl std::fmt::Display) -> ConfigError {
    ConfigError::Tls(error.to_string())
}

/// The names of which a peer's certificate must carry one.
#[derive(Debug, Clone)]
pub struct PeerNames(Vec<DnsName<'static>>);

impl PeerNames {
    fn new(names: &[String]) -> Result<Self, ConfigError> {
        if names.is_empty() {
            return Err(ConfigError::NoPeerNames);
        }
        let parse = |name: &String| {
            DnsName::try_from(name.clone()).map_err(|_| ConfigError::Tls(format!("{name:?} is no DNS name")))
        };
        names.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// Of those who call a server; without TLS everybody may.
    pub fn of_callers(tls: Option<&TlsOptions>) -> Result<Callers, ConfigError> {
        tls.map(|tls| Self::new(&tls.peer_names)).transpose().map(Callers)
    }

    fn are_met_by(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return false };
        self.0.iter().any(|name| {
            let is_written_out =
                certificate.valid_dns_names().any(|carried| carried.eq_ignore_ascii_case(name.as_ref()));
            let name = ServerName::DnsName(name.clone());
            is_written_out && certificate.verify_is_valid_for_subject_name(&name).is_ok()
        })
    }
}

/// Lets a call in whose certificate carries one of the names.
#[derive(Debug, Clone)]
pub struct Callers(Option<PeerNames>);

impl tonic::service::Interceptor for Callers {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let Some(names) = &self.0 else { return Ok(request) };
        let shown = request.peer_certs();
        if shown.is_some_and(|shown| shown.first().is_some_and(|certificate| names.are_met_by(certificate))) {
            Ok(request)
        } else {
            Err(Status::permission_denied("the certificate carries none of the names that are let in"))
        }
    }
}

/// Accepts a server by what all peers are accepted by, instead of by the name in its address.
#[derive(Debug)]
struct ServerNames {
    roots: RootCertStore,
    algorithms: WebPkiSupportedAlgorithms,
    names: PeerNames,
}

impl ServerCertVerifier for ServerNames {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, self.algorithms.all)?;
        if self.names.are_met_by(certificate) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
