//! The scripts that Redis runs: each is one atomic step on one server.
//!
//! In: nothing. Out: scripts by name, loaded on each new connection and called by their hash. Always: a script writes by
//! its effects only, so replicas and the append-only file repeat it exactly; none runs longer than a few milliseconds,
//! for its arguments are bounded by the caller.

use redis::{Cmd, Pipeline, Script};
use std::sync::LazyLock;

macro_rules! scripts {
    ($($name:ident = $($part:literal)+;)+) => {
        $(pub static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!($(include_str!(concat!("lua/", $part, ".lua"))),+)));)+

        /// Commands that load every script.
        pub fn load() -> Pipeline {
            let mut load = Pipeline::new();
            for body in [$(concat!($(include_str!(concat!("lua/", $part, ".lua"))),+)),+] {
                load.cmd("SCRIPT").arg("LOAD").arg(body);
            }
            load
        }
    };
}

scripts! {
    BUMP = "bump";
    SINCE = "since";
    CLAIM = "identity" "claim";
    COVER = "identity" "cover";
    REGISTER = "devices" "register";
    CONFIRM = "devices" "confirm";
    UNREGISTER = "unregister";
    LEASE = "lease";
    GATEWAYS = "gateways";
}

/// The call of a script; its keys are given, its arguments are added by the caller.
pub fn call(script: &Script, keys: &[String]) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(script.get_hash()).arg(keys.len()).arg(keys);
    command
}
