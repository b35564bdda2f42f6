//! The composition roots of im-server and what they need from the operating system: configuration, HTTP, tokens.
//!
//! In: a [`config::Config`]. Out: a running role. Always: this package alone knows all the others.

pub mod account;
mod clock;
pub mod command_line;
pub mod config;
mod control;
mod demo;
#[cfg(feature = "distributed")]
pub mod doctor;
pub mod exit;
mod fault_points;
#[cfg(feature = "distributed")]
pub mod gateway_role;
mod http;
mod join;
mod lease;
pub mod logging;
#[cfg(feature = "distributed")]
pub mod logic_role;
mod metrics;
#[cfg(feature = "distributed")]
pub mod migrate;
mod page;
mod process;
pub mod restore;
pub mod standalone;
mod start_text;
pub mod tokens;
