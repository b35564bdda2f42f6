//! What the tests of failing disks share: the disk, and a run of appends whose every answer is remembered.

pub mod disk;
pub mod run;

use im_proto::{ClientId, LogId, UserId};

pub fn user(text: &str) -> UserId {
    UserId::parse(text).unwrap()
}

pub fn log(text: &str) -> LogId {
    LogId::parse(text).unwrap()
}

pub fn client_id(text: &str) -> ClientId {
    ClientId::parse(text).unwrap()
}

/// A number from the environment, or its default.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}
