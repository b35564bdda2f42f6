//! Peers that say nothing, or stop in the middle of what they say.

use crate::certificates::Authority;
use crate::logic::{Logic, PATIENCE, options, read, serve_logic};
use im_rpc::LogicClient;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

#[tokio::test]
async fn a_peer_that_never_ends_its_tls_handshake_is_dialled_again() {
    let authority = Authority::new();
    let served = serve_logic(Arc::new(Logic::default()), Some(&authority.end("logic.im", &["gateway.im"]))).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = options(vec![format!("https://localhost:{}", listener.local_addr().unwrap().port())]);
    options.connect.tls = Some(authority.end("gateway.im", &["logic.im"]));
    options.connect.timeout = Duration::from_secs(1);
    let behind = served.address;
    tokio::spawn(async move {
        // The first connection is taken, and never answered.
        let _silent = listener.accept().await.unwrap();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = TcpStream::connect(behind).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    });
    let client = LogicClient::new(&options).unwrap();
    let answered = async { while client.read(read(b"x")).await.is_err() {} };
    timeout(PATIENCE, answered).await.expect("the client waits for the first connection for ever");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let served = serve_logic(Arc::new(Logic::default()), None).await;
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    let ended = timeout(PATIENCE, silent.read_to_end(&mut Vec::new())).await.expect("it stays open");
    assert!(ended.is_ok(), "{ended:?}");
}

#[tokio::test]
async fn a_role_ends_though_a_peer_stopped_in_the_middle_of_its_first_words() {
    let served = serve_logic(Arc::new(Logic::default()), None).await;
    let mut peer = TcpStream::connect(served.address).await.unwrap();
    peer.write_all(b"PRI * HTTP").await.unwrap();
    // A request on another connection is answered behind it: the first one was accepted.
    let client = LogicClient::new(&options(vec![format!("http://{}", served.address)])).unwrap();
    client.read(read(b"x")).await.unwrap();
    timeout(PATIENCE, served.stop()).await.expect("it waits for the peer");
}
