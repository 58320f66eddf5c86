//! Memory that is free goes back to the system.

/// Gives free memory of the C library's allocator back to the system; it keeps it otherwise, and a process
/// that once moved a large folder would look as large for ever. Takes milliseconds. Elsewhere than with the
/// GNU C library nothing is done: other allocators do so by themselves.
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code, reason = "there is no other way to ask the allocator")]
    // SAFETY: malloc_trim(3) takes no pointer and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
