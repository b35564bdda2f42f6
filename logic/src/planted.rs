//! Faults on purpose, one at a time, so that the tests can show that they would find them.
//!
//! In: the name of a fault. Out: whether it is the one chosen by the variable `IM_PLANTED_BUG`. Always: without the cargo
//! feature `planted-bugs` the answer is a constant `false` and nothing of it is compiled in.

#[cfg(feature = "planted-bugs")]
pub(crate) fn planted(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("IM_PLANTED_BUG").ok()).as_deref() == Some(name)
}

#[cfg(not(feature = "planted-bugs"))]
pub(crate) const fn planted(_name: &str) -> bool {
    false
}
