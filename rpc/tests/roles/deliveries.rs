//! Numbered batches over streams that break.

use crate::logic::{PATIENCE, connect, serve_logic};
use im_proto::internal::{Answer, Delivery, DeliveryBatch, delivery::Kind};
use im_rpc::{
    ConfigError, DeliverySink, DeliveryStreams, LANE_BATCHES_MAX, Served, Stop, TlsOptions, delivery_service, serve,
};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::Notify;

const WORKER: u64 = 5;

pub struct Sink {
    boot: u64,
    batches: Mutex<Vec<DeliveryBatch>>,
    came: Notify,
}

impl DeliverySink for Sink {
    fn boot(&self) -> u64 {
        self.boot
    }

    fn deliver(&self, batch: DeliveryBatch) {
        self.batches.lock().unwrap().push(batch);
        self.came.notify_one();
    }
}

impl Sink {
    pub fn new(boot: u64) -> Arc<Self> {
        Arc::new(Self { boot, batches: Mutex::default(), came: Notify::new() })
    }

    /// Whose batches came.
    pub fn workers(&self) -> Vec<u64> {
        self.batches.lock().unwrap().iter().map(|batch| batch.worker_boot).collect()
    }

    /// The numbers of the batches, once there are `count`.
    pub async fn numbers(&self, count: usize) -> Vec<u64> {
        self.numbers_when(|numbers| numbers.len() >= count).await
    }

    async fn numbers_when(&self, is_enough: impl Fn(&[u64]) -> bool) -> Vec<u64> {
        let waiting = async {
            loop {
                let came = self.came.notified();
                let numbers: Vec<u64> = self.batches.lock().unwrap().iter().map(|batch| batch.number).collect();
                if is_enough(&numbers) {
                    return numbers;
                }
                came.await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("a batch did not come")
    }
}

async fn gateway(sink: &Arc<Sink>, address: &str) -> Served {
    gateway_with(sink, address, None).await
}

pub async fn secure_gateway(sink: &Arc<Sink>, tls: &TlsOptions) -> Served {
    gateway_with(sink, "127.0.0.1:0", Some(tls)).await
}

async fn gateway_with(sink: &Arc<Sink>, address: &str, tls: Option<&TlsOptions>) -> Served {
    let listener = TcpListener::bind(address).await.unwrap();
    let stop = Stop::default();
    serve(listener, tls, delivery_service(sink.clone(), tls, stop.clone()).unwrap(), stop).await.unwrap()
}

fn streams() -> Arc<DeliveryStreams> {
    DeliveryStreams::new(WORKER, &connect(None)).unwrap()
}

pub fn know(streams: &DeliveryStreams, gateways: &[(u64, String)]) {
    let refused = streams.set_gateways(gateways);
    assert!(refused.is_empty(), "{refused:?}");
}

pub fn one_answer() -> Vec<Delivery> {
    vec![answer(0)]
}

fn answer(bytes: usize) -> Delivery {
    let answer = Answer { connection_id: 3, frame: vec![0; bytes].into(), ..Default::default() };
    Delivery { kind: Some(Kind::Answer(answer)), trace: None }
}

/// Gives other tasks their turn until it is so.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    let turns = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, turns).await.unwrap_or_else(|_| panic!("not {what}"));
}

pub fn opened(streams: &DeliveryStreams) -> u64 {
    streams.counts().streams_opened.load(Ordering::Relaxed)
}

fn dropped(streams: &DeliveryStreams) -> u64 {
    streams.counts().dropped.load(Ordering::Relaxed)
}

#[tokio::test]
async fn batches_arrive_numbered_and_those_from_before_the_address_was_known_too() {
    let sink = Sink::new(7);
    let served = gateway(&sink, "127.0.0.1:0").await;
    let streams = streams();
    streams.deliver(7, one_answer());
    streams.leases_wanted().await;
    know(&streams, &[(7, format!("http://{}", served.address))]);
    for _ in 0..9 {
        streams.deliver(7, one_answer());
    }
    assert_eq!(sink.numbers(10).await, (1..=10).collect::<Vec<_>>());
    let batches = sink.batches.lock().unwrap();
    assert!(batches.iter().all(|batch| batch.worker_boot == WORKER && batch.deliveries == one_answer()));
}

#[tokio::test]
async fn a_full_lane_drops_batches_and_leaves_the_gap_in_the_numbers() {
    let sink = Sink::new(7);
    let served = gateway(&sink, "127.0.0.1:0").await;
    let streams = streams();
    for _ in 0..LANE_BATCHES_MAX + 3 {
        streams.deliver(7, one_answer());
    }
    assert_eq!(dropped(&streams), 3);
    know(&streams, &[(7, format!("http://{}", served.address))]);
    sink.numbers(LANE_BATCHES_MAX).await;
    streams.deliver(7, one_answer());
    let numbers = sink.numbers(LANE_BATCHES_MAX + 1).await;
    assert_eq!(numbers[LANE_BATCHES_MAX - 1] + 4, numbers[LANE_BATCHES_MAX], "three are missing, and it shows");
}

#[tokio::test]
async fn numbers_go_on_over_a_stream_that_broke() {
    let sink = Sink::new(7);
    let served = gateway(&sink, "127.0.0.1:0").await;
    let address = served.address.to_string();
    let streams = streams();
    know(&streams, &[(7, format!("http://{address}"))]);
    streams.deliver(7, one_answer());
    sink.numbers(1).await;
    // The stream never ends by itself; stopping ends it.
    served.stop().await;
    for _ in 0..5 {
        streams.deliver(7, one_answer());
    }
    let _served = gateway(&sink, &address).await;
    let numbers = sink.numbers_when(|numbers| numbers.last() == Some(&6)).await;
    assert_eq!(streams.counts().streams_opened.load(Ordering::Relaxed), 2);
    // What was on its way when the stream broke may be lost, but for that all are there, in order.
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
}

#[tokio::test]
async fn a_batch_for_another_run_of_the_gateway_reaches_nobody() {
    let sink = Sink::new(8);
    let served = gateway(&sink, "127.0.0.1:0").await;
    let streams = streams();
    let endpoint = format!("http://{}", served.address);
    // The lease of the old run still names the address.
    know(&streams, &[(7, endpoint.clone()), (8, endpoint)]);
    streams.deliver(7, one_answer());
    streams.deliver(8, one_answer());
    assert_eq!(sink.numbers(1).await, [1]);
    assert!(sink.batches.lock().unwrap().iter().all(|batch| batch.gateway_boot == 8));
}

#[tokio::test]
async fn a_gateway_that_lost_its_lease_alone_gets_its_batches_on() {
    let sink = Sink::new(7);
    let served = gateway(&sink, "127.0.0.1:0").await;
    let streams = streams();
    know(&streams, &[(7, format!("http://{}", served.address))]);
    streams.deliver(7, one_answer());
    sink.numbers(1).await;
    know(&streams, &[]);
    streams.deliver(7, one_answer());
    assert_eq!(sink.numbers(2).await, [1, 2]);
    // Without a lease it is gone once it cannot be reached.
    served.stop().await;
    let ended = async {
        loop {
            know(&streams, &[]);
            streams.deliver(7, one_answer());
            tokio::select! {
                biased;
                // Its new lane has no address.
                () = streams.leases_wanted() => break,
                () = tokio::task::yield_now() => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("the lane ends");
}

#[tokio::test]
async fn what_a_lane_ends_with_is_counted_and_shows_in_the_numbers_of_the_next() {
    let sink = Sink::new(7);
    let served = gateway(&sink, "127.0.0.1:0").await;
    let streams = streams();
    streams.deliver(7, one_answer());
    streams.deliver(7, one_answer());
    know(&streams, &[]);
    until("counted", || dropped(&streams) == 2).await;
    assert_eq!(streams.waiting(), (0, 0));
    know(&streams, &[(7, format!("http://{}", served.address))]);
    streams.deliver(7, one_answer());
    assert_eq!(sink.numbers(1).await, [3]);
    assert_eq!(streams.counts().handed_on.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_lease_that_names_no_address_takes_nothing_from_the_gateways_behind_it() {
    let sink = Sink::new(7);
    let served = gateway(&sink, "127.0.0.1:0").await;
    let streams = streams();
    let refused = streams.set_gateways(&[(6, "gateway".to_owned()), (7, format!("http://{}", served.address))]);
    assert!(matches!(refused[..], [(6, ConfigError::Endpoint(_))]), "{refused:?}");
    streams.deliver(7, one_answer());
    assert_eq!(sink.numbers(1).await, [1]);
}

#[tokio::test]
async fn another_run_at_a_gateways_address_makes_the_worker_ask_for_the_leases_before_a_batch_is_lost() {
    let sink = Sink::new(8);
    let served = gateway(&sink, "127.0.0.1:0").await;
    let streams = streams();
    know(&streams, &[(7, format!("http://{}", served.address))]);
    tokio::time::timeout(PATIENCE, streams.leases_wanted()).await.expect("the leases are asked for");
    assert_eq!(streams.counts().handed_on.load(Ordering::Relaxed), 0);
    // The old run's lane ends with its lease, though something answers at its address.
    know(&streams, &[]);
    streams.deliver(7, one_answer());
    know(&streams, &[]);
    until("dropped", || dropped(&streams) == 1).await;
}

/// A role of another kind, or version, at the address.
#[tokio::test]
async fn a_stream_that_is_refused_is_opened_less_and_less_often() {
    let other = serve_logic(Arc::default(), None).await;
    let streams = streams();
    know(&streams, &[(7, format!("http://{}", other.address))]);
    streams.deliver(7, one_answer());
    until("the first stream", || opened(&streams) >= 1).await;
    let first = Instant::now();
    until("the seventh stream", || opened(&streams) >= 7).await;
    // 80, 160, 320, 640 ms; before them 20 and 40, which the first look may have missed.
    assert!(first.elapsed() >= Duration::from_millis(1_100), "seven in {:?}", first.elapsed());
}

#[tokio::test]
async fn a_batch_of_any_size_arrives_in_numbered_pieces() {
    const MIB: usize = 1024 * 1024;
    let sink = Sink::new(7);
    let served = gateway(&sink, "127.0.0.1:0").await;
    let streams = streams();
    know(&streams, &[(7, format!("http://{}", served.address))]);
    // More than a gateway takes at once.
    streams.deliver(7, (0..80).map(|_| answer(MIB / 2)).collect());
    sink.numbers(80).await;
    // One alone that no gateway takes.
    streams.deliver(7, vec![answer(0), answer(33 * MIB), answer(0)]);
    let numbers = sink.numbers_when(|numbers| numbers.last() > Some(&81)).await;
    assert_eq!(numbers, [(1..=81).collect::<Vec<_>>(), vec![83]].concat(), "the gap shows what was dropped");
    let batches = sink.batches.lock().unwrap();
    assert_eq!(batches.iter().map(|batch| batch.deliveries.len()).sum::<usize>(), 82);
    assert_eq!(dropped(&streams), 1);
    assert_eq!(streams.counts().streams_opened.load(Ordering::Relaxed), 1, "no stream was reset");
}
