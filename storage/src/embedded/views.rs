//! Files shown to the engine otherwise than they are, so that it may look at them.
//!
//! In: a file. Out: what the engine reads of it. Always: the file itself is never written to.

use super::check::{FLAGS_OFFSET, RECOVERY_REQUIRED};
use redb::{BackendError, StorageBackend};
use std::{
    io,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A file shown as if it had been closed in order, so that the engine reads it without repairing it. Its locks are
/// granted unasked: the lock of the folder is ours, and nothing is written.
#[derive(Debug)]
pub struct AsClosed<B>(pub B);

impl<B: StorageBackend> StorageBackend for AsClosed<B> {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)?;
        if let Some(place) = FLAGS_OFFSET.checked_sub(offset)
            && let Some(flags) = out.get_mut(place as usize)
        {
            *flags &= !RECOVERY_REQUIRED;
        }
        Ok(())
    }

    fn try_lock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn try_lock_shared_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn lock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn lock_shared_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn unlock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn query_lock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(false)
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn write(&self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// A file that takes no write: what is written is seen by later reads, and gone with the value.
#[derive(Debug)]
pub struct Untouched<B> {
    file: B,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    length: u64,
    /// So much of the file is left.
    length_of_file: u64,
    /// As they came. An engine that only looks makes few.
    writes: Vec<(u64, Vec<u8>)>,
}

impl<B: StorageBackend> Untouched<B> {
    pub fn new(file: B) -> io::Result<Self> {
        let length = file.len()?;
        let written = Written { length, length_of_file: length, writes: Vec::new() };
        Ok(Self { file, written: Mutex::new(written) })
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: StorageBackend> StorageBackend for Untouched<B> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written();
        let end = offset.saturating_add(out.len() as u64);
        if end > written.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let of_file = written.length_of_file.saturating_sub(offset).min(out.len() as u64) as usize;
        self.file.read(offset, &mut out[..of_file])?;
        out[of_file..].fill(0);
        for (at, bytes) in &written.writes {
            let (first, last) = (offset.max(*at), end.min(at + bytes.len() as u64));
            if first < last {
                let newer = &bytes[(first - at) as usize..(last - at) as usize];
                out[(first - offset) as usize..(last - offset) as usize].copy_from_slice(newer);
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut written = self.written();
        (written.length, written.length_of_file) = (length, written.length_of_file.min(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.written().writes.push((offset, data.to_vec()));
        Ok(())
    }
}
