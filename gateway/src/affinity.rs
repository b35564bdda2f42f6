//! Which processor a core's thread keeps to.
//!
//! In: the number of a core. Out: its thread runs on one processor. Always: only processors that the process was allowed
//! to use at its start are used, so that `taskset` and containers are respected; a failure is logged and harmless.

use std::mem::MaybeUninit;

/// The processors that this thread may run on.
pub fn allowed_processors() -> Vec<usize> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: `set` is a cpu_set_t of the size given, and zero is a valid value of it.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr()) };
    if result != 0 {
        return Vec::new();
    }
    // SAFETY: zeroed above and filled by the kernel.
    let set = unsafe { set.assume_init() };
    // SAFETY: the index is below CPU_SETSIZE, the number of bits of a cpu_set_t.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// Keeps the calling thread to one processor.
pub fn pin_to(processor: usize) {
    if let Err(error) = monoio::utils::bind_to_cpu_set([processor]) {
        tracing::warn!(processor, %error, "cannot pin a core");
    }
}
