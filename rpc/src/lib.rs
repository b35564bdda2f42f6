//! What the roles ask each other over gRPC: logins and reads from gateways to logic, deliveries from workers to gateways.
//!
//! In: traits that a role implements, addresses and certificates. Out: servers and clients of `proto/services.proto`.
//! Always: every call has a deadline; every call may be repeated; nothing of a role's own is known here, so standalone needs
//! none of it.
//!
//! | file | what it is |
//! |---|---|
//! | `config`, `connect`, `tls` | addresses, deadlines, certificates and the names they must carry |
//! | `serve`, `accept`, `health` | a server of one role, with the standard health service; its connections; and what it answers |
//! | `logic_service`, `logic_client` | sign-in, sign-out, heartbeats, reads, devices |
//! | `delivery_service`, `delivery_streams`, `lane` | numbered batches from workers to gateways |
#![forbid(unsafe_code)]

mod accept;
mod config;
mod connect;
mod delivery_service;
mod delivery_streams;
#[allow(clippy::all, clippy::unwrap_used)]
#[rustfmt::skip]
#[path = "generated/im.services.v1.rs"]
mod generated;
mod health;
mod lane;
mod logic_client;
mod logic_service;
mod planted;
mod serve;
mod tls;

pub use config::{CallOptions, ConfigError, ConnectOptions, LogicOptions, TlsOptions};
pub use connect::check_advertised;
pub use delivery_service::{DeliverySink, delivery_service};
pub use delivery_streams::DeliveryStreams;
pub use health::is_serving;
pub use lane::{DeliveryCounts, LANE_BATCHES_MAX, LANE_BYTES_MAX};
pub use logic_client::{CallError, LogicClient};
pub use logic_service::{ASKED_AT_ONCE_MAX, LogicHandler, Refused, logic_service};
#[doc(hidden)]
pub use planted::planted;
pub use serve::{Readiness, Served, Services, Stop, serve};
