//! Bugs on purpose, so that a test can see the suites find them.
//!
//! In: `IM_PLANTED_BUG`, read once. Out: whether a named bug is switched on. Always: false without the feature
//! `planted-bugs`, so the compiler drops every planted branch.

/// The bugs that exist: what each breaks.
#[cfg(feature = "planted-bugs")]
pub const NAMES: &[&str] = &[
    "fsync_removed",                   // reports durable without syncing
    "crc_skip",                        // hands out entries without looking at their checksum
    "no_client_id_key",                // stores a resent client id again
    "version_reused",                  // inbox versions restart where the flushed rows end
    "replaced_owner_covers",           // takes a cover from an owner whose claim is gone
    "late_dial_replaces",              // lets a sign-in that comes late replace a later one of the same client
    "unregister_by_device",            // the end of an old login takes the route of a newer one
    "insert_unordered",                // goes on behind an entry whose key is taken
    "repeat_replaces",                 // a sign-in that is repeated replaces itself
    "stale_route_accepted",            // hands out routes of a gateway without a lease
    "cut_flush_forgotten",             // a flush whose caller gives up forgets the rows it has not written
    "equal_cover_unsynced",            // a cover of what is covered already leaves rows to the next one to sync
    "pause_outlives_loss",             // a partition that was lost while it was full is read no more when it is back
    "queue_drops_when_full",           // takes what does not fit, and forgets it
    "failed_producer_stays",           // sends on by a producer that has failed for good
    "steady_flow_has_no_end",          // holds the clocks of a busy partition's records against the worker's for ever
    "stuck_producer_stays",            // sends on by a producer that loses whatever it is given
    "damaged_record_taken",            // takes what a broker hands out without looking at its checksum
    "failed_consumer_waits",           // waits for a consumer that has failed for good
    "standing_consumer_stays",         // waits for a consumer that stands still
    "replaced_consumer_tells_no_loss", // what a consumer owned that is replaced counts as owned on
    "untold_settings_pass",            // takes a topic whose settings the brokers do not tell for a safe one
    "applied_over_a_hole",             // applies a change of members though the one before it is lacking
    "close_unwitnessed",               // a store that is closed in order makes durable what no witness knows of
    "flipped_format_believed",         // takes a damaged file for one of a newer program
    "put_unsynced",                    // leaves a relation that was put to the next job to sync
    "relations_of_the_past_forgotten", // tells a follower what changes, and nothing that was kept before
    "listed_log_ends_listing",         // takes a log that is listed already for the end of a list of new ones
    "deadline_per_command",            // gives each command of an append the time of the whole call
    "windows_out_of_order",            // names later entries before earlier ones
    "operators_index_refused",         // makes every index anew, though an operator has made one of the same fields
    "damaged_row_refused",             // refuses the moves of a batch for one row that somebody else wrote
    "migrator_lock_ignored",           // migrates though another one does
    "log_said_empty",                  // says of a log with entries that it has none
    "covers_of_the_future_stand", // begins a tail where nothing is stored yet, since the server's clock was set back
    "entries_by_own_clock",       // finds entries in MongoDB by the wall clock of the worker
    "generations_by_own_clock",   // lifts generations in Redis by the wall clock of the worker
];

#[cfg(feature = "planted-bugs")]
pub fn planted(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    debug_assert!(NAMES.contains(&name), "no planted bug has the name {name}");
    CHOSEN.get_or_init(|| std::env::var("IM_PLANTED_BUG").ok()).as_deref() == Some(name)
}

#[cfg(not(feature = "planted-bugs"))]
pub const fn planted(_name: &str) -> bool {
    false
}
