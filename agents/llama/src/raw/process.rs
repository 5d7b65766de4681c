//! What llama.cpp needs once per process: its initialisation, and a way out while it still computes.
//!
//! `exit` destroys the static objects of C++, including llama.cpp's, while other threads run: a thread that computes or
//! tokenizes then reads destroyed objects, and the process dies by a signal instead of exiting with its status.

use std::sync::{Once, OnceLock};

use super::log;

/// Initialises llama.cpp once per process and forwards its log.
pub(super) fn init() {
    static BACKEND: OnceLock<Option<llama_cpp_2::llama_backend::LlamaBackend>> = OnceLock::new();
    BACKEND.get_or_init(|| {
        log::install();
        // The only error is that it is initialised already.
        llama_cpp_2::llama_backend::LlamaBackend::init().ok()
    });
}

/// Gives this process the lowest priority of the CPU. Threads that were started before keep theirs, so call it first.
///
/// # Errors
/// The system's.
pub fn lower_priority() -> std::io::Result<()> {
    /// The largest nice value.
    const LOWEST: nix::libc::c_int = 19;
    // SAFETY: the function has no pointers; process 0 is the calling one.
    match unsafe { nix::libc::setpriority(nix::libc::PRIO_PROCESS, 0, LOWEST) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Makes the process exit without destroying the static objects that llama.cpp has created so far. Call it once a model has
/// loaded and tokenized: objects created later are destroyed all the same. Works with glibc only; elsewhere it does nothing.
pub(crate) fn skip_static_destructors() {
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

    extern "C" fn exit_now(status: c_int, _: *mut c_void) {
        // SAFETY: `_exit` may be called at any time. Rust has flushed its streams before it calls `exit`.
        unsafe { _exit(status) }
    }

    // SAFETY: the handler takes no argument. `on_exit` fails only for lack of memory, without any effect.
    unsafe { on_exit(exit_now, std::ptr::null_mut()) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn register() {}
