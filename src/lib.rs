//! The composition roots of im-server and what they need from the operating system: configuration, HTTP, tokens.
//!
//! In: a [`config::Config`]. Out: a running role. Always: this package alone knows all the others.

mod clock;
pub mod command_line;
pub mod config;
mod demo;
pub mod exit;
mod fault_points;
mod http;
mod join;
mod logging;
mod metrics;
mod page;
pub mod restore;
pub mod standalone;
mod start_text;
pub mod tokens;
