//! What the health service of another role answers.
//!
//! In: an endpoint. Out: whether it serves. Always: one attempt, with the deadline of the other calls.

use crate::config::CallOptions;
use crate::logic_client::{CallError, endpoint};
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Whether the role at `address` (`http://host:port`) says that it serves.
pub async fn is_serving(address: &str, options: &CallOptions) -> Result<bool, CallError> {
    let endpoint = endpoint(address, options).map_err(|error| CallError::Refused(error.to_string()))?;
    let ask = async {
        let channel = endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))?;
        HealthClient::new(channel).check(Request::new(HealthCheckRequest::default())).await
    };
    let answered = tokio::time::timeout(options.timeout, ask).await;
    match answered.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))) {
        Ok(answer) => Ok(answer.into_inner().status() == ServingStatus::Serving),
        Err(status) => Err(CallError::NoAnswer(status.message().to_owned())),
    }
}
