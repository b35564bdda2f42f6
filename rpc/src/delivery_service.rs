//! The gateway's side of the delivery streams.
//!
//! In: numbered batches of workers. Out: the same, to a [`DeliverySink`]. Always: a stream or a batch for another run of this
//! gateway is refused with FAILED_PRECONDITION; the sink never waits, so neither does a worker.

use crate::config::{ConfigError, TlsOptions};
use crate::generated::delivery_service_server::{DeliveryService, DeliveryServiceServer};
use crate::planted::planted;
use crate::serve::{Services, Stop};
use crate::tls::PeerNames;
use async_trait::async_trait;
use im_proto::internal::DeliveryBatch;
use im_proto::services::DeliverEnd;
use std::sync::Arc;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status, Streaming};

/// One batch. A worker cuts them far smaller; only a single delivery could come near.
pub const BATCH_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Of a stream's request: which run of the gateway it is for, so that one for another run ends before a batch is lost in it.
pub const BOOT_HEADER: &str = "im-gateway-boot";

/// Where a gateway puts what workers deliver.
pub trait DeliverySink: Send + Sync + 'static {
    /// Names this run of the gateway.
    fn boot(&self) -> u64;

    /// Never waits.
    fn deliver(&self, batch: DeliveryBatch);
}

/// What a gateway role's server offers. A stream is one request without an end, so its time is not bounded here but by
/// keep-alives.
pub fn delivery_service(
    sink: Arc<dyn DeliverySink>,
    tls: Option<&TlsOptions>,
    stop: Stop,
) -> Result<Services, ConfigError> {
    let service = DeliveryServiceServer::new(Service { sink, stop }).max_decoding_message_size(BATCH_BYTES_MAX);
    let routes = Routes::new(InterceptedService::new(service, PeerNames::of_callers(tls)?));
    Ok(Services { routes, timeout: None })
}

struct Service {
    sink: Arc<dyn DeliverySink>,
    stop: Stop,
}

#[async_trait]
impl DeliveryService for Service {
    async fn deliver(&self, request: Request<Streaming<DeliveryBatch>>) -> Result<Response<DeliverEnd>, Status> {
        let own = self.sink.boot().to_string();
        // A worker of an older release names none.
        let is_another = request.metadata().get(BOOT_HEADER).is_some_and(|named| named.as_bytes() != own.as_bytes());
        if is_another && !planted("another_run_taken") {
            return Err(another_run());
        }
        let mut batches = request.into_inner();
        let mut stop = std::pin::pin!(self.stop.told());
        loop {
            let batch = tokio::select! {
                batch = batches.message() => batch?,
                () = &mut stop => return Err(Status::unavailable("the gateway is going")),
            };
            let Some(batch) = batch else { break };
            if batch.gateway_boot != self.sink.boot() && !planted("another_run_taken") {
                return Err(another_run());
            }
            self.sink.deliver(batch);
        }
        Ok(Response::new(DeliverEnd {}))
    }
}

fn another_run() -> Status {
    Status::failed_precondition("this is another run of the gateway")
}
