//! llama.cpp's log as ours, and what it tells of memory, which it tells nowhere else.

use std::ffi::{CStr, c_char, c_void};
use std::sync::Mutex;

use llama_cpp_sys_2 as sys;

/// One line that tells of a buffer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Buffer {
    /// The buffer's kind of memory, such as `CPU_Mapped`, `CUDA0` or `RPC0[127.0.0.1:50052]`.
    pub(crate) place: String,
    /// What lies in it.
    pub(crate) what: What,
    /// Its size.
    pub(crate) bytes: u64,
}

/// What lies in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Weights,
    Cache,
    Compute,
}

#[derive(Default)]
struct Log {
    /// A line that has not ended yet, and its level.
    line: String,
    level: sys::ggml_log_level,
    buffers: Vec<Buffer>,
    errors: Vec<String>,
}

/// Errors that are remembered: the first ones say what is wrong, the others what follows from it.
const ERRORS: usize = 3;
/// Bytes of an error that are remembered: it may quote a file.
const ERROR: usize = 300;

static LOG: Mutex<Log> = Mutex::new(Log { line: String::new(), level: 0, buffers: Vec::new(), errors: Vec::new() });

/// Sends the log to ours from now on.
pub(super) fn start() {
    // SAFETY: the callback is a function of the program, takes no user data, and never unwinds.
    unsafe {
        sys::llama_log_set(Some(take), std::ptr::null_mut());
        sys::ggml_log_set(Some(take), std::ptr::null_mut());
    }
}

/// The buffers told of since the last call.
pub(crate) fn buffers() -> Vec<Buffer> {
    LOG.lock().map(|mut log| std::mem::take(&mut log.buffers)).unwrap_or_default()
}

/// The first errors since the last call, in one line.
pub(crate) fn errors() -> String {
    LOG.lock().map(|mut log| std::mem::take(&mut log.errors).join("; ")).unwrap_or_default()
}

unsafe extern "C" fn take(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: llama.cpp gives a C string that lives during the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let Ok(mut log) = LOG.lock() else { return };
    for part in text.split_inclusive('\n') {
        if level != sys::GGML_LOG_LEVEL_CONT {
            log.level = level;
        }
        log.line.push_str(part);
        if part.ends_with('\n') {
            let line = std::mem::take(&mut log.line);
            let line = line.trim_end();
            log.buffers.extend(buffer(line));
            if log.level == sys::GGML_LOG_LEVEL_ERROR && log.errors.len() < ERRORS {
                log.errors.push(line[..line.floor_char_boundary(ERROR)].to_owned());
            }
            tell(log.level, line);
        }
    }
}

/// llama.cpp tells each tensor of a model at its level `info`, which is our `debug`.
fn tell(level: sys::ggml_log_level, line: &str) {
    match level {
        _ if line.trim_start_matches('.').is_empty() => {}
        sys::GGML_LOG_LEVEL_ERROR => tracing::error!(target: "llama_cpp", "{line}"),
        sys::GGML_LOG_LEVEL_WARN => tracing::warn!(target: "llama_cpp", "{line}"),
        sys::GGML_LOG_LEVEL_INFO => tracing::debug!(target: "llama_cpp", "{line}"),
        _ => tracing::trace!(target: "llama_cpp", "{line}"),
    }
}

/// Reads lines such as `load_tensors:   CPU_Mapped model buffer size =    92.32 MiB`.
fn buffer(line: &str) -> Option<Buffer> {
    let (before, after) = line.split_once(" buffer size =")?;
    let mut words = before.split_whitespace().rev();
    let what = match words.next()? {
        "model" | "LoRA" => What::Weights,
        "KV" | "RS" => What::Cache,
        "compute" | "output" => What::Compute,
        _ => return None,
    };
    let place = words.next()?.to_owned();
    let size: f64 = after.trim().strip_suffix("MiB")?.trim().parse().ok()?;
    Some(Buffer { place, what, bytes: (size * 1_048_576.0) as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_read_from_lines() {
        let line = "load_tensors:   CPU_Mapped model buffer size =    92.32 MiB";
        let expected = Buffer { place: "CPU_Mapped".to_owned(), what: What::Weights, bytes: 96_804_536 };
        assert_eq!(buffer(line), Some(expected));
        let line = "llama_kv_cache: RPC0[127.0.0.1:50052] KV buffer size =   720.00 MiB";
        let found = buffer(line).unwrap();
        assert_eq!((found.place.as_str(), found.what), ("RPC0[127.0.0.1:50052]", What::Cache));
        assert_eq!(buffer("sched_reserve:        CPU compute buffer size =    12.50 MiB").unwrap().what, What::Compute);
        for other in ["", "buffer size = 1 MiB", "x: CPU model buffer size = many MiB", "CPU tea buffer size = 1.0 MiB"]
        {
            assert_eq!(buffer(other), None, "{other}");
        }
    }
}
