//! What the health service of another role answers.
//!
//! In: an address. Out: whether it serves. Always: one attempt, and no longer than a connection may take to be made.

use crate::config::ConnectOptions;
use crate::connect::Connect;
use crate::logic_client::CallError;
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Whether the role at `address` (`http://host:port`) says that it serves.
pub async fn is_serving(address: &str, options: &ConnectOptions) -> Result<bool, CallError> {
    let endpoint = Connect::new(options).and_then(|connect| connect.endpoint(address));
    let endpoint = endpoint.map_err(|error| CallError::Refused(error.to_string()))?;
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
