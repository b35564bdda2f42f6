//! Mutual TLS lets in by exact name.

use crate::deliveries::{Sink, know, one_answer, opened, secure_gateway, until};
use crate::logic::{Logic, connect, options, read, serve_logic};
use im_rpc::{CallError, ConfigError, DeliveryStreams, LogicClient, TlsOptions, check_advertised};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.path().join("authority.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    /// What an end named `name` is configured with, which lets in `peers`.
    pub fn end(&self, name: &str, peers: &[&str]) -> TlsOptions {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let path = |what: &str| self.folder.path().join(format!("{name}.{what}.pem"));
        std::fs::write(path("certificate"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        TlsOptions {
            authority: self.folder.path().join("authority.pem"),
            certificate: path("certificate"),
            key: path("key"),
            peer_names: peers.iter().map(|name| (*name).to_owned()).collect(),
        }
    }
}

async fn ask(address: &str, tls: Option<TlsOptions>) -> Result<(), CallError> {
    let mut options = options(vec![address.to_owned()]);
    (options.connect.tls, options.attempts) = (tls, 1);
    LogicClient::new(&options).unwrap().read(read(b"x")).await.map(drop)
}

#[tokio::test]
async fn only_a_certificate_of_the_right_authority_with_the_right_name_is_let_in() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let logic = Arc::new(Logic::default());
    let served = serve_logic(logic.clone(), Some(&authority.end("logic.im", &["gateway.im"]))).await;
    let https = format!("https://localhost:{}", served.address.port());
    ask(&https, Some(authority.end("gateway.im", &["logic.im"]))).await.unwrap();
    assert_eq!(logic.reads.load(Ordering::SeqCst), 1);
    let refused = ask(&https, Some(authority.end("other.im", &["logic.im"]))).await;
    assert!(matches!(refused, Err(CallError::Refused(_))), "{refused:?}");
    // The server's name is wrong; the client's authority is another; there is no TLS at all.
    assert!(ask(&https, Some(authority.end("gateway.im", &["other.im"]))).await.is_err());
    assert!(ask(&https, Some(foreign.end("gateway.im", &["logic.im"]))).await.is_err());
    assert!(ask(&format!("http://{}", served.address), None).await.is_err());
    assert_eq!(logic.reads.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn deliveries_too_come_from_the_right_name_and_go_to_it_alone() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let sink = Sink::new(7);
    let served = secure_gateway(&sink, &authority.end("gateway.im", &["logic.im"])).await;
    let https = format!("https://localhost:{}", served.address.port());
    // Two are refused before there is a stream, the third by its name on each one that it opens.
    let no_streams = [authority.end("logic.im", &["other.im"]), foreign.end("logic.im", &["gateway.im"])];
    let no_streams = no_streams.map(|end| delivers(1, end, &https));
    let refused = delivers(2, authority.end("other.im", &["gateway.im"]), &https);
    until("refused", || opened(&refused) > 1).await;
    let right = delivers(3, authority.end("logic.im", &["gateway.im"]), &https);
    for number in 2..=50 {
        right.deliver(7, one_answer());
        sink.numbers(number).await;
    }
    assert!(sink.workers().iter().all(|worker| *worker == 3), "{:?}", sink.workers());
    assert_eq!(no_streams.map(|streams| opened(&streams)), [0, 0]);
}

/// A worker with one batch for the gateway.
fn delivers(worker: u64, end: TlsOptions, gateway: &str) -> Arc<DeliveryStreams> {
    let streams = DeliveryStreams::new(worker, &connect(Some(end))).unwrap();
    know(&streams, &[(7, gateway.to_owned())]);
    streams.deliver(7, one_answer());
    streams
}

#[tokio::test]
async fn one_list_of_names_serves_both_directions() {
    let (authority, names) = (Authority::new(), ["gateway.im", "logic.im"]);
    let served = serve_logic(Arc::default(), Some(&authority.end("logic.im", &names))).await;
    let https = format!("https://localhost:{}", served.address.port());
    ask(&https, Some(authority.end("gateway.im", &names))).await.unwrap();
    assert!(ask(&https, Some(authority.end("other.im", &names))).await.is_err());
}

#[tokio::test]
async fn a_wildcard_in_a_certificate_is_no_name() {
    let (authority, names) = (Authority::new(), ["a.roles.im"]);
    let [exact, wild] = ["a.roles.im", "*.roles.im"].map(|name| authority.end(name, &names));
    let https = async |end: &TlsOptions| {
        let served = serve_logic(Arc::default(), Some(end)).await;
        (format!("https://localhost:{}", served.address.port()), served)
    };
    let (of_exact, _exact) = https(&exact).await;
    let (of_wild, _wild) = https(&wild).await;
    ask(&of_exact, Some(exact.clone())).await.unwrap();
    let refused = ask(&of_exact, Some(wild)).await;
    assert!(matches!(refused, Err(CallError::Refused(_))), "the server refuses it: {refused:?}");
    assert!(ask(&of_wild, Some(exact)).await.is_err(), "and so does the client");
}

#[tokio::test]
async fn with_certificates_nothing_is_asked_without_them() {
    let authority = Authority::new();
    let mut options = options(vec!["http://localhost:1".to_owned()]);
    options.connect.tls = Some(authority.end("a.im", &["b.im"]));
    assert!(matches!(LogicClient::new(&options), Err(ConfigError::Endpoint(_))));
    assert!(matches!(check_advertised("http://gateway:1", true), Err(ConfigError::Endpoint(_))));
    check_advertised("https://gateway:1", true).unwrap();
}

#[tokio::test]
async fn an_address_that_nobody_else_could_connect_to_is_not_told() {
    for nowhere in ["http://0.0.0.0:6103", "http://[::]:6103"] {
        assert!(matches!(check_advertised(nowhere, false), Err(ConfigError::Unspecified(_))), "{nowhere}");
    }
    for none in ["gateway:6103", "", "http://", "https://gateway:6103"] {
        assert!(matches!(check_advertised(none, false), Err(ConfigError::Endpoint(_))), "{none}");
    }
    for good in ["http://gateway:6103", "http://10.0.0.1:6103", "http://[::1]:6103"] {
        check_advertised(good, false).unwrap();
    }
}

#[tokio::test]
async fn mistakes_are_told_before_anything_is_connected() {
    let authority = Authority::new();
    let mut options = options(vec!["no address".to_owned()]);
    assert!(matches!(LogicClient::new(&options), Err(ConfigError::Endpoint(_))));
    options.endpoints = vec!["https://localhost:1".to_owned()];
    options.connect.tls = Some(authority.end("a", &[]));
    assert!(matches!(LogicClient::new(&options), Err(ConfigError::NoPeerNames)));
    let missing = TlsOptions { key: Path::new("/nowhere/key.pem").to_owned(), ..authority.end("a", &["b"]) };
    options.connect.tls = Some(missing);
    assert!(matches!(LogicClient::new(&options), Err(ConfigError::File { what: "key", .. })));
}
