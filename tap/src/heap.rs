//! The C library's heap, of whose memory it gives little back by itself.

/// Has all threads share so many arenas, once and early: each keeps what its threads once needed for itself. Costs a wait where
/// more threads than that allocate at the same time.
pub fn share_arenas(n: u16) {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a parameter of malloc; no memory is touched.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, n.into());
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = n;
}

/// Gives free memory back to the system: after a storm that is most of it.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: releases pages that hold no allocation.
    unsafe {
        libc::malloc_trim(0);
    }
}
