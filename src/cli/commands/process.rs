//! What this process uses, by what Linux says in `/proc/self` (proc(5)). Not covered: other processes.

use std::fs;

/// Memory that is resident, in bytes.
pub(super) fn rss_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * (rustix::param::page_size() as u64))
}

/// Open file descriptors, the one that looks not counted.
pub(super) fn descriptors() -> Option<u64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    Some(open.saturating_sub(1))
}

/// Threads.
pub(super) fn threads() -> Option<u64> {
    Some(fs::read_dir("/proc/self/task").ok()?.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_files_and_threads() {
        assert!(rss_bytes().is_some_and(|bytes| bytes > 1 << 20));
        let before = descriptors().expect("there is /proc here");
        let _open = fs::File::open("/proc/self/statm").expect("it is there");
        // Other tests of this process open and close files meanwhile.
        assert!(before > 2 && descriptors().is_some_and(|now| now > 2));
        assert!(threads().is_some_and(|threads| threads > 0));
    }
}
