//! The end of a process in which llama.cpp still computes.
//!
//! `exit` destroys the static objects of C++, llama.cpp's among them, while other threads go on: a thread that computes or
//! tokenizes then reads what is no more, and the process dies of a signal instead of ending with its status.

use std::sync::Once;

/// From now on the process ends without destroying what is static in llama.cpp so far. To be called once a model has been
/// loaded and has tokenized: what is first made later is destroyed all the same. Only glibc can do this; elsewhere it does nothing.
pub(crate) fn without_destructors() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(register);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn register() {
    use std::ffi::{c_int, c_void};

    unsafe extern "C" {
        fn on_exit(handler: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
        fn _exit(status: c_int) -> !;
    }

    extern "C" fn leave(status: c_int, _: *mut c_void) {
        // SAFETY: it may be called at any time. Rust has flushed its streams before it calls `exit`.
        unsafe { _exit(status) }
    }

    // SAFETY: the handler needs no argument. It fails for lack of memory alone, and then all is as it was.
    unsafe { on_exit(leave, std::ptr::null_mut()) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn register() {}
