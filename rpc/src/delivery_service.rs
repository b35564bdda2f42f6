//! The gateway's side of the delivery streams.
//!
//! In: numbered batches of workers. Out: the same, to a [`DeliverySink`]. Always: a batch for another run of this gateway
//! ends its stream; the sink never waits, so neither does a worker.

use crate::config::{ConfigError, TlsOptions};
use crate::generated::delivery_service_server::{DeliveryService, DeliveryServiceServer};
use crate::serve::Stop;
use crate::tls::PeerNames;
use async_trait::async_trait;
use im_proto::internal::DeliveryBatch;
use im_proto::services::DeliverEnd;
use std::sync::Arc;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status, Streaming};

/// One batch; a worker cuts larger ones.
const BATCH_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Where a gateway puts what workers deliver.
pub trait DeliverySink: Send + Sync + 'static {
    /// Names this run of the gateway.
    fn boot(&self) -> u64;

    /// Never waits.
    fn deliver(&self, batch: DeliveryBatch);
}

/// The routes of a gateway role's server.
pub fn delivery_service(
    sink: Arc<dyn DeliverySink>,
    tls: Option<&TlsOptions>,
    stop: Stop,
) -> Result<Routes, ConfigError> {
    let service = DeliveryServiceServer::new(Service { sink, stop }).max_decoding_message_size(BATCH_BYTES_MAX);
    Ok(Routes::new(InterceptedService::new(service, PeerNames::new(tls)?)))
}

struct Service {
    sink: Arc<dyn DeliverySink>,
    stop: Stop,
}

#[async_trait]
impl DeliveryService for Service {
    async fn deliver(&self, request: Request<Streaming<DeliveryBatch>>) -> Result<Response<DeliverEnd>, Status> {
        let mut batches = request.into_inner();
        let mut stop = std::pin::pin!(self.stop.told());
        loop {
            let batch = tokio::select! {
                batch = batches.message() => batch?,
                () = &mut stop => return Err(Status::unavailable("the gateway is going")),
            };
            let Some(batch) = batch else { break };
            if batch.gateway_boot != self.sink.boot() {
                return Err(Status::failed_precondition("this is another run of the gateway"));
            }
            self.sink.deliver(batch);
        }
        Ok(Response::new(DeliverEnd {}))
    }
}
