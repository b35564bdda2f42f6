//! Certificates, and the names they must carry.
//!
//! In: PEM files. Out: what tonic wants of a server and of a client, and a check of the peer's name. Always: a peer is let in
//! by one of the exact names that were configured; being signed by the right authority alone is not enough.

use crate::config::{ConfigError, TlsOptions};
use rustls_pki_types::{CertificateDer, ServerName};
use std::path::Path;
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};
use tonic::{Request, Status};

pub fn of_server(options: &TlsOptions) -> Result<ServerTlsConfig, ConfigError> {
    if options.peer_names.is_empty() {
        return Err(ConfigError::NoPeerNames);
    }
    let authority = Certificate::from_pem(read("authority", &options.authority)?);
    Ok(ServerTlsConfig::new().identity(identity(options)?).client_ca_root(authority))
}

/// The server must carry the first of the names.
pub fn of_client(options: &TlsOptions) -> Result<ClientTlsConfig, ConfigError> {
    let name = options.peer_names.first().ok_or(ConfigError::NoPeerNames)?;
    let authority = Certificate::from_pem(read("authority", &options.authority)?);
    Ok(ClientTlsConfig::new().identity(identity(options)?).ca_certificate(authority).domain_name(name))
}

fn identity(options: &TlsOptions) -> Result<Identity, ConfigError> {
    Ok(Identity::from_pem(read("certificate", &options.certificate)?, read("key", &options.key)?))
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|error| ConfigError::File { what, path: path.to_owned(), error })
}

/// Lets a call in whose certificate carries one of the names; every call where no names are asked for.
#[derive(Debug, Clone, Default)]
pub struct PeerNames(Option<Vec<ServerName<'static>>>);

impl PeerNames {
    pub fn new(tls: Option<&TlsOptions>) -> Result<Self, ConfigError> {
        let Some(tls) = tls else { return Ok(Self(None)) };
        let parse =
            |name: &String| ServerName::try_from(name.clone()).map_err(|error| ConfigError::Tls(error.to_string()));
        Ok(Self(Some(tls.peer_names.iter().map(parse).collect::<Result<_, _>>()?)))
    }

    fn allow(&self, certificates: Option<&[CertificateDer<'static>]>) -> bool {
        let Some(names) = &self.0 else { return true };
        let Some(certificate) = certificates.and_then(<[_]>::first) else { return false };
        let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return false };
        names.iter().any(|name| certificate.verify_is_valid_for_subject_name(name).is_ok())
    }
}

impl tonic::service::Interceptor for PeerNames {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let certificates = request.peer_certs();
        if self.allow(certificates.as_deref().map(Vec::as_slice)) {
            Ok(request)
        } else {
            Err(Status::permission_denied("the certificate carries none of the names that are let in"))
        }
    }
}
