//! The worker and the request handlers on the embedded store: what the delivery contract says, claim by claim.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod banned;
mod catching_up;
mod commands;
mod covering;
mod dead_letters;
mod faulty_log;
mod flushed_inbox;
mod groups;
mod harness;
mod large;
mod later_version;
mod lost_end;
mod reading;
mod repeated;
mod sending;
mod signing_in;
mod silent_directory;
mod syncing;
mod taken;
mod weather;
