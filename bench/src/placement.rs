//! Which CPU the server runs on and which the load.
//!
//! In: two options. Out: threads and processes bound to them. Always: without the options nothing is bound;
//! with one the other is needed, for a child starts with the binding of its parent.

use crate::error::BenchError;
use crate::proc;
use clap::Args;

#[derive(Args, Clone, Copy)]
pub struct Placement {
    /// Run servers that im-bench starts on this CPU only.
    #[arg(long, requires = "load_cpu")]
    pub server_cpu: Option<usize>,
    /// Run the load on this CPU only.
    #[arg(long, requires = "server_cpu")]
    pub load_cpu: Option<usize>,
}

impl Placement {
    pub fn pin_load(&self) -> Result<(), BenchError> {
        self.load_cpu.map_or(Ok(()), proc::pin_this_thread)
    }
}
