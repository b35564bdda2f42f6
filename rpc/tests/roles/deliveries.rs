//! Numbered batches over streams that break.

use crate::logic::options;
use im_proto::internal::{Answer, Delivery, DeliveryBatch, delivery::Kind};
use im_rpc::{DeliverySink, DeliveryStreams, LANE_BATCHES_MAX, Served, Stop, delivery_service, serve};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Notify;

const PATIENCE: Duration = Duration::from_secs(20);
const WORKER: u64 = 5;

struct Sink {
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
    fn new(boot: u64) -> Arc<Self> {
        Arc::new(Self { boot, batches: Mutex::default(), came: Notify::new() })
    }

    /// The numbers of the batches, once there are `count`.
    async fn numbers(&self, count: usize) -> Vec<u64> {
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
    let listener = TcpListener::bind(address).await.unwrap();
    let stop = Stop::default();
    serve(listener, None, delivery_service(sink.clone(), None, stop.clone()).unwrap(), stop).await.unwrap()
}

fn one_answer() -> Vec<Delivery> {
    vec![Delivery { kind: Some(Kind::Answer(Answer { connection_id: 3, ..Default::default() })), trace: None }]
}

#[tokio::test]
async fn batches_arrive_numbered_and_those_from_before_the_address_was_known_too() {
    let sink = Sink::new(7);
    let served = gateway(&sink, "127.0.0.1:0").await;
    let streams = DeliveryStreams::new(WORKER, options(Vec::new()));
    streams.deliver(7, one_answer());
    streams.unknown_gateway().await;
    streams.set_gateways(&[(7, format!("http://{}", served.address))]).unwrap();
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
    let streams = DeliveryStreams::new(WORKER, options(Vec::new()));
    for _ in 0..LANE_BATCHES_MAX + 3 {
        streams.deliver(7, one_answer());
    }
    assert_eq!(streams.counts().dropped.load(Ordering::Relaxed), 3);
    streams.set_gateways(&[(7, format!("http://{}", served.address))]).unwrap();
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
    let streams = DeliveryStreams::new(WORKER, options(Vec::new()));
    streams.set_gateways(&[(7, format!("http://{address}"))]).unwrap();
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
    let streams = DeliveryStreams::new(WORKER, options(Vec::new()));
    let endpoint = format!("http://{}", served.address);
    // The lease of the old run still names the address.
    streams.set_gateways(&[(7, endpoint.clone()), (8, endpoint)]).unwrap();
    streams.deliver(7, one_answer());
    streams.deliver(8, one_answer());
    assert_eq!(sink.numbers(1).await, [1]);
    assert!(sink.batches.lock().unwrap().iter().all(|batch| batch.gateway_boot == 8));
}
