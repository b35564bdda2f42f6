//! The promises of im-server as claims about a real process, seen through its sockets.
//!
//! In: the server binary (`IM_SERVER_BIN` names another build, `IM_TEST_DRIVER` another driver, `IM_TEST_TRANSPORT` what the
//! clients connect over). Out: one module a promise or a table. Always: every test has servers and folders of its own, so they
//! run at once and in any order.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends where it stands")]

mod bad_input;
mod banned;
mod c1_acked_is_stored;
mod c2_sending_twice_stores_once;
mod c3_one_order;
mod c4_everyone_gets_everything;
#[cfg(feature = "fault-points")]
mod c4_troubled_pushes;
mod c5_every_request_ends;
mod c6_nothing_is_dropped_silently;
mod c7_an_old_login_never_evicts_a_newer_one;
#[cfg(feature = "services")]
mod chaos;
#[cfg(feature = "fault-points")]
mod clock_jumps;
#[cfg(feature = "services")]
mod cluster;
mod configuration;
#[cfg(feature = "services")]
mod doctor;
mod faults;
mod harness;
mod kill;
#[cfg(feature = "fault-points")]
mod kill_points;
mod large_conversations;
#[cfg(all(feature = "services", feature = "fault-points"))]
mod leases;
mod page;
mod process;
#[cfg(feature = "services")]
mod recovery;
mod restore;
mod traces;
