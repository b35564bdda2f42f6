//! What every end-to-end test needs: a server process, connections with and without manners, histories and their checker.
//!
//! In: what a test wants to happen. Out: what did happen, or a panic that names what did not happen in time. Always: no
//! sleep stands for an event; waiting is for something seen, with a deadline.

pub mod app;
pub mod bystander;
pub mod calls;
pub mod checker;
#[cfg(feature = "services")]
pub mod cluster;
#[cfg(feature = "services")]
pub mod deployment;
pub mod endpoint;
pub mod history;
pub mod http;
pub mod load;
pub mod process;
pub mod raw;
pub mod read_back;
pub mod server;
pub mod settings;
pub mod tokens;
pub mod wire;
