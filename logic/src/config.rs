//! Every limit of the logic, by name.
//!
//! In: the configuration of the process. Out: one value passed down. Always: what is not here is a constant beside the
//! code that it bounds.

#[derive(Debug, Clone)]
pub struct LogicConfig {
    /// Milliseconds since 1970, by the one clock of the process: for display, token expiry and the age of a record.
    pub wall_clock_ms: fn() -> i64,
    /// Commands decided and stored as one batch.
    pub batch_records_max: usize,
    /// Logs whose head and members a worker remembers; the one used longest ago goes.
    pub logs_cached_max: usize,
    /// Commands a worker remembers, so that a repetition needs no look into the store. Usefully more than a batch holds:
    /// what a command waits for may stand in the same one.
    pub commands_remembered_max: usize,
    /// Members that all those logs of a worker hold together, up to 100 bytes each: the logs used longest ago go.
    pub members_cached_max: usize,
    /// A command that waited longer is answered RETRY and not stored: its sender has long given up on it.
    pub upstream_age_max_ms: u32,
    /// How often what was applied is made durable, so that a restart has little to repeat.
    pub cover_interval_ms: u32,
    /// Moved read cursors that a worker holds for the directory; one more batch, and they are handed over or left to be repeated
    /// from the log.
    pub reads_waiting_max: usize,
    /// How often an idle worker looks whether its projections still are what they were.
    pub claim_check_interval_ms: u32,
    /// Writing commands a second per user; beyond the burst they are answered BUSY.
    pub send_rate_per_user_per_s: u32,
    pub send_burst_per_user: u32,
    /// Up to so many members, a moved read cursor is pushed to the others.
    pub receipts_members_max: usize,
    /// With more members than this, a conversation is delivered by gateways that know its members, and no row is written for
    /// each.
    pub large_members_min: usize,
    pub limits: Limits,
}

/// What `decide` holds commands to.
#[derive(Debug, Clone)]
pub struct Limits {
    pub body_bytes_max: usize,
    pub group_members_max: usize,
    pub group_name_bytes_max: usize,
}

impl Default for LogicConfig {
    fn default() -> Self {
        Self {
            wall_clock_ms: crate::clock::now_ms,
            batch_records_max: 1024,
            logs_cached_max: 100_000,
            commands_remembered_max: 65_536,
            members_cached_max: 2_000_000,
            upstream_age_max_ms: 10_000,
            cover_interval_ms: 1_000,
            reads_waiting_max: 65_536,
            claim_check_interval_ms: 5_000,
            send_rate_per_user_per_s: 20,
            send_burst_per_user: 60,
            receipts_members_max: 100,
            large_members_min: 500,
            limits: Limits { body_bytes_max: 16 * 1024, group_members_max: 10_000, group_name_bytes_max: 128 },
        }
    }
}
