//! Bugs on purpose, so that a script can see the tests find them.
//!
//! In: `IM_PLANTED_BUG`, read once. Out: whether a named bug is switched on. Always: false without the feature
//! `planted-bugs`, so the compiler drops every planted branch. `lane_ends_with_lease`: a gateway whose lease is gone gets
//! nothing, though it can be reached; `batches_whole`: a batch leaves in one piece, however large;
//! `dropped_unnumbered`: a batch that found no room leaves no gap; `another_run_taken`: a gateway takes what is for an earlier run;
//! `refused_stream_pressed`: a stream that a gateway refuses is opened again at once, for ever;
//! `failed_accept_repeated_at_once`: without descriptors a role tries to accept all the time;
//! `handshake_unbounded`: a peer that never ends its TLS handshake is waited for without end;
//! `silence_is_kept`: a connection that says nothing stays open; `stop_waits_for_ever`: and is waited for when a role stops;
//! `away_is_an_answer`: a role whose store is away answers so, and no other is asked.

#[cfg(feature = "planted-bugs")]
pub fn planted(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("IM_PLANTED_BUG").ok()).as_deref() == Some(name)
}

#[cfg(not(feature = "planted-bugs"))]
pub const fn planted(_name: &str) -> bool {
    false
}
