//! Both ways of delivering pass the suite of their port, to a real gateway and a client on a socket.

use super::DeliverToGateway;
use async_trait::async_trait;
use bytes::Bytes;
use im_codec::{Deframer, Incoming, encode_delimited};
use im_gateway::{
    AskLogic, CoreLane, Forward, Gateway, GatewayConfig, GatewayHandle, LogicAnswer, Question, SignedIn, Upstream,
};
use im_proto::client::{self, client_frame::Command, server_frame::Body};
use im_proto::internal::{self, delivery::Kind};
use im_proto::{ConnectionId, DeviceId, Epoch, Generation, InboxVersion, UserId};
use im_storage::conformance::{self, DeliveryWay};
use im_storage::ports::{Delivery, GatewayBoot};
use prost::Message as _;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lets everybody in, and forgets what is forwarded. While it is shut, the core that forwards stands still.
#[derive(Default)]
struct Logic {
    connection: Mutex<Option<ConnectionId>>,
    gate: Mutex<Gate>,
    moved: Condvar,
}

#[derive(Default)]
struct Gate {
    is_shut: bool,
    core_waits: bool,
}

impl Logic {
    fn shut(&self, is_shut: bool) {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner).is_shut = is_shut;
        self.moved.notify_all();
    }

    fn wait_for_core(&self) {
        let gate = self.gate.lock().unwrap();
        let (_gate, timeout) = self.moved.wait_timeout_while(gate, PATIENCE, |gate| !gate.core_waits).unwrap();
        assert!(!timeout.timed_out(), "no command came");
    }
}

impl Forward for Logic {
    fn forward(&self, records: &mut Vec<Upstream>) {
        let mut gate = self.gate.lock().unwrap();
        gate.core_waits = true;
        self.moved.notify_all();
        drop(self.moved.wait_while(gate, |gate| gate.is_shut).unwrap());
        records.clear();
    }
}

impl AskLogic for Logic {
    fn ask(&self, question: Question, lane: CoreLane) {
        if let Question::SignIn { connection, .. } = question {
            *self.connection.lock().unwrap() = Some(connection);
            lane.answer(LogicAnswer::SignedIn { connection, outcome: Ok(signed_in()) });
        }
    }
}

fn signed_in() -> SignedIn {
    SignedIn {
        user: UserId::parse("ann").unwrap(),
        device: DeviceId::parse("phone").unwrap(),
        generation: Generation(1),
        inbox_version: InboxVersion(0),
        epoch: Epoch(1),
        token_expires_at_ms: None,
        large: Vec::new(),
    }
}

/// A gateway with one core, and a client that is signed in there.
struct Signed {
    gateway: GatewayHandle,
    logic: Arc<Logic>,
    socket: TcpStream,
    deframer: Deframer,
    input: Bytes,
}

impl Signed {
    async fn start() -> Self {
        let logic = Arc::<Logic>::default();
        let config = GatewayConfig {
            tcp: SocketAddr::from(([127, 0, 0, 1], 0)),
            cores: 1,
            pin: false,
            output_bytes_max: 16 * 1024 * 1024,
            output_frames_max: 65_536,
            hint_spread_ms: 1,
            ..GatewayConfig::default()
        };
        let gateway = Gateway::start(config, logic.clone(), logic.clone()).unwrap();
        let socket = TcpStream::connect(gateway.tcp_address()).await.unwrap();
        let mut signed = Self { gateway, logic, socket, deframer: Deframer::default(), input: Bytes::new() };
        let sign_in = client::SignIn {
            protocol_version: 1,
            token: "ann".into(),
            device_id: "phone".into(),
            ..Default::default()
        };
        signed.send(Command::SignIn(sign_in)).await;
        let answer = signed.next().await;
        assert!(matches!(answer, Body::SignedIn(_)), "{answer:?}");
        signed
    }

    async fn send(&mut self, command: Command) {
        let frame = client::ClientFrame { request_id: 1, command: Some(command), ..Default::default() };
        self.socket.write_all(&encode_delimited(&frame)).await.unwrap();
    }

    async fn next(&mut self) -> Body {
        loop {
            if let Some(incoming) = self.deframer.next(&mut self.input, 1 << 20).unwrap() {
                let Incoming::Frame(bytes) = incoming else { continue };
                return client::ServerFrame::decode(bytes).unwrap().body.unwrap();
            }
            let mut buffer = [0; 16 * 1024];
            let read = tokio::time::timeout(PATIENCE, self.socket.read(&mut buffer)).await;
            let count = read.expect("nothing came").unwrap();
            assert!(count > 0, "the connection ended");
            self.input = Bytes::copy_from_slice(&buffer[..count]);
        }
    }

    fn push(&self, number: u64) -> internal::Delivery {
        let entry = client::Entry { seq: number, ..Default::default() };
        let body = Body::Entry(client::EntryPushed { entry: Some(entry), ..Default::default() });
        let frame = encode_delimited(&client::ServerFrame { body: Some(body), ..Default::default() });
        let connection = self.logic.connection.lock().unwrap().unwrap();
        let targets = vec![internal::Target { connection_id: connection.0, inbox: None }];
        internal::Delivery { kind: Some(Kind::Push(internal::Push { frame, targets })), trace: None }
    }

    async fn told(&mut self) -> Option<u64> {
        match self.next().await {
            Body::Entry(pushed) => Some(pushed.entry.unwrap().seq),
            Body::SyncHint(_) => None,
            other => panic!("{other:?} instead of a push"),
        }
    }
}

impl Drop for Signed {
    fn drop(&mut self) {
        self.logic.shut(false);
        self.gateway.shutdown();
        self.gateway.join();
    }
}

/// In one process. Nothing moves while the core stands still.
struct ToGateway {
    delivery: Arc<DeliverToGateway>,
    signed: Signed,
}

impl ToGateway {
    async fn make() -> Self {
        let mut signed = Signed::start().await;
        let delivery = Arc::new(DeliverToGateway::default());
        delivery.connect(signed.gateway.clone());
        signed.logic.shut(true);
        let to = client::send::To::UserId("bob".into());
        let body = client::MessageBody { text: "hi".into(), ..Default::default() }.encode_to_vec().into();
        let send = client::Send { client_message_id: "1".into(), to: Some(to), body, ..Default::default() };
        signed.send(Command::Send(send)).await;
        signed.logic.wait_for_core();
        Self { delivery, signed }
    }
}

#[async_trait]
impl DeliveryWay for ToGateway {
    fn delivery(&self) -> Arc<dyn Delivery> {
        self.delivery.clone()
    }

    fn gateway(&self) -> GatewayBoot {
        GatewayBoot(self.signed.gateway.boot())
    }

    fn gone(&self) -> GatewayBoot {
        GatewayBoot(self.signed.gateway.boot() ^ 1)
    }

    fn push(&self, number: u64) -> internal::Delivery {
        self.signed.push(number)
    }

    async fn open(&mut self) {
        self.signed.logic.shut(false);
    }

    async fn told(&mut self) -> Option<u64> {
        self.signed.told().await
    }
}

#[tokio::test]
async fn in_one_process() {
    conformance::delivery(ToGateway::make).await;
}

#[cfg(feature = "distributed")]
mod over_streams {
    use super::*;
    use crate::join::{DeliverOverStreams, TakeFromStreams};
    use im_rpc::{ConnectOptions, DeliveryStreams, Served, Stop, delivery_service, serve};

    /// Between two processes. Nothing moves while the leases do not say where the gateway is.
    struct OverStreams {
        streams: Arc<DeliveryStreams>,
        signed: Signed,
        served: Served,
    }

    impl OverStreams {
        async fn make() -> Self {
            let signed = Signed::start().await;
            let connect = ConnectOptions { timeout: PATIENCE, keep_alive: PATIENCE, tls: None };
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let stop = Stop::default();
            let sink = Arc::new(TakeFromStreams(signed.gateway.clone()));
            let services = delivery_service(sink, None, stop.clone()).unwrap();
            let served = serve(listener, None, services, stop).await.unwrap();
            Self { streams: DeliveryStreams::new(5, &connect).unwrap(), signed, served }
        }
    }

    #[async_trait]
    impl DeliveryWay for OverStreams {
        fn delivery(&self) -> Arc<dyn Delivery> {
            Arc::new(DeliverOverStreams(self.streams.clone()))
        }

        fn gateway(&self) -> GatewayBoot {
            GatewayBoot(self.signed.gateway.boot())
        }

        fn gone(&self) -> GatewayBoot {
            GatewayBoot(self.signed.gateway.boot() ^ 1)
        }

        fn push(&self, number: u64) -> internal::Delivery {
            self.signed.push(number)
        }

        async fn open(&mut self) {
            let address = format!("http://{}", self.served.address);
            let gateways = [self.gateway(), self.gone()].map(|boot| (boot.0, address.clone()));
            let refused = self.streams.set_gateways(&gateways);
            assert!(refused.is_empty(), "{refused:?}");
        }

        async fn told(&mut self) -> Option<u64> {
            self.signed.told().await
        }
    }

    #[tokio::test]
    async fn between_two_processes() {
        conformance::delivery(OverStreams::make).await;
    }
}
